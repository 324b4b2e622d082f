"""The vision transformer encoder against the stock classes called directly."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model, ViTImageProcessor, ViTModel

from pipeline_lib.errors import InputError
from pipeline_lib.features.encoders import FrameEncoder, ImageTextEncoder
from pipeline_lib.features.tiny import tiny_clip, tiny_vit
from pipeline_lib.features.vit import VitEncoder
from pipeline_lib.metrics import measure_looks, score_looks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vit(tmp_path_factory.mktemp("zoo") / "tiny-vit")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> VitEncoder:
    return VitEncoder(folder)


def _frames(num_frames: int, height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def test_it_keeps_the_contract(encoder: VitEncoder) -> None:
    assert isinstance(encoder, FrameEncoder)
    assert not isinstance(encoder, ImageTextEncoder)


def test_a_frame_is_the_stock_models_class_token(folder: Path, encoder: VitEncoder) -> None:
    model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    frames = _frames(3)
    inputs = ViTImageProcessor.from_pretrained(folder)(list(frames), return_tensors="pt")
    with torch.no_grad():
        token = model(**inputs).last_hidden_state[:, 0]
    torch.testing.assert_close(encoder.frames(frames), token / token.norm(dim=1, keepdim=True), atol=1e-6, rtol=0)


def test_vectors_have_length_one_and_do_not_depend_on_the_batch(folder: Path, encoder: VitEncoder) -> None:
    frames = _frames(5)
    together, apart = encoder.frames(frames), VitEncoder(folder, batch_size=2).frames(frames)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(together, apart, atol=1e-6, rtol=0)
    assert torch.equal(together, encoder.frames(frames))


def test_a_pooling_layer_does_not_count(folder: Path, encoder: VitEncoder, tmp_path: Path) -> None:
    pooled = ViTModel.from_pretrained(folder, add_pooling_layer=True)
    pooled.save_pretrained(tmp_path / "pooled")
    ViTImageProcessor.from_pretrained(folder).save_pretrained(tmp_path / "pooled")
    assert VitEncoder(tmp_path / "pooled").digest == encoder.digest
    assert VitEncoder(tiny_vit(tmp_path / "other", seed=1)).digest != encoder.digest


def test_dinov2_goes_the_same_way(folder: Path, tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    Dinov2Model(Dinov2Config(image_size=32, patch_size=8, **shape)).save_pretrained(tmp_path / "dinov2")
    ViTImageProcessor.from_pretrained(folder).save_pretrained(tmp_path / "dinov2")
    assert VitEncoder(tmp_path / "dinov2").frames(_frames(2)).shape == (2, 32)


def test_its_preprocessing_squeezes_whole_frames(encoder: VitEncoder) -> None:
    assert encoder.preprocessing.startswith("resize 32x32 bilinear, #")


def test_what_is_no_vision_transformer_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no vision transformer in"):
        VitEncoder(tmp_path)
    with pytest.raises(InputError, match="no vision transformer with a class token"):
        VitEncoder(tiny_clip(tmp_path / "clip"))
    (tmp_path / "config.json").write_text('{"model_type": "nobody-knows"}')
    with pytest.raises(InputError, match="cannot be loaded as a vision transformer"):
        VitEncoder(tmp_path)


def test_weights_that_are_missing_are_an_error_not_random_numbers(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks weights.*layernorm"):
        VitEncoder(copy)


def test_looks_carry_the_encoders_trace_or_a_reason(encoder: VitEncoder) -> None:
    frames = _frames(3)
    scores = {score.metric: score for score in score_looks(frames, measure_looks([frames], encoder), 8.0)}
    assert (scores["dino_i"].encoder, scores["dino_i"].encoder_digest) == (encoder.name, encoder.digest)
    picture = {score.metric: score for score in score_looks(frames[:1], measure_looks([frames[:1]], encoder), 8.0)}
    assert picture["dino_i"].value == pytest.approx(1.0, abs=1e-5)
    assert picture["dino_consistency"].reason == "one frame has no neighbour"
    assert picture["subject_consistency"].reason == "one frame has no neighbour"
    assert {score.reason for score in score_looks(frames, measure_looks([frames], None), 8.0)} == {
        "no image encoder was given"
    }
