"""The CLIPSeg path of the segmenter's seam, on a tiny random model of the real classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.masks.clipseg import ClipSegSegmenter
from pipeline_lib.pocket.segmenter import build_segmenter, publish, segmenter_tokenizer

FRAMES = np.random.default_rng(0).integers(0, 255, (5, 48, 80, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("models") / "clipseg"
    publish(dict(build_segmenter(len(segmenter_tokenizer())).named_parameters()), target)
    return target


def test_masks_are_of_the_frames_size_and_always_the_same(folder: Path) -> None:
    segmenter = ClipSegSegmenter(folder, threshold=0.15, batch=2)
    track = segmenter.segment(FRAMES, "dog")
    assert segmenter.name == "clipseg:clipseg"
    assert track.masks.shape == (5, 48, 80)
    assert set(np.unique(track.masks)) == {0.0, 1.0}
    assert np.array_equal(track.masks, segmenter.segment(FRAMES, "dog").masks)
    alone = segmenter.segment(FRAMES[3:4], "dog")
    assert (alone.masks != track.masks[3:4]).mean() < 1e-3


def test_a_subject_in_no_frame_is_an_error(folder: Path) -> None:
    with pytest.raises(InputError, match="finds no 'dog' in any frame"):
        ClipSegSegmenter(folder, threshold=1.0).segment(FRAMES, "dog")


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no segmenter that can be loaded"):
        ClipSegSegmenter(tmp_path / "absent")
