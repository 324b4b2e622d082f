"""The page: self-contained, escaped, complete, and honest about what is missing."""

import base64
import dataclasses
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from pipeline_lib.errors import InputError
from pipeline_lib.metrics import ScoredSample
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.report.inputs import ReportInputs, ReportStage
from pipeline_lib.report.page import render, write_report
from pipeline_lib.report.view import prompt_cards

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
    assert addresses == []
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


def test_it_shows_what_a_run_is(make_inputs: Make) -> None:
    page = Page(render(make_inputs()))
    for expected in ("pocket", "Set and sequence", "3 min 20 s", "4 March 2026, 15:06", "5 frames at 8 per second",
                     "d" * 64, "b" * 64, "load_lora_weights", "LoraLoaderModelOnly", "seed: 7", "Identity",
                     "3 of 3 steps · 1 min 15 s", "Gradient norm", "loss at fixed noise levels 0.5 → 0.5",
                     "Effective rank 1.75",
                     "num_frames=5, height=32",
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
    assert "the ceiling shows the reference, not an edit" in page.words
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


def test_a_loss_is_called_held_out_only_where_it_is(make_inputs: Make) -> None:
    def words(figures: dict[str, float]) -> str:
        return Page(render(make_inputs(stages={"identity": ReportStage(figures=figures)}))).words

    assert "held-out loss 0.5 → 0.5" in words({"validation_held_out": 1.0})
    assert "held-out" not in words({"validation_held_out": 0.0})
    assert "held-out" not in words({})
    assert "Validation held out" not in words({"validation_held_out": 1.0}), "it is a label, not a figure"


def test_one_prompt_with_two_negatives_keeps_its_scores_apart(make_inputs: Make) -> None:
    inputs = make_inputs()
    first = next(sample for sample in inputs.samples if sample.record.model == "personalised")
    asked = first.record.prompt.model_copy(update={"negative": "blur"})
    second = dataclasses.replace(first, record=first.record.model_copy(update={"prompt": asked, "file": "other.mp4"}))
    scores = [
        ScoredSample(
            row="personalised", prompt=asked.text, kind=asked.kind, seed=0, negative=negative,
            scores=(to_score("clip_i", Measurement(value), Trace()),),
        )
        for negative, value in (("plain words", 0.25), ("blur", 0.75))
    ]  # fmt: skip
    cards = prompt_cards(make_inputs(samples=(first, second), scores=tuple(scores)))
    assert [card.pairs[0].tiles[0].figures for card in cards] == [(("CLIP-I", "0.25"),), (("CLIP-I", "0.75"),)]


def test_pictures_are_shown_as_pictures(make_inputs: Make, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.png", "b.png", "a-rebuilt.png")]
    for file in files:
        Image.new("RGB", (32, 32)).save(file)
    clip = make_inputs().clips[0]
    record = clip.record.model_copy(update={"kind": "images", "num_frames": 2})
    pictures = dataclasses.replace(clip, record=record, files=tuple(files[:2]), reconstructions=tuple(files[2:]))
    page = Page(render(make_inputs(clips=(pictures,), samples=(), training=())))
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 3
    assert "video" not in {tag for tag, _ in page.tags}
    assert "2 pictures" in page.words
    assert "more like the pictures" in page.words
