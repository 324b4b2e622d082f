"""The identity encoder: how a subject is cut out, and what a saved network says of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.features.encoders import FrameEncoder, IdentityEncoder
from pipeline_lib.features.identity import (
    CropIdentityEncoder,
    IdentityConfig,
    IdentityNetwork,
    save_identity,
    subject_boxes,
    subject_crops,
    whole_boxes,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = IdentityConfig(crop_size=24, widths=(8, 16, 24), embedding=16, threshold=0.5)
    target = tmp_path_factory.mktemp("zoo") / "identity"
    save_identity(target, config, IdentityNetwork(config).state_dict())
    return target


@pytest.fixture(scope="module")
def encoder(folder: Path) -> CropIdentityEncoder:
    return CropIdentityEncoder(folder)


def _clip(num_frames: int = 3, height: int = 40, width: int = 56) -> tuple[np.ndarray, np.ndarray]:
    frames = np.random.default_rng(1).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)
    masks = np.zeros((num_frames, height, width), np.float32)
    for index in range(num_frames):
        masks[index, 8:22, 10 + 4 * index : 30 + 4 * index] = 1
    return frames, masks


def test_it_keeps_the_contract(encoder: CropIdentityEncoder) -> None:
    assert isinstance(encoder, IdentityEncoder)
    assert not isinstance(encoder, FrameEncoder)
    assert "24x24" in encoder.preprocessing


def test_vectors_have_length_one_and_do_not_depend_on_the_batch(folder: Path, encoder: CropIdentityEncoder) -> None:
    frames, masks = _clip(5)
    for shown in (masks, None):
        together = encoder.subjects(frames, shown)
        apart = CropIdentityEncoder(folder, batch_size=2).subjects(frames, shown)
        assert together.shape == (5, 16)
        torch.testing.assert_close(together.norm(dim=1), torch.ones(5), atol=1e-5, rtol=0)
        torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)
        assert torch.equal(together, encoder.subjects(frames, shown))


def test_what_is_outside_of_the_mask_does_not_count(encoder: CropIdentityEncoder) -> None:
    frames, masks = _clip()
    other = frames.copy()
    other[masks == 0] = 7
    torch.testing.assert_close(encoder.subjects(frames, masks), encoder.subjects(other, masks), atol=1e-6, rtol=0)
    assert (encoder.subjects(frames, None) - encoder.subjects(other, None)).abs().max() > 1e-4


def test_a_subject_elsewhere_in_the_frame_is_the_same(encoder: CropIdentityEncoder) -> None:
    frames, masks = _clip(1, 64, 64)
    moved = np.roll(frames, (9, 13), axis=(1, 2)), np.roll(masks, (9, 13), axis=(1, 2))
    torch.testing.assert_close(encoder.subjects(frames, masks), encoder.subjects(*moved), atol=1e-4, rtol=0)


def test_an_empty_mask_is_nobody_and_touches_no_other_frame(encoder: CropIdentityEncoder) -> None:
    frames, masks = _clip()
    whole = encoder.subjects(frames, masks)
    masks[1] = 0
    told = encoder.subjects(frames, masks)
    assert told[1].isnan().all()
    torch.testing.assert_close(told[[0, 2]], whole[[0, 2]], atol=1e-6, rtol=0)
    assert encoder.subjects(frames, np.zeros_like(masks)).isnan().all()


def test_boxes_are_square_and_a_little_wider_than_the_mask() -> None:
    masks = torch.zeros(2, 40, 50)
    masks[0, 10:20, 5:25] = 1
    left, top, right, bottom = subject_boxes(masks)[0].tolist()
    assert (left, right) == pytest.approx((5 - 1.6, 25 + 1.6))
    assert (top, bottom) == pytest.approx((15 - 11.6, 15 + 11.6))
    assert subject_boxes(masks)[1].isnan().all()
    assert whole_boxes(2, 40, 50).tolist() == [[0.0, -5.0, 50.0, 45.0]] * 2


def test_a_crop_of_the_whole_square_frame_is_the_frame() -> None:
    pictures = torch.rand(2, 3, 24, 24)
    crops = subject_crops(pictures, None, whole_boxes(2, 24, 24), 24)
    torch.testing.assert_close(crops, pictures - 0.5, atol=1e-6, rtol=0)


def test_equal_weights_have_an_equal_digest_and_bytes(
    folder: Path, encoder: CropIdentityEncoder, tmp_path: Path
) -> None:
    network = IdentityNetwork(encoder.config)
    network.load_state_dict(encoder._network.state_dict())
    save_identity(tmp_path / "copy", encoder.config, network.state_dict())
    assert CropIdentityEncoder(tmp_path / "copy").digest == encoder.digest
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "copy" / file).read_bytes() == (folder / file).read_bytes()


def test_a_folder_that_is_no_identity_encoder_is_a_clear_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no identity encoder in"):
        CropIdentityEncoder(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text().replace("24", "16"))
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        CropIdentityEncoder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="do not fit together"):
        CropIdentityEncoder(tmp_path)
