"""The report in a real browser: videos load, the script runs under its own policy, nothing is fetched."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from pipeline_lib.media.write import write_video
from pipeline_lib.records import Caption, ClipRecord, ConceptRecord, Prompt, SampleRecord
from pipeline_lib.report.inputs import ReportClip, ReportInputs, ReportSample
from pipeline_lib.report.page import write_report

pytestmark = pytest.mark.system

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--enable-logging=stderr", "--virtual-time-budget=8000",
)  # fmt: skip
# Runs beside the page, in the page that holds it: what a person would see, written where --dump-dom shows it.
HARNESS = """<!doctype html>
<iframe id="page" src="report.html" style="width:{width}px;height:900px"></iframe><pre id="seen"></pre>
<script>
setTimeout(() => {{
  const inner = document.getElementById("page").contentDocument;
  const seen = [...inner.querySelectorAll("video")].map(
    (video) => [video.videoWidth, video.videoHeight, video.readyState, video.error ? 1 : 0].join("x"));
  inner.querySelector(".frame").click();
  const button = inner.getElementById("playback");
  document.getElementById("seen").textContent = JSON.stringify({{
    videos: seen, button: button.textContent, hidden: button.hidden,
    copies: inner.querySelectorAll("[data-copies]").length,
    dialog: inner.querySelector("dialog").open,
    overflow: inner.documentElement.scrollWidth - inner.documentElement.clientWidth,
    injected: typeof inner.defaultView.injected,
  }});
}}, 4000);
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("no Chromium here")
    if found is None:
        pytest.skip("no Chromium here; make test-system installs it")
    return found


def _report(folder: Path) -> Path:
    """A page whose caption tries to run a script and to fetch a picture."""
    image = np.random.default_rng(2).integers(0, 256, (16, 16, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    frames = np.stack([np.roll(image, 2 * index, 1) for index in range(9)])
    video = write_video(frames, folder / "clip.mp4", 8)
    hostile = "<script>window.injected = 1</script><img src='http://127.0.0.1:9/x.png' onerror='window.injected = 1'>"
    caption = Caption(class_noun="cube", static=hostile)
    concept = ConceptRecord(
        name="cube", method="set_and_sequence", base="pocket", base_digest="b" * 64, family="wan", trigger="zor cube",
        class_noun="cube", captions=(caption,), stages=(), rank=4, seed=7, data_digest="d" * 64,
    )  # fmt: skip
    record = ClipRecord(
        name="cube.mp4", kind="video", sources=(), height=64, width=64, num_frames=9, frames_per_second=8
    )
    samples = tuple(
        ReportSample(
            record=SampleRecord(
                file="0.mp4", prompt=Prompt(text="a {subject} on the beach" * 4, kind="global"), filled_prompt=hostile,
                seed=0, model=model, num_frames=9, frames_per_second=8,
            ),
            file=video,
        )
        for model in ("base", "personalised")
    )  # fmt: skip
    clips = (ReportClip(record=record, files=(video,), reconstructions=(video,), caption=caption),)
    inputs = ReportInputs(
        concept=concept, created=datetime(2026, 3, 4), seconds=1, clips=clips, samples=samples, notes=(hostile,)
    )
    return write_report(inputs, folder / "report.html")


def _browse(browser: str, address: str, folder: Path, more: Sequence[str]) -> tuple[str, str]:
    command = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", *more, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


@pytest.fixture
def served(tmp_path: Path):
    """The folder over HTTP, so that harness and page share an origin; it records what is asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            file = tmp_path / self.path.lstrip("/")
            found = file.is_file()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(file.read_bytes() if found else b"")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("width", [1280, 390])
def test_videos_load_and_nothing_is_injected_or_fetched(
    browser: str, tmp_path: Path, served: tuple[str, list[str]], width: int
) -> None:
    address, asked = served
    _report(tmp_path)
    (tmp_path / "harness.html").write_text(HARNESS.format(width=width), encoding="utf-8")
    dom, log = _browse(browser, f"{address}/harness.html", tmp_path, ["--dump-dom", "--window-size=1400,1000"])
    seen = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.S)
    assert seen, log
    told = json.loads(seen[1])
    # The opening row repeats the clip and the pair; the card repeats the clip: four copies of four videos.
    assert len(told["videos"]) == 4 + 4
    assert all(re.fullmatch(r"64x64x[1-4]x0", video) for video in told["videos"]), told["videos"]
    assert told["copies"] == 0, "every copy found its source"
    assert (told["button"], told["hidden"]) == ("Pause videos", False)
    assert told["dialog"], "a click on a tile enlarges it"
    assert told["overflow"] <= 0, "nothing sticks out at this width"
    assert told["injected"] == "undefined"
    assert {path for path in asked if path != "/favicon.ico"} == {"/harness.html", "/report.html"}
    assert "Content Security Policy" not in log, log


def test_it_opens_from_disk_and_prints(browser: str, tmp_path: Path) -> None:
    page = _report(tmp_path)
    picture, paper = tmp_path / "page.png", tmp_path / "page.pdf"
    _browse(browser, page.as_uri(), tmp_path, [f"--screenshot={picture}", "--window-size=1280,1600"])
    _browse(browser, page.as_uri(), tmp_path, [f"--print-to-pdf={paper}"])
    assert picture.stat().st_size > 50_000
    assert paper.read_bytes().startswith(b"%PDF")
