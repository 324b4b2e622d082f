"""The step mask: only what rests on masks is made again, empty frames are told and left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline_lib.errors import ConfigError
from pipeline_lib.run_config import RunConfig, with_settings
from pipeline_lib.steps.check import check_config
from pipeline_lib.steps.mask import load_masks, masked_frames
from pipeline_lib.steps.prepare import load_clips
from pipeline_lib.steps.run_folder import RunFolder, RunResult
from pipeline_lib.training.data import TrainingData
from tests.steps.conftest import Finished

Again = Callable[..., RunResult]
EMPTY = (2, 3)


def made(result: RunResult) -> set[str]:
    return {name for name, seconds in result.seconds.items() if seconds > 0}


@pytest.fixture(scope="module")
def masks(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mask for each frame that is trained on; two of them are empty."""
    record = RunFolder(finished.state, finished.result.run_id).record()
    assert record is not None
    (clip,) = load_clips(finished.state.store, record.steps["prepare"].ref)
    folder = tmp_path_factory.mktemp("masks")
    for index, frame in enumerate(clip.frames):
        red = (frame[..., 0].astype(int) - frame[..., 1] > 60) & (index not in EMPTY)
        Image.fromarray(red.astype(np.uint8) * 255).save(folder / f"{index:03d}.png")
    return folder


@pytest.fixture(scope="module")
def masked(finished: Finished, masks: Path) -> RunConfig:
    return with_settings(finished.config, [f"mask.segmenter={masks}"])


def test_masks_change_what_rests_on_them_alone(finished: Finished, run_again: Again, masked: RunConfig) -> None:
    first = run_again(masked)
    assert made(first) == {
        "mask", "encode", "train-identity", "train-motion", "generate-personalised", "evaluate", "concept", "report",
    }  # fmt: skip
    assert any("not found in frames 2, 3: left out of the training" in note for note in first.notes), first.notes
    record = RunFolder(finished.state, first.run_id).record()
    assert record is not None
    steps, store = record.steps, finished.state.store
    (track,), (clip,) = load_masks(store, steps["mask"].ref), load_clips(store, steps["prepare"].ref)
    assert track.empty_frames() == EMPTY
    assert steps["mask"].figures["empty_frames"] == len(EMPTY)
    dark = masked_frames(clip, track)
    assert (dark[track.masks == 1] == clip.frames[track.masks == 1]).all()
    assert dark[track.masks == 0].mean() < 0.5 * clip.frames[track.masks == 0].mean()
    data = TrainingData.load(store.folder(steps["encode"].ref))
    assert data.masked and data.empty_frames == tuple((0, frame) for frame in EMPTY)
    assert "left out of the training" in Path(first.report).read_text()
    assert run_again(masked).found
    assert run_again().found  # and without masks nothing has changed


def test_masks_are_found_again_by_content(
    finished: Finished, run_again: Again, masked: RunConfig, masks: Path, tmp_path: Path
) -> None:
    run_again(masked)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in masks.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    again = run_again(with_settings(finished.config, [f"mask.segmenter={moved}"]))
    assert made(again) <= {"report"}


def test_a_base_without_a_segmenter_is_told_at_once(finished: Finished) -> None:
    with pytest.raises(ConfigError, match="brings no segmenter"):
        check_config(with_settings(finished.config, ["mask.segmenter=auto"]))
