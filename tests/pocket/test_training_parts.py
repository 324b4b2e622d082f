"""Parts of the recipes: padding, batches, checkpoints, one real training step."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.pocket import base, clip_cache, latents_cache
from pipeline_lib.pocket.base_data import LatentSource
from pipeline_lib.pocket.base_models import MAX_TEXT_TOKENS, TEXT_WIDTH, build_scheduler, build_transformer
from pipeline_lib.pocket.base_network import TextToVideo
from pipeline_lib.pocket.framewise import build_autoencoder
from pipeline_lib.pocket.latents_cache import LatentShard, autoencoder_digest, encode_shard
from pipeline_lib.pocket.orthogonal import Orthogonal, orthogonalise
from pipeline_lib.pocket.pictures import natural_picture
from pipeline_lib.pocket.pieces import Average, Piece, learning_rate_factor
from pipeline_lib.pocket.ranks import Ranks
from pipeline_lib.pocket.tokenizer import build_tokenizer
from pipeline_lib.pocket.world_settings import FLOW_SHIFT, TRAINING_SEED
from pipeline_lib.world.sampling import SceneMix, sample_scene, scene_generator


@torch.no_grad()
def test_training_sees_what_a_stock_call_sees() -> None:
    torch.manual_seed(0)
    model = TextToVideo(300).eval()
    tokens = torch.randint(2, 300, (2, 9))
    mask = torch.tensor([[1] * 9, [1] * 4 + [0] * 5])
    noisy, sigma = torch.randn(6, 16, 2, 8, 8), torch.linspace(0.1, 0.9, 6)
    embeddings = model.embed(tokens, mask)
    padded = torch.zeros(2, MAX_TEXT_TOKENS, TEXT_WIDTH)
    padded[:, :9] = embeddings
    stock = build_transformer().eval()
    stock.load_state_dict(model.transformer.state_dict())
    three_frames_a_clip = padded.repeat_interleave(3, dim=0)
    expected = stock(noisy, sigma * 1000.0, three_frames_a_clip, return_dict=False)[0]
    assert (model(noisy, sigma, embeddings, mask) - expected).abs().max() < 1e-4
    with torch.autocast("cpu", torch.bfloat16):
        rounded = (
            model(noisy, sigma, embeddings, mask)
            - stock(noisy, sigma * 1000.0, three_frames_a_clip, return_dict=False)[0]
        )
    assert rounded.abs().max() < 0.03 * expected.abs().max()


@pytest.fixture(scope="module")
def source() -> LatentSource:
    made = LatentSource(Path("nowhere"), build_tokenizer(captions=300), "")
    draw = torch.Generator().manual_seed(0)
    made.shards[0] = LatentShard(
        latents=torch.randn(6, 13, 16, 8, 8, generator=draw).half(),
        occupancy=torch.rand(6, 13, 8, 8, generator=draw).half(),
        scenes=tuple(sample_scene(5, index) for index in range(6)),
    )
    return made


def test_batches_are_a_function_of_the_step(source: LatentSource) -> None:
    first, again, other = source.batch(3, 4), source.batch(3, 4), source.batch(4, 4)
    assert first.latents.shape == (4, 16, 13, 8, 8) and first.occupancy.shape == (4, 1, 13, 8, 8)
    assert torch.equal(first.latents, again.latents) and torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.latents, other.latents)
    frames = source.batch(3, 4, frames=3)
    assert frames.latents.shape == (12, 16, 1, 8, 8) and frames.occupancy.shape == (12, 1, 1, 8, 8)
    assert frames.tokens.shape[0] == 4
    assert first.poses.shape == (4, 13, 2, 6) and frames.poses.shape == (12, 1, 2, 6)
    shard = source.shards[0]
    for latents, poses in zip(frames.latents, frames.poses, strict=True):
        found = (shard.latents.float() == latents[:, 0]).all(dim=(-3, -2, -1)).nonzero()
        assert len(found) == 1
        assert torch.equal(shard.poses[tuple(found[0])].nan_to_num(), poses[0].nan_to_num())


def test_latents_of_another_mix_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = partial(clip_cache.render_shard, count=2)
    monkeypatch.setattr(latents_cache.clip_cache, "render_shard", drawn)
    vae, tokenizer = build_autoencoder().eval(), build_tokenizer(captions=300)
    latents_cache.write_latents(vae, tmp_path, [3])
    there = LatentSource(tmp_path, tokenizer, autoencoder_digest(vae))
    assert there.refresh() == 1
    expected = tuple(sample_scene(TRAINING_SEED, 3 * 2 + index, latents_cache.BASE_MIX) for index in range(2))
    assert there.shards[3].scenes == expected
    with pytest.raises(InputError, match="another mix"):
        LatentSource(tmp_path, tokenizer, autoencoder_digest(vae), mix=SceneMix(look="outline")).refresh()


@torch.no_grad()
def test_latents_of_another_autoencoder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents_cache.clip_cache, "render_shard", partial(clip_cache.render_shard, count=1))
    vae = build_autoencoder().eval()
    latents_cache.write_latents(vae, tmp_path, [0])

    def read() -> LatentShard:
        return latents_cache.read_latents(tmp_path, 0, autoencoder_digest(vae))

    vae.decoder.conv_in.weight.mul_(2.0)  # the recipe's `decoder`: latents stay what they are
    there = read()
    for change in (
        lambda: vae.register_to_config(latents_std=[2.0] * 16),
        lambda: vae.encoder.conv_in.weight.mul_(1.01),
    ):
        change()
        with pytest.raises(InputError, match=r"another autoencoder.*latents_00000\.npz.*delete"):
            read()
    path = tmp_path / "latents_00000.npz"
    with np.load(path) as record:
        silent = {name: value for name, value in record.items() if name != "autoencoder"}
    np.savez(path, **silent)
    assert torch.equal(read().latents, there.latents)


def test_a_checkpoint_of_another_recipe_is_told(source: LatentSource, tiny: base.BaseSettings, tmp_path: Path) -> None:
    Piece(tmp_path, "base", 1.0).save({"model": {}, "optimizers": [], "average": {}, "step": 3})
    with pytest.raises(InputError, match="another recipe"):
        base.BaseTrainer(Piece(tmp_path, "base", 1.0), source, tiny)


def test_a_tenth_of_the_captions_is_empty(source: LatentSource) -> None:
    lengths = torch.cat([source.batch(step, 64, 1).mask.sum(dim=1) for step in range(8)])
    assert 0.05 < (lengths == 1).float().mean() < 0.17


@pytest.fixture
def tiny() -> base.BaseSettings:
    return base.BaseSettings(steps=4, image_steps=1, image_clips=2, clip_batch=2, padding_steps=2)


def test_interrupted_training_goes_on_as_if_it_had_not_been(
    source: LatentSource, tiny: base.BaseSettings, tmp_path: Path
) -> None:
    whole = base.BaseTrainer(Piece(tmp_path / "whole", "base", 1.0), source, tiny)
    losses = [whole.advance() for _ in range(3)]
    half = base.BaseTrainer(Piece(tmp_path / "half", "base", 1.0), source, tiny)
    half.advance()
    half.checkpoint()
    rest = base.BaseTrainer(Piece(tmp_path / "half", "base", 1.0), source, tiny)
    assert rest.step == 1
    assert [rest.advance() for _ in range(2)] == losses[1:]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, rest.model.state_dict()[name]), name


def test_piece_ends_and_keeps_its_log(tmp_path: Path) -> None:
    piece = Piece(tmp_path, "part", minutes=0.0)
    assert piece.over and piece.load() == {}
    piece.save({"step": 3})
    piece.log({"step": 3})
    assert piece.load() == {"step": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.jsonl", "part.pt"]


def test_learning_rate_rises_stays_and_falls() -> None:
    factors = [learning_rate_factor(step, 1000) for step in range(1000)]
    assert factors[0] < 0.02 and factors[100:690] == [1.0] * 590
    assert all(a >= b for a, b in pairwise(factors[700:]))
    assert factors[-1] == pytest.approx(0.02)


def test_average_follows_a_constant() -> None:
    module = torch.nn.Linear(2, 1)
    average = Average(module, 0.9)
    with torch.no_grad():
        module.weight.fill_(3.0)
    for _ in range(200):
        average.update(module)
    assert torch.allclose(average.values["weight"], torch.full((1, 2), 3.0), atol=1e-4)


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 16)])
def test_orthogonalised_matrix_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    values = torch.linalg.svdvals(orthogonalise(matrix).float())
    assert values.min() > 0.4 and values.max() < 1.4


def test_orthogonal_step_leaves_past_taps_at_zero() -> None:
    kernel = torch.nn.Parameter(torch.zeros(4, 3, 3, 3, 3))
    kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(3))
    Orthogonal([kernel], lr=0.1).step()
    assert kernel[:, :, :-1].abs().max() == 0.0 < kernel[:, :, -1].abs().mean()


def test_shards_survive_the_disk(tmp_path: Path) -> None:
    shard = clip_cache.render_shard(0, count=2)
    assert shard.frames.shape == (2, 13, 64, 64, 3) and shard.masks.any()
    encoded = encode_shard(build_autoencoder().eval(), shard)
    assert encoded.latents.shape == (2, 13, 16, 8, 8)
    assert float(encoded.occupancy.mean()) == pytest.approx(float(shard.masks.mean()), abs=1e-3)


def test_natural_pictures_are_full_frames_of_many_kinds() -> None:
    pictures = [natural_picture(scene_generator(1, index)) for index in range(24)]
    assert all(picture.shape == (64, 64, 3) and picture.dtype == np.uint8 for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 24
    assert np.mean([picture.std() for picture in pictures]) > 15


def test_scheduler_is_wans_with_the_pocket_shift() -> None:
    scheduler = build_scheduler()
    assert scheduler.config.prediction_type == "flow_prediction"
    assert scheduler.config.flow_shift == FLOW_SHIFT


def test_a_process_alone_keeps_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    value = torch.nn.Parameter(torch.ones(2))
    value.grad = torch.tensor([1.0, 2.0])
    ranks = Ranks()
    assert ranks.first and not ranks.average_gradients([value], stop=False)
    assert value.grad.tolist() == [1.0, 2.0]


_RANK_PROGRAM = """
import torch
from pipeline_lib.pocket.ranks import Ranks

ranks = Ranks()
value = torch.nn.Parameter(torch.zeros(2))
value.grad = torch.tensor([1.0, 2.0]) * (1 + 2 * ranks.rank)
stop = ranks.average_gradients([value], stop=ranks.rank == 1)
assert value.grad.tolist() == [2.0, 4.0] and stop
for count in (1, 2, 5):
    rows = torch.arange(2.0 * count).view(count, 2)
    seen = []
    done = ranks.split_work(lambda part: seen.append(len(part)) or part.square().bfloat16(), rows)
    assert torch.equal(done, rows.square().bfloat16().float()) and sum(seen) in (count // 2, count - count // 2)
"""


def test_two_processes_average_gradients_agree_on_stopping_and_share_work() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = [
        subprocess.Popen([sys.executable, "-c", _RANK_PROGRAM], env={**common, "RANK": str(rank)}) for rank in range(2)
    ]
    assert [child.wait(timeout=60) for child in children] == [0, 0]
