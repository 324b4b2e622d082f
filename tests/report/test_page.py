"""The page: self-contained, escaped, complete, and honest about what is missing."""

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.metrics import ScoredSample
from pipeline_lib.report import ReportInputs, write_report
from pipeline_lib.report.page import render

Make = Callable[..., ReportInputs]
HOSTILE = (
    """</title></style></script><script>alert("1")</script>"><img src=http://evil.example onerror='a(2)'>{{ 7*7 }}"""
)


class Page(HTMLParser):
    """Tags with attributes, and the text of each kind of element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._inside.append(tag)

    def handle_data(self, data: str) -> None:
        if self._inside and self._inside[-1] not in ("script", "style"):
            self.text.append(data)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def values(self, *names: str) -> list[str]:
        return [value for _, attributes in self.tags for name, value in attributes.items() if name in names]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def test_the_page_asks_the_network_for_nothing(make_inputs: Make) -> None:
    html = render(make_inputs())
    page = Page(html)
    assert all(value.startswith("data:") for value in page.values("src", "poster", "srcset", "data"))
    addresses = [value for value in page.values("href", "action") if not value.startswith("#")]
    assert addresses == ["http://127.0.0.1:5000/run"], "the link that was given, to be clicked"
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "iframe", "object", "embed", "base"})
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in policy


def test_the_policy_lets_our_script_run_and_no_other(make_inputs: Make) -> None:
    html = render(make_inputs())
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.replace("&#39;", "'")
    assert "fetch(" not in script
    assert "XMLHttpRequest" not in script


def test_hostile_text_is_text_wherever_it_comes_in(make_inputs: Make) -> None:
    plain, hostile = Page(render(make_inputs())), Page(render(make_inputs(HOSTILE)))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags], "no element more and none fewer"
    allowed = {name for _, attributes in plain.tags for name in attributes}
    assert {name for _, attributes in hostile.tags for name in attributes} <= allowed
    assert HOSTILE in "".join(hostile.text)
    assert "49" not in [word for word in hostile.text if "evil.example" not in word]


def test_links_that_are_no_web_addresses_are_left_out(make_inputs: Make) -> None:
    bad = {
        "a": "javascript:alert(1)",
        "b": "data:text/html,x",
        "c": "file:///etc/passwd",
        "d": "//evil.example",
        "e": "",
    }
    page = Page(render(make_inputs(links={**bad, "good": "https://mlflow.example/run"})))
    assert [value for value in page.values("href") if not value.startswith("#")] == ["https://mlflow.example/run"]


def test_it_shows_what_a_run_is(make_inputs: Make) -> None:
    page = Page(render(make_inputs()))
    for expected in ("pocket", "Set and sequence", "3 min 20 s", "4 March 2026, 15:06", "5 frames at 8 per second",
                     "d" * 64, "b" * 64, "load_lora_weights", "LoraLoaderModelOnly", "seed: 7", "Identity",
                     "3 of 3 steps", "Gradient norm", "held-out loss 0.5 → 0.5",
                     "every 1. frame, grey, ×4"):  # fmt: skip
        assert expected in page.words, expected
    videos = [attributes for tag, attributes in page.tags if tag == "video"]
    assert len(videos) == 6, "clip, reconstruction, and two models for two prompts"
    assert all({"loop", "muted", "autoplay", "playsinline"} <= video.keys() for video in videos)
    assert all(video["aria-label"] for video in videos)
    copies = [attributes["data-copies"] for _, attributes in page.tags if "data-copies" in attributes]
    assert set(copies) <= {attributes.get("id") for _, attributes in page.tags}, "every copy has its source"


def test_missing_scores_are_a_dash_with_the_reason(make_inputs: Make) -> None:
    page = Page(render(make_inputs()))
    assert "Looks like the subject: – (no image-text encoder was given)" in page.words
    assert "Pixel error, subject only: – (no mask track)" in page.words
    assert "the ceiling shows the clip, not an edit" in page.words
    assert "None" not in page.words
    assert "nan" not in page.words.lower().split()
    notes = {attributes["id"] for tag, attributes in page.tags if tag == "li" and "id" in attributes}
    asked = {value[1:] for value in page.values("href") if value.startswith("#note-")}
    assert asked
    assert asked <= notes


def test_a_run_without_scores_samples_and_training_still_has_a_page(make_inputs: Make) -> None:
    page = Page(render(make_inputs(scores=(), samples=(), training=(), clips=(), settings={}, artifacts=(), notes=())))
    identifiers = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert "use" in identifiers
    assert identifiers.isdisjoint({"samples", "scores", "source", "training"})
    anchors = {value[1:] for value in page.values("href") if value.startswith("#")}
    assert anchors <= identifiers, "no link leads nowhere"


def test_ids_are_unique_and_anchors_lead_somewhere(make_inputs: Make) -> None:
    page = Page(render(make_inputs()))
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert {value[1:] for value in page.values("href") if value.startswith("#")} <= set(identifiers)


def test_learned_words_change_how_it_is_used(make_inputs: Make) -> None:
    assert "learned words" not in Page(render(make_inputs())).words
    assert "learned words that a LoRA file cannot carry" in Page(render(make_inputs(learned_words=True))).words


def test_a_page_is_written_whole_and_replaces_the_former_one(make_inputs: Make, tmp_path: Path) -> None:
    path = write_report(make_inputs(), tmp_path / "run" / "report.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    write_report(make_inputs("other"), path)
    assert "<title>other" in path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_the_same_inputs_give_the_same_page(make_inputs: Make) -> None:
    assert render(make_inputs()) == render(make_inputs())


def test_files_that_cannot_be_shown_are_named(make_inputs: Make, tmp_path: Path) -> None:
    inputs = make_inputs()
    gone = inputs.samples[0].__class__(record=inputs.samples[0].record, file=tmp_path / "gone.mp4")
    with pytest.raises(InputError, match=r"gone\.mp4"):
        render(make_inputs(samples=(gone,)))
    wrong = inputs.samples[0].__class__(record=inputs.samples[0].record, file=tmp_path / "frames.npy")
    with pytest.raises(InputError, match="cannot be shown"):
        render(make_inputs(samples=(wrong,)))


def test_mixed_encoders_are_refused(make_inputs: Make, scores: tuple[ScoredSample, ...]) -> None:
    other = scores[0].scores[-1].model_copy(update={"encoder": "another flow"})
    mixed = scores[0].model_copy(update={"seed": 9, "scores": (other,)})
    with pytest.raises(InputError, match="different encoders"):
        render(make_inputs(scores=(*scores, mixed)))
