"use strict";
// Shared media are embedded once; the other places copy them.
for (const place of document.querySelectorAll("[data-copies]")) {
  const source = document.getElementById(place.dataset.copies);
  if (!source) continue;
  const copy = source.cloneNode();
  copy.removeAttribute("id");
  copy.muted = true;
  copy.setAttribute(source.tagName === "IMG" ? "alt" : "aria-label", place.getAttribute("aria-label"));
  place.replaceWith(copy);
}

const videos = [...document.querySelectorAll("video")];
const button = document.getElementById("playback");
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
const visible = new Set();

function play(video) { video.play().catch(() => {}); }
function apply() {
  for (const video of videos) playing && visible.has(video) ? play(video) : video.pause();
  button.textContent = playing ? "Pause videos" : "Play videos";
}

// Videos of one row start together, so that they can be compared; those out of sight rest.
const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    for (const video of entry.target.querySelectorAll("video")) {
      if (entry.isIntersecting) { visible.add(video); video.currentTime = 0; } else visible.delete(video);
    }
  }
  apply();
});
for (const row of new Set(videos.map((video) => video.closest(".row, .tiles")))) observer.observe(row);
button.hidden = videos.length === 0;
button.addEventListener("click", () => { playing = !playing; apply(); });
apply();

const dialog = document.getElementById("large");
for (const frame of document.querySelectorAll(".frame")) {
  frame.addEventListener("click", () => {
    const media = frame.querySelector("video, img");
    if (!media) return;
    const large = media.cloneNode();
    large.removeAttribute("id");
    if (large.tagName === "VIDEO") { large.muted = true; large.controls = true; large.autoplay = playing; }
    dialog.querySelector(".stage").replaceChildren(large);
    dialog.querySelector("p").textContent = media.getAttribute("aria-label") || media.alt;
    dialog.showModal();
  });
}
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => dialog.querySelector(".stage").replaceChildren());
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });
