"""Comparisons by the command line: real runs of a tiny base on a clip; what is there is found, what is new is made."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mlflow import MlflowClient

from pipeline_lib.compare.blind import BlindKey
from pipeline_lib.compare.folder import CompareRecord
from pipeline_lib.steps.state import StateFolder
from tests.flows.conftest import command
from tests.steps.tiny import SETTINGS, small_clip

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

QUICK = (
    "method.settings.identity_steps=2",
    "method.settings.motion_steps=1",
    "method.settings.prior_weight=0",
    "samples.num_inference_steps=1",
    "training.device=cpu",
)


class Compared(NamedTuple):
    code: int
    errors: str
    result: dict[str, Any]

    @property
    def cells(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(cell["entry"], cell["concept"]): cell for cell in self.result["cells"]}


def compared(folder: Path, base: Path, methods: str, *more: str) -> Compared:
    texts = (*SETTINGS, *QUICK, f"base.source={base}")
    settings = [part for text in texts for part in ("--set", text)]
    arguments = ["compare", "--concepts", str(folder), "--methods", methods, "--seeds", "0,1", "--json", *settings]
    code, output, errors = command([*arguments, *more])
    return Compared(code, errors, json.loads(output.splitlines()[-1]))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    small_clip(folder / "hare.mp4")
    return folder


@pytest.fixture(scope="module")
def two(state: StateFolder, clips: Path, tiny_folder: Path) -> Compared:
    return compared(clips, tiny_folder, "set_and_sequence,lora-1", "--at-once", "2")


def test_each_method_runs_on_each_concept_and_is_scored_beside_the_base(two: Compared, state: StateFolder) -> None:
    assert two.code == 0, two.errors
    assert set(two.cells) == {(entry, name) for name in ("hare",) for entry in ("set_and_sequence", "lora-1")}
    assert {cell["status"] for cell in two.result["cells"]} == {"done"}
    assert len({cell["run_id"] for cell in two.result["cells"]}) == 2
    assert all(cell["trained_seconds"] > 0 for cell in two.result["cells"])
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert {tuple(cell["threads"]) for cell in two.result["cells"]} == {
        (int(os.environ.get("OMP_NUM_THREADS", share)),)
    }
    rebuilt = two.result["scores"]["tables"]["reconstruction"]
    assert list(rebuilt) == ["base", "set_and_sequence", "lora-1", "ceiling"], "no truth, no chance"
    for row in ("base", "set_and_sequence", "lora-1"):
        assert (rebuilt[row]["mse"]["num_concepts"], rebuilt[row]["mse"]["num_values"]) == (1, 2)
        assert rebuilt[row]["mse"]["low"] is None, "one concept gives no interval"
    assert rebuilt["set_and_sequence"]["mse"]["mean"] != rebuilt["lora-1"]["mse"]["mean"]
    methods = {method["entry"]["label"]: method for method in two.result["methods"]}
    assert methods["lora-1"]["settings"]["steps"] == 3, "as many as both stages"
    assert methods["lora-1"]["settings"]["rank"] == 1
    assert methods["set_and_sequence"]["settings"]["rank"] == 2


def test_the_page_has_the_same_numbers_and_needs_nothing_beside_it(two: Compared) -> None:
    page = Path(two.result["report"])
    record = CompareRecord.model_validate_json(page.with_name("compare.json").read_bytes())
    assert record.scores.model_dump(mode="json") == two.result["scores"]
    text = page.read_text()
    mean = record.scores.tables["reconstruction"]["lora-1"]["mse"].mean
    assert f"{mean:.4f}" in text
    assert text.count("data:image/webp") == 1 + 3 * 2, "the clip; base and two methods on two prompts"
    for cell in record.cells:
        assert (page.parent / f"../../runs/{cell.run_id}/report.html").resolve().is_file()
        assert f"../../runs/{cell.run_id}/report.html" in text
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text


def test_people_are_shown_pairs_that_do_not_say_what_made_them(two: Compared, tmp_path: Path) -> None:
    folder = Path(two.result["report"]).parent
    key = BlindKey.model_validate_json((folder / "blind_key.json").read_bytes())
    assert two.result["num_blind_pairs"] == len(key.pairs) == 2, "one edit, two seeds"
    page = (folder / "blind.html").read_text()
    assert page.count("data:video/mp4") == 1 + 4
    assert all(name in page for name in key.pairs)
    for word in ("lora-1", "set_and_sequence", "rank"):
        assert word not in page
    answers = {name: {"overall": "left" if pair.left == "lora-1" else "right"} for name, pair in key.pairs.items()}
    saved = tmp_path / "answers.json"
    saved.write_text(json.dumps({"comparison": key.comparison, "answers": answers}))
    code, output, _ = command(["compare", "--tally", str(saved), "--json"])
    (told,) = json.loads(output)["preferences"]
    assert code == 0
    assert (told["row"], told["won"], told["lost"], told["question"]) == ("lora-1", 2, 0, "overall")
    code, output, _ = command(["compare", "--tally", str(saved)])
    assert "100 %" in output


def test_mlflow_has_the_comparison_and_finds_its_runs(two: Compared, state: StateFolder) -> None:
    client, name = MlflowClient(state.mlflow_uri), two.result["compare_id"]
    experiment = client.get_experiment_by_name("mannerism")
    runs = client.search_runs([experiment.experiment_id], f"tags.`mannerism.compare` = '{name}'")
    (own,) = [run for run in runs if run.info.run_name == name]
    assert len(runs) == 3
    assert own.info.status == "FINISHED"
    assert own.data.metrics["lora-1/reconstruction/mse"] == pytest.approx(
        two.result["scores"]["tables"]["reconstruction"]["lora-1"]["mse"]["mean"]
    )
    files = {file.path for file in client.list_artifacts(own.info.run_id)}
    assert files >= {"compare.html", "compare.json", "scores.csv", "blind.html"}
    assert not [model for model in client.search_registered_models() if model.name == "hare"], "no candidates"


def test_a_second_call_finds_every_cell_and_gives_the_same_numbers(
    two: Compared, clips: Path, tiny_folder: Path
) -> None:
    again = compared(clips, tiny_folder, "set_and_sequence,lora-1")
    assert again.code == 0, again.errors
    assert all(cell["found"] for cell in again.result["cells"])
    assert again.result["compare_id"] == two.result["compare_id"]
    assert again.result["starts"] == two.result["starts"] + 1
    assert again.result["scores"] == two.result["scores"]


def test_another_method_makes_only_its_own_cells(two: Compared, clips: Path, tiny_folder: Path) -> None:
    more = compared(clips, tiny_folder, "set_and_sequence,lora-1,lora-8")
    assert more.code == 0, more.errors
    assert {entry: more.cells[entry, "hare"]["found"] for entry in ("set_and_sequence", "lora-1", "lora-8")} == {
        "set_and_sequence": True, "lora-1": True, "lora-8": False
    }  # fmt: skip
    former, now = (one.result["scores"]["tables"]["reconstruction"] for one in (two, more))
    assert {row: now[row] for row in former} == former
    assert "lora-8" in now


def test_a_cell_that_fails_stops_no_other_and_is_told(clips: Path, tiny_folder: Path, tmp_path: Path) -> None:
    small_clip(tmp_path / "hare.mp4")
    (tmp_path / "torn.mp4").write_bytes(b"no video at all" * 20)
    partly = compared(tmp_path, tiny_folder, "set_and_sequence,lora-1")
    assert partly.code == 1
    assert {name: cell["status"] for (_, name), cell in partly.cells.items()} == {"hare": "done", "torn": "failed"}
    assert len(partly.cells) == 4
    assert "torn.mp4" in partly.cells["lora-1", "torn"]["reason"]
    assert "lora-1 on torn failed" in Path(partly.result["report"]).read_text()
    assert partly.result["scores"]["tables"]["reconstruction"]["lora-1"]["mse"]["num_concepts"] == 1
