"""The CLIP encoder against the stock classes called directly."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPProcessor

from pipeline_lib.errors import InputError
from pipeline_lib.features.encoders import FrameEncoder, ImageTextEncoder
from pipeline_lib.features.image_text import ClipEncoder, plain_prompt
from pipeline_lib.features.local_network import preprocessing_id, weights_digest
from pipeline_lib.features.tiny import tiny_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("zoo") / "tiny-clip")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> ClipEncoder:
    return ClipEncoder(folder)


def _frames(num_frames: int, height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def test_it_keeps_the_contract(encoder: ClipEncoder) -> None:
    assert isinstance(encoder, FrameEncoder)
    assert isinstance(encoder, ImageTextEncoder)


def test_frames_and_text_are_those_of_the_stock_model(folder: Path, encoder: ClipEncoder) -> None:
    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    frames = _frames(3)
    inputs = processor(images=list(frames), text=["a red dog"], return_tensors="pt", padding=True)
    with torch.no_grad():
        output = model(**inputs)
    torch.testing.assert_close(encoder.frames(frames), output.image_embeds, atol=1e-6, rtol=0)
    torch.testing.assert_close(encoder.text("a red dog"), output.text_embeds[0], atol=1e-6, rtol=0)


def test_vectors_have_length_one_and_do_not_depend_on_the_batch(folder: Path, encoder: ClipEncoder) -> None:
    frames = _frames(5)
    together, apart = encoder.frames(frames), ClipEncoder(folder, batch_size=2).frames(frames)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(together, apart, atol=1e-6, rtol=0)
    assert torch.equal(together, encoder.frames(frames))


def test_a_long_text_is_cut_at_the_encoders_own_limit(encoder: ClipEncoder) -> None:
    long = "d o g " * 60
    assert encoder.text_fits("a dog")
    assert not encoder.text_fits(long)
    torch.testing.assert_close(encoder.text(long), encoder.text(long + "c a t"), atol=1e-6, rtol=0)


def test_equal_weights_have_an_equal_digest(folder: Path, encoder: ClipEncoder, tmp_path: Path) -> None:
    assert ClipEncoder(folder).digest == encoder.digest
    CLIPModel.from_pretrained(folder).save_pretrained(tmp_path / "copy", max_shard_size="20KB")
    CLIPProcessor.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    assert ClipEncoder(tmp_path / "copy").digest == encoder.digest
    assert ClipEncoder(tiny_clip(tmp_path / "other", seed=1)).digest != encoder.digest


def test_the_digest_sees_every_bit_name_and_shape() -> None:
    weights = {"a": torch.zeros(2, 3), "b": torch.zeros(())}
    digests = [
        weights_digest(weights),
        weights_digest({"a": torch.zeros(3, 2), "b": torch.zeros(())}),
        weights_digest({"a": torch.zeros(2, 3), "c": torch.zeros(())}),
        weights_digest({"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.zeros(())}),
        weights_digest({"a": torch.tensor([[0, 0, 0], [0, 0, 1e-38]]), "b": torch.zeros(())}),
    ]
    assert len(set(digests)) == len(digests)
    assert weights_digest(dict(reversed(weights.items()))) == digests[0]


def test_the_preprocessing_id_tells_size_and_every_acting_setting(encoder: ClipEncoder) -> None:
    assert encoder.preprocessing.startswith("resize 32 bicubic, crop 32x32, #")
    settings = {"do_resize": True, "size": {"height": 8, "width": 9}, "resample": 2, "image_mean": [0, 0, 0]}
    assert preprocessing_id(settings).startswith("resize 8x9 bilinear, #")
    assert preprocessing_id(settings) != preprocessing_id({**settings, "image_mean": [0, 0, 0.5]})
    assert preprocessing_id(settings) == preprocessing_id({**settings, "an_unrelated_key": 3})


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("a {subject} on the beach", "a on the beach"),
        ("{subject}, at night", "at night"),
        ("a <gizmo> runs", "a runs"),
        ("a [v1] dog, [u1] jumping", "a dog, jumping"),
        ("a dog", "a dog"),
        ("  {subject} ", ""),
    ],
)
def test_placeholders_are_removed(prompt: str, plain: str) -> None:
    assert plain_prompt(prompt) == plain


def test_a_folder_that_is_no_clip_model_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no CLIP model in"):
        ClipEncoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(InputError, match="cannot be loaded as a CLIP model"):
        ClipEncoder(tmp_path)


def test_weights_that_are_missing_are_an_error_not_random_numbers(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks weights.*visual_projection"):
        ClipEncoder(copy)
