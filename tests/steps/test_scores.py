"""Scores of a run, end to end: windows, ceilings, what lies in the run folder and what scripts read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline_lib.media.clip import Clip
from pipeline_lib.models.concept import read_concept
from pipeline_lib.personalize import run_in_process
from pipeline_lib.records import ArtifactRef, ClipRecord
from pipeline_lib.run_config import with_settings
from pipeline_lib.steps import run_folder
from pipeline_lib.steps.evaluate import KNOWN_KIND, load_scores
from pipeline_lib.steps.plan import report_inputs
from pipeline_lib.steps.run_folder import RunFolder, RunResult
from pipeline_lib.steps.scale import ceiling_pieces, reference_windows
from pipeline_lib.steps.state import StateFolder
from tests.steps.conftest import Finished
from tests.steps.tiny import small_images, square, tiny_config

Again = Callable[..., RunResult]


def clip_of(num_frames: int, kind: str = "video", name: str = "wolf.mp4") -> Clip:
    frames = square(num_frames, size=32, start=0)
    height, width = frames.shape[1:3]
    record = ClipRecord(
        name=name, kind=kind, sources=(), height=height, width=width, num_frames=num_frames, frames_per_second=8
    )
    return Clip(frames, record)


@pytest.fixture(scope="module")
def two_seeds(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run with a reconstruction prompt and an edit, two seeds each."""
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.yaml"
    asked = [{"text": "{subject} slides", "kind": "reconstruction"}, {"text": "{subject} at night", "kind": "global"}]
    prompts.write_text(yaml.safe_dump(asked))
    settings = [f"samples.prompts_file={prompts}", "samples.prompts=[]", "samples.seeds=[0, 1]"]
    return run_in_process(with_settings(finished.config, settings), finished.state, lambda _event: None)


def scored(finished: Finished, result: RunResult) -> list[dict[str, object]]:
    record = RunFolder(finished.state, result.run_id).record()
    assert record is not None
    samples = load_scores(finished.state.store, record.steps["evaluate"].ref)
    return [
        {**sample.model_dump(), **{score.metric: score.value for score in sample.scores}, "seed": sample.seed}
        for sample in samples
    ]


def test_scripts_read_best_of_seeds_and_kinds_of_prompts_apart(finished: Finished, two_seeds: RunResult) -> None:
    rows = scored(finished, two_seeds)
    for row in ("base", "personalised"):
        errors = [one["mse"] for one in rows if one["row"] == row and one["kind"] == "reconstruction"]
        assert len(errors) == 2
        assert two_seeds.scores_best[row]["mse"] == min(errors)
        assert two_seeds.scores_reconstruction[row]["mse"] == pytest.approx(np.mean(errors))
        edits = [one["mse_edit"] for one in rows if one["row"] == row and one["kind"] == "global"]
        assert two_seeds.scores_edits[row]["mse_edit"] == pytest.approx(np.mean(edits))
        assert "mse" not in two_seeds.scores_edits[row]
        flicker = [one["temporal_flickering"] for one in rows if one["row"] == row]
        assert two_seeds.scores[row]["temporal_flickering"] == pytest.approx(np.mean(flicker))
    assert "mse" not in two_seeds.scores_edits["ceiling"]
    assert "temporal_flickering" in two_seeds.scores_edits["ceiling"]


def test_the_ceiling_is_the_mean_over_the_windows_of_training(finished: Finished, two_seeds: RunResult) -> None:
    windows = [one for one in scored(finished, two_seeds) if one["row"] == "ceiling"]
    assert [one["prompt"] for one in windows] == [f"window {number} of Red Square.mp4" for number in (1, 2, 3, 4)]
    mean = pytest.approx(np.mean([one["mse"] for one in windows]))
    assert two_seeds.scores_reconstruction["ceiling"]["mse"] == mean
    assert two_seeds.scores_best["ceiling"]["mse"] == mean, "windows are no seeds: none of them is chosen"


def test_scores_lie_in_the_run_folder(finished: Finished, two_seeds: RunResult) -> None:
    folder = Path(two_seeds.run_dir)
    rows = json.loads((folder / "scores.json").read_text())
    assert {row["row"] for row in rows} == {"base", "personalised", "ceiling"}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["reconstruction"]["base"]["mse"]["mean"] == two_seeds.scores_reconstruction["base"]["mse"]


def test_the_page_tells_stages_windows_and_all_artifacts(finished: Finished, two_seeds: RunResult) -> None:
    page = Path(two_seeds.report).read_text()
    for expected in ("Effective rank", "Basis norm", "nearest is window", "<td>latents</td>", "<td>prior</td>"):
        assert expected in page, expected
    assert page.count("<td>stage</td>") == 2, "each stage once"
    record = RunFolder(finished.state, two_seeds.run_id).record()
    assert record is not None
    for name in ("train-identity", "train-motion"):
        manifest = finished.state.store.get(record.steps[name].ref).manifest
        assert manifest.notes["seconds"] > 0
    assert page.count(f"{len(range(4))} of 4 steps · ") == 2
    assert "4 of 4 steps · loss" not in page, "the stage's time stands between"


def test_both_roads_report_the_same_inputs() -> None:
    made = dict.fromkeys(("after", "stage", "data", "captions", "clips", "before", "scores", "concept"), "x")
    chosen = report_inputs(made, {"identity": "i", "motion": "m"})
    expected = ["clips", "captions", "before", "data", "after", "scores", "concept", "stage-identity", "stage-motion"]
    assert list(chosen) == expected
    assert "prior" in report_inputs({**made, "prior": "p"}, {})


def test_a_run_whose_latents_were_pruned_is_still_finished(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.state.root, tmp_path / "state")
    state = StateFolder.open(tmp_path / "state")
    folder = RunFolder(state, finished.result.run_id)
    record = folder.record()
    assert record is not None

    def forget(step: str) -> None:
        ref: ArtifactRef = record.steps[step].ref
        shutil.rmtree(state.store.root / "artifacts" / ref.kind / ref.key)

    for step in ("encode", "prior", "train-identity"):
        forget(step)
    assert folder.finished(finished.config, state.store) is not None
    forget("train-motion")
    assert folder.finished(finished.config, state.store) is None


def test_a_changed_page_template_is_another_library(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run_folder.LIBRARY / "report", tmp_path / "report")
    monkeypatch.setattr(run_folder, "LIBRARY", tmp_path)
    before = run_folder.fingerprint(finished.config)
    (tmp_path / "report" / "templates" / "style.css").write_text("body { color: red }")
    assert run_folder.fingerprint(finished.config) != before


def test_the_concept_in_the_run_folder_tells_its_run(finished: Finished) -> None:
    assert read_concept(Path(finished.result.concept)).record.run_id == finished.result.run_id
    record = RunFolder(finished.state, finished.result.run_id).record()
    assert record is not None
    shared = finished.state.store.folder(record.steps["concept"].ref)
    assert read_concept(shared).record.run_id == "", "other runs share the artifact"


def test_methods_on_one_concept_share_what_no_training_changes(finished: Finished, run_again: Again) -> None:
    known = finished.state.root / "store" / "artifacts" / KNOWN_KIND
    before = {path: path.stat().st_mtime_ns for path in sorted(known.rglob("*.json"))}
    assert before
    other = run_again(with_settings(finished.config, ["method.settings.motion_steps=3"]))
    assert not other.found
    assert {path: path.stat().st_mtime_ns for path in sorted(known.rglob("*.json"))} == before
    first, second = (scored(finished, result) for result in (finished.result, other))
    ours = [[row for row in rows if row["row"] != "personalised"] for rows in (first, second)]
    assert ours[0] == ours[1]
    assert first != second


def test_windows_are_counted_over_videos_only() -> None:
    clips = [clip_of(3, "images", "pictures"), clip_of(5), clip_of(7, name="fox.mp4")]
    windows = reference_windows(clips, 5)
    assert [(window.clip, window.start, window.name) for window in windows] == [
        (0, 0, "wolf.mp4"),
        (1, 0, "window 1 of fox.mp4"),
        (1, 1, "window 2 of fox.mp4"),
        (1, 2, "window 3 of fox.mp4"),
    ]
    pieces = ceiling_pieces(clips, windows)
    assert [piece.source for piece in pieces] == [1, 2, 2, 2]
    assert np.array_equal(pieces[3].frames, clips[2].frames[2:7])


def test_the_ceiling_has_at_most_sixteen_pieces_spread_over_all() -> None:
    clips = [clip_of(5 + 40, name="a"), clip_of(5 + 40, name="b")]
    names = [piece.name for piece in ceiling_pieces(clips, reference_windows(clips, 5))]
    assert len(names) == 16
    assert names[0] == "window 1 of a"
    assert names[-1] == "window 16 of b"
    assert [piece.frames.shape[0] for piece in ceiling_pieces([clip_of(20, "images")], ())] == [1] * 16


def test_pictures_go_through_the_autoencoder_one_by_one(tmp_path: Path, tiny_folder: Path) -> None:
    config = tiny_config(tiny_folder, [small_images(tmp_path / "pictures")])
    state = StateFolder.open(tmp_path / "state")
    result = run_in_process(config, state, lambda _event: None)
    record = RunFolder(state, result.run_id).record()
    assert record is not None
    ref = record.steps["evaluate"].ref
    files = sorted((state.store.folder(ref) / "ceiling").rglob("*.*"))
    assert [str(file.relative_to(state.store.folder(ref))) for file in files] == [
        f"ceiling/0/{n:03d}.png" for n in (0, 1, 2)
    ]
    assert np.asarray(Image.open(files[0])).shape == (32, 32, 3)
    samples = load_scores(state.store, ref)
    ceiling = [sample for sample in samples if sample.row == "ceiling"]
    assert len(ceiling) == 3
    temporal = ("temporal_flickering", "motion_smoothness_linear", "clip_consistency", "dynamic_degree_dis", "mse")
    for sample in ceiling:
        scores = {score.metric: score for score in sample.scores}
        assert all(scores[name].value is None and scores[name].reason for name in temporal)
    base = {score.metric: score for score in samples[0].scores}
    assert "pictures" in base["mse"].reason
    assert base["temporal_flickering"].value is not None, "samples are videos all the same"
    page = Path(result.report).read_text()
    assert page.count("Through the autoencoder</span>") == 3
