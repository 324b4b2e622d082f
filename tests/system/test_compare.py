"""`compare --quick`: the core on one gizmo of a tiny base, twice; its pages in a browser, and a person's answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from pipeline_lib.compare.entries import CORE
from pipeline_lib.registry import TRUTHS
from pipeline_lib.steps.state import StateFolder
from tests.flows.conftest import command
from tests.steps.tiny import tiny_world_base
from tests.system.browser import browser_page, browser_path

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not all(path.is_file() for path in TRUTHS["gizmo"].weights), reason="no judge here"),
]

SHORT = (
    "method.settings.identity_steps=1",
    "method.settings.motion_steps=1",
    "method.settings.prior_weight=0",
    "method.settings.token_variants=2",
    "method.settings.batch=1",
    "samples.num_inference_steps=1",
    "evaluation.encoder=none",
    "evaluation.image_encoder=none",
    "evaluation.identity_encoder=none",
    "training.device=cpu",
)


@pytest.fixture(scope="module")
def quick(state: StateFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, Any]]:
    base = tiny_world_base(tmp_path_factory.mktemp("bases") / "tiny-world")
    settings = [part for text in (*SHORT, f"base.source={base}") for part in ("--set", text)]
    arguments = ["compare", "--quick", "--at-once", "2", "--json", *settings]
    return arguments, told(arguments)


def told(arguments: list[str]) -> dict[str, Any]:
    code, output, errors = command(arguments)
    assert code == 0, errors
    return json.loads(output.splitlines()[-1])


def test_the_core_is_compared_by_the_truth(quick: tuple[list[str], dict[str, Any]]) -> None:
    _, result = quick
    assert {cell["entry"] for cell in result["cells"]} == {entry.label for entry in CORE}
    assert result["concepts"] == {"tocket": "slow"}
    edits = result["scores"]["tables"]["edits"]
    assert list(edits) == ["chance", "base", *(entry.label for entry in CORE), "ceiling"]
    for row in edits.values():
        assert 0 <= row["identity_accuracy"]["mean"] <= 1
        assert 0 <= row["edit_accuracy"]["mean"] <= 1
        assert row["identity_accuracy"]["low"] is None, "one gizmo has no interval"
    for row in ("chance", "base", "ceiling"):
        assert edits[row]["mse_edit"]["mean"] > 0, (
            "the clips that were asked for, and other gizmos', beside the reference"
        )
    assert {finding["verdict"] for finding in result["scores"]["findings"]} == {"undecided"}
    assert "judge" in " ".join(result["models"])


def test_a_second_run_finds_all_and_gives_the_same_numbers(quick: tuple[list[str], dict[str, Any]]) -> None:
    arguments, first = quick
    again = told(arguments)
    assert all(cell["found"] for cell in again["cells"])
    assert again["scores"] == first["scores"]


def test_a_fresh_state_folder_gives_the_same_numbers(quick: tuple[list[str], dict[str, Any]], tmp_path: Path) -> None:
    arguments, first = quick
    fresh = subprocess.run(
        [sys.executable, "-m", "flows.cli.main", *arguments, "--methods", "set_and_sequence,lora-1"],
        env={name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        | {"MANNERISM_STATE": str(tmp_path / "fresh")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert fresh.returncode == 0, fresh.stderr
    result = json.loads(fresh.stdout.splitlines()[-1])
    assert not any(cell["found"] for cell in result["cells"])
    for group, rows in result["scores"]["tables"].items():
        assert rows.keys() >= {"base", "set_and_sequence", "lora-1"}
        assert rows == {row: first["scores"]["tables"][group][row] for row in rows}


def test_people_compare_blindly_and_are_counted(quick: tuple[list[str], dict[str, Any]], tmp_path: Path) -> None:
    if not browser_path():
        assert os.environ.get("CI") != "true", "no Chromium here"
        pytest.skip("no Chromium here; make test-system installs it")
    folder = Path(quick[1]["report"]).parent
    with browser_page(browser_path()) as page:
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto((folder / "compare.html").as_uri())
        expect(page.get_by_role("heading", name="Samples side by side")).to_be_visible()
        assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth)")
        page.goto((folder / "blind.html").as_uri())
        saved = _answered(page, tmp_path / "answers.json")
        assert not wrong
    preferences = told(["compare", "--tally", str(saved), "--json"])["preferences"]
    assert sum(one["won"] + one["lost"] for one in preferences if one["question"] == "overall") == 1
    assert sum(one["even"] for one in preferences if one["question"] == "identity") == 2


def _answered(page: Page, path: Path) -> Path:
    """Answers two pairs, goes back to look, and saves."""
    page.locator("input[name=identity][value=even]").check()
    page.locator("input[name=overall][value=left]").check()
    expect(page.locator("#left")).to_have_js_property("videoWidth", 64)
    page.get_by_role("button", name="Next").click()
    expect(page.locator("input[name=overall][value=left]")).not_to_be_checked()
    page.locator("input[name=identity][value=even]").check()
    page.get_by_role("button", name="Back").click()
    expect(page.locator("input[name=overall][value=left]")).to_be_checked()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save answers").click()
    download.value.save_as(path)
    return path
