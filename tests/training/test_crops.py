"""Random crops: where they lie, what they show, and that whole frames and keys stay as they were without them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.masks.track import MaskTrack
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.settings import settings_from
from pipeline_lib.models.load import load_base
from pipeline_lib.training.crops import Crop, CropSettings, draw_crops
from pipeline_lib.training.encode import EncodingSettings, encode_training_data
from pipeline_lib.training.text import TokenDropSettings
from tests.training.conftest import CAPTION, clip_of, moving_square

SETTINGS = EncodingSettings(num_frames=4, drop=TokenDropSettings(probability=0, variants=1), subject="zwx dog")
CROPPED = dataclasses.replace(SETTINGS, crops=CropSettings(each=2, zoom=1.5))


@given(st.integers(16, 200), st.integers(16, 200), st.floats(1.01, 4.0), st.integers(0, 9), st.integers(0, 99))
def test_a_crop_lies_in_its_frame_and_keeps_its_proportions(height, width, zoom, seed, frame):
    settings = CropSettings(each=3, zoom=zoom)
    crops = list(draw_crops(settings, (height, width), seed, frame))
    assert crops == list(draw_crops(settings, (height, width), seed, frame))
    assert len(crops) == 3
    for crop in crops:
        assert 0 <= crop.top <= crop.top + crop.height <= height
        assert 0 <= crop.left <= crop.left + crop.width <= width
        assert height / zoom - 1 <= crop.height <= height
        assert abs(crop.height / height - crop.width / width) <= 0.5 / height + 0.5 / width + 1e-9


def test_crops_differ_between_frames_runs_and_each_other():
    settings = CropSettings(each=2, zoom=2.0)
    drawn = [tuple(draw_crops(settings, (480, 832), seed, frame)) for seed in (0, 1) for frame in (0, 1)]
    assert len({crop for crops in drawn for crop in crops}) == 8


def test_a_crop_shows_its_part_of_the_frame_enlarged():
    column, row = np.meshgrid(np.arange(64.0), np.arange(48.0))
    ramp = np.stack([2 * column, 3 * row, column + row], -1)  # a cubic keeps what is linear
    shown = Crop(top=8, left=10, height=24, width=32).frame(np.rint(ramp).astype(np.uint8))
    at_column, at_row = 10 + (np.arange(64) + 0.5) / 2 - 0.5, 8 + (np.arange(48) + 0.5) / 2 - 0.5
    wanted = np.stack(np.broadcast_arrays(2 * at_column, 3 * at_row[:, None], at_column + at_row[:, None]), -1)
    assert shown.shape == ramp.shape
    assert np.abs(shown - wanted)[4:-4, 4:-4].max() <= 1


def test_a_mask_is_cropped_as_its_frame_is():
    frame, mask = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.float32)
    frame[10:25, 12:30], mask[10:25, 12:30] = 255, 1
    crop = Crop(top=5, left=8, height=28, width=28)
    inside = crop.frame(frame)[..., 0] > 127
    assert 0.2 < inside.mean() < 0.6
    assert (inside != (crop.mask(mask) > 0.5)).mean() < 0.02


@pytest.fixture(scope="module")
def base(tiny_folder):
    return load_base(str(tiny_folder))


def encoded(base, settings, masks=None):
    return encode_training_data(base, [clip_of(moving_square(9))], [CAPTION], settings, masks)


def test_crops_come_after_the_whole_frames_which_stay_as_they_are(base):
    plain, cropped = encoded(base, SETTINGS), encoded(base, CROPPED)
    assert len(cropped.frames) == 3 * len(plain.frames)
    assert torch.equal(cropped.frames.latents[: len(plain.frames)], plain.frames.latents)
    assert not any(
        torch.equal(one, other) for one in cropped.frames.latents[len(plain.frames) :] for other in plain.frames.latents
    )
    assert cropped.frames.prompt.tolist() == [0] * 12
    for name in ("held_out_frames", "windows"):
        assert torch.equal(getattr(cropped, name).latents, getattr(plain, name).latents)


def test_a_crop_without_the_subject_is_not_used(base):
    corner = np.zeros((9, 32, 32), np.float32)
    corner[:, :3, :3] = 1
    settings = dataclasses.replace(SETTINGS, crops=CropSettings(each=8, zoom=3.0))
    found = encoded(base, settings, [MaskTrack(corner)]).frames
    assert len(found) < 4 * 9
    assert found.mask is not None
    assert len(found.mask) == len(found) > 4
    assert bool((found.mask.flatten(1).sum(1) > 0).all())


def test_the_key_of_encoded_data_tells_crops_only_where_there_are_any():
    assert "crops" not in SETTINGS.facts()
    assert SETTINGS.facts() == {name: value for name, value in dataclasses.asdict(SETTINGS).items() if name != "crops"}
    assert CROPPED.facts()["crops"] == {"each": 2, "zoom": 1.5}


def test_the_method_asks_for_the_crops_of_its_settings(base):
    method = SetAndSequence()
    for given_crops in (0, 3):
        settings = settings_from(method, "portable", {"crops": given_crops, "crop_zoom": 1.4})
        asked = method.encoding(settings, base, "dog").crops
        assert asked == CropSettings(each=given_crops, zoom=1.4)
