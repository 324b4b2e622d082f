"""The page of blind pairs in a browser: what it saves after a former page of the same comparison was answered."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from playwright.sync_api import Page

from pipeline_lib.media.write import write_video
from pipeline_lib.report.blind import BlindPair, write_blind_page
from tests.steps.tiny import square
from tests.system.browser import browser_page, browser_path

pytestmark = pytest.mark.system


def test_only_pairs_of_this_page_are_saved(tmp_path: Path) -> None:
    if not browser_path():
        assert os.environ.get("CI") != "true", "no Chromium here"
        pytest.skip("no Chromium here; make test-system installs it")
    videos = {name: write_video(square(), tmp_path / f"{name}.mp4", 8.0) for name in ("a", "b")}
    former, both, later = (BlindPair(name, "a dog", "", "a", "b") for name in ("former", "both", "later"))
    with browser_page(browser_path()) as page:
        write_blind_page(tmp_path / "blind.html", "compare-1", [former, both], videos)
        assert _answered(page, tmp_path, ["left", "right"]) == {
            "former": {"overall": "left"}, "both": {"overall": "right"}
        }  # fmt: skip
        write_blind_page(tmp_path / "blind.html", "compare-1", [both, later], videos)
        assert _answered(page, tmp_path, ["", "even"]) == {"both": {"overall": "right"}, "later": {"overall": "even"}}
        write_blind_page(tmp_path / "blind.html", "compare-1", [former], videos)
        assert _answered(page, tmp_path, [""]) == {"former": {"overall": "left"}}, "nothing is forgotten"


def _answered(page: Page, folder: Path, answers: list[str]) -> dict[str, dict[str, str]]:
    """Opens the page, answers one pair after the other (empty: as it is remembered), and saves."""
    page.goto((folder / "blind.html").as_uri())
    for index, answer in enumerate(answers):
        if index:
            page.get_by_role("button", name="Next").click()
        if answer:
            page.locator(f"input[name=overall][value={answer}]").check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save answers").click()
    download.value.save_as(folder / "answers.json")
    return json.loads((folder / "answers.json").read_text())["answers"]
