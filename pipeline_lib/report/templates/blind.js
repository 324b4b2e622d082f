"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const questions = ["identity", "motion", "prompt", "overall"];
const form = document.getElementById("questions");
const memory = "mannerism blind " + data.comparison;
let answers = {}, at = 0;
// A page from a file may have no storage of its own: then the answers live as long as it is open.
try { answers = JSON.parse(localStorage.getItem(memory)) || {}; } catch { answers = {}; }

function complete(pair) { return questions.every((name) => (answers[pair.id] || {})[name]); }
function show() {
  const pair = data.pairs[at];
  for (const place of ["reference", "left", "right"]) {
    const video = document.getElementById(place);
    video.parentElement.hidden = !pair[place];
    if (video.dataset.key === pair[place]) { video.currentTime = 0; continue; }
    video.dataset.key = pair[place];
    video.src = data.videos[pair[place]];
  }
  document.getElementById("prompt").textContent = pair.prompt;
  for (const input of form.querySelectorAll("input")) {
    input.checked = (answers[pair.id] || {})[input.name] === input.value;
  }
  tell();
}
function tell() {
  const done = data.pairs.filter(complete).length;
  document.getElementById("progress").textContent = `Pair ${at + 1} of ${data.pairs.length}, ${done} answered`;
  document.getElementById("back").disabled = at === 0;
  document.getElementById("next").disabled = at === data.pairs.length - 1;
}
form.addEventListener("change", (event) => {
  const id = data.pairs[at].id;
  answers[id] = { ...answers[id], [event.target.name]: event.target.value };
  try { localStorage.setItem(memory, JSON.stringify(answers)); } catch { /* kept in the page alone */ }
  tell();
});
for (const [name, step] of [["back", -1], ["next", 1]]) {
  document.getElementById(name).addEventListener("click", () => { at += step; show(); });
}
document.getElementById("save").addEventListener("click", () => {
  // The memory is that of all pages of this comparison; each page saves its own pairs alone.
  const own = Object.fromEntries(data.pairs.map((pair) => [pair.id, answers[pair.id]]).filter(([, said]) => said));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify({ comparison: data.comparison, answers: own }, null, 1)], { type: "application/json" }));
  link.download = data.comparison + "-answers.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
show();
