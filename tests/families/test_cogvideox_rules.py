"""What a CogVideoX folder accepts, and what is refused before anything starts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.generation.sample import SamplingSettings, generate
from pipeline_lib.models.cogvideox import CogVideoXBase
from pipeline_lib.models.folder import CARD_NAME
from pipeline_lib.models.load import load_base
from pipeline_lib.models.tiny_cogvideox import tiny_cogvideox


@pytest.fixture(scope="module", params=[True, False], ids=["rotary", "sines"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cogvideox(tmp_path_factory.mktemp("cogvideox"), rotary=request.param)


@pytest.fixture(scope="module")
def base(folder: Path) -> CogVideoXBase:
    return opened(folder)


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(folder, tmp_path / "base"))


def opened(folder: Path) -> CogVideoXBase:
    base = load_base(str(folder))
    assert isinstance(base, CogVideoXBase)
    return base


@pytest.mark.parametrize(("frames", "height", "width"), [(5, 32, 32), (8, 32, 32), (13, 32, 32), (9, 40, 32)])
def test_what_the_autoencoder_would_not_give_back_is_refused(
    base: CogVideoXBase, frames: int, height: int, width: int
) -> None:
    with pytest.raises(InputError, match=r"1 \+ 8k frames, sides that are multiples of 16"):
        base.encode_video(torch.zeros(1, 3, frames, height, width))
    settings = SamplingSettings.of(base.spec)
    changed = SamplingSettings(**{**vars(settings), "num_frames": frames, "height": height, "width": width})
    with pytest.raises(InputError, match=r"the nearest: (\d+ or \d+ frames|height 32 or 48)"):
        generate(base, "a red dog", 0, changed)


@torch.no_grad()
def test_the_stock_autoencoder_makes_other_frames_of_even_latents(base: CogVideoXBase) -> None:
    """Why 1 + 8k: the stock call would make 8 frames where 5 are asked for."""
    stock = base.pipeline()
    assert stock.vae.encode(torch.zeros(1, 3, 5, 32, 32)).latent_dist.mode().shape[2] == 2
    assert stock.vae.decode(torch.zeros(1, 4, 2, 4, 4)).sample.shape[2] == 8


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_published_folder_needs_no_card(own_folder: Path) -> None:
    (own_folder / CARD_NAME).unlink()
    edit(own_folder / "transformer/config.json", sample_height=60, sample_width=90, sample_frames=49)
    base = opened(own_folder)
    rules = base.spec.frame_rules
    assert (rules.height, rules.width, rules.num_frames, rules.frames_per_second) == (480, 720, 49, 8.0)
    assert (rules.size_multiple, rules.frame_multiple) == (16, 8)
    assert (base.spec.guidance_scale, base.spec.sampling_steps, base.spec.negative_prompt) == (6.0, 50, "")
    rotary = base.transformer.config.use_rotary_positional_embeddings
    assert base.spec.licence == ("CogVideoX licence" if rotary else "Apache-2.0")
    assert base.spec.sigma_shift == pytest.approx(1.77 if rotary else 3.07, abs=0.005)


TRANSFORMER, SCHEDULER = "transformer/config.json", "scheduler/scheduler_config.json"


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (TRANSFORMER, {"patch_size_t": 2}, r"CogVideoX 1\.5.*2b"),
        (TRANSFORMER, {"in_channels": 8}, "conditioned on an image"),
        (TRANSFORMER, {"ofs_embed_dim": 512}, "conditioned on an image"),
        (TRANSFORMER, {"use_learned_positional_embeddings": True}, "conditioned on an image"),
        (TRANSFORMER, {"max_text_seq_length": 224}, "226 tokens"),
        (TRANSFORMER, {"temporal_compression_ratio": 8}, "4 frames to a latent frame"),
        (SCHEDULER, {"prediction_type": "epsilon"}, "epsilon.*v_prediction"),
        ("model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]}, "DDIMScheduler.*CogVideoXDPMScheduler"),
        ("model_index.json", {"_class_name": "CogVideoXImageToVideoPipeline"}, "no known family.*CogVideoXPipeline"),
        ("model_index.json", {"vae": [None, None]}, "no vae"),
    ],
)
def test_other_variants_are_refused(own_folder: Path, file: str, changes: dict[str, Any], message: str) -> None:
    edit(own_folder / file, **changes)
    with pytest.raises(InputError, match=f"(?s){message}"):
        load_base(str(own_folder))


def test_the_same_seed_makes_the_same_folder(tmp_path: Path) -> None:
    one, two = (opened(tiny_cogvideox(tmp_path / name)) for name in ("one", "two"))
    assert one.digest == two.digest != opened(tiny_cogvideox(tmp_path / "three", seed=1)).digest


def test_a_published_tokenizer_is_a_sentencepiece_model(own_folder: Path) -> None:
    """The hub's folders hold `spiece.model` alone, which transformers reads with the sentencepiece package."""
    proto = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    place, model = own_folder / "tokenizer", proto.ModelProto()
    pieces = json.loads((place / "tokenizer.json").read_text())["model"]["vocab"]
    kinds = {"<unk>": 2, "<pad>": 3, "</s>": 3}  # unknown and control; 6 is a byte, 1 any other
    for piece, score in pieces:
        model.pieces.add(piece=piece, score=score, type=kinds.get(piece, 6 if piece.startswith("<0x") else 1))
    model.trainer_spec.model_type, model.trainer_spec.unk_id = 1, 2
    for file in place.iterdir():
        file.unlink()
    (place / "spiece.model").write_bytes(model.SerializeToString())
    settings = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (place / "tokenizer_config.json").write_text(json.dumps({**settings, "extra_ids": 16}))
    edit(own_folder / "model_index.json", tokenizer=["transformers", "T5Tokenizer"])
    base = opened(own_folder)
    prompt = "a red  dog on the <extra_id_0> beach"
    spans = [prompt[start:stop] for start, stop in base.token_spans(prompt)]
    assert [span for span in spans if span.strip()] == prompt.split()
    assert base.sentinel(0) == "<extra_id_0>"
