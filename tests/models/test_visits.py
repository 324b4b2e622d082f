"""Encoders visit the device one at a time, and a sample stays what it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline_lib.generation.sample import SamplingSettings, generate
from pipeline_lib.models.diffusers_base import DiffusersBase
from pipeline_lib.models.load import load_base
from pipeline_lib.models.tiny_cogvideox import tiny_cogvideox
from pipeline_lib.models.tiny_hunyuan import tiny_hunyuan
from pipeline_lib.models.tiny_ltx import tiny_ltx


def loaded(folder: Path) -> DiffusersBase:
    base = load_base(str(folder))
    assert isinstance(base, DiffusersBase)
    return base


@contextmanager
def journal(base: DiffusersBase) -> Iterator[list[str]]:
    """What works, in order, with the guest that is there meanwhile; repeats are told once."""
    seen: list[str] = []

    def told(name: str) -> Any:
        def hook(*_: Any) -> None:
            guest = base.visits.present
            line = name if guest is None else f"{name} beside {type(guest).__name__}"
            if seen[-1:] != [line]:
                seen.append(line)

        return hook

    denoiser: nn.Module = base.blocks()[0]
    handle = denoiser.register_forward_pre_hook(told("denoiser"))
    yield seen
    handle.remove()


def test_only_one_part_is_there_while_a_video_is_sampled(tiny_folder: Path, tmp_path: Path) -> None:
    counts = {tiny_folder: 2, tiny_ltx(tmp_path / "l"): 2, tiny_cogvideox(tmp_path / "c"): 2, tiny_hunyuan(tmp_path): 3}
    for folder, arrivals in counts.items():
        base = loaded(folder)
        settings = dataclasses.replace(SamplingSettings.of(base.spec), num_inference_steps=2)
        pipeline = base.pipeline()
        assert base.visits.arrivals == 0
        with journal(base) as seen:
            generate(base, "a dog", 0, settings, pipeline=pipeline)
        assert seen == ["denoiser"]
        # The text encoder, for both prompts; with Hunyuan the second one; the autoencoder.
        assert base.visits.arrivals == arrivals
        assert type(base.visits.present).__name__.startswith("Autoencoder")
        base.free_encoders()
        assert base.visits.present is None


def test_data_are_encoded_one_part_after_the_other(tmp_path: Path) -> None:
    base = loaded(tiny_hunyuan(tmp_path))
    rules = base.spec.frame_rules
    latents = base.encode_video(torch.zeros(2, 3, 5, rules.height, rules.width))
    assert base.visits.arrivals == 1
    base.encode_text(["a dog", "a cat"])
    assert base.visits.arrivals == 3 and type(base.visits.present).__name__.startswith("Llama")
    base.decode_video(latents)
    assert base.visits.arrivals == 4


def test_a_word_that_learns_at_the_input_keeps_its_encoder(tiny_folder: Path) -> None:
    base = loaded(tiny_folder)
    base.blocks()  # an encoder would make room for a denoiser that is loaded
    word = torch.zeros(base.token_embeddings("a dog").shape[1], requires_grad=True)
    noisy, sigma = torch.randn(1, 16, 2, 4, 4), torch.tensor([0.5])
    for _ in range(2):
        text = base.encode_text([base.sentinel(0)], words={base.sentinel(0): word})
        with torch.no_grad():  # as self-conditioning does
            base.velocity(noisy, sigma, text)
        assert type(base.visits.present).__name__.startswith("UMT5"), (
            "norms look for their weights in the backward pass"
        )
        base.velocity(noisy, sigma, text).square().sum().backward()
    assert word.grad is not None and bool(word.grad.any())
    assert base.visits.arrivals == 1
    base.encode_text(["a dog"])
    with torch.no_grad():
        base.velocity(noisy, sigma, text)
    assert base.visits.present is None


def test_the_pipeline_computes_where_its_guests_do(tiny_folder: Path) -> None:
    base = loaded(tiny_folder)
    pipeline: Any = base.pipeline()
    assert pipeline._execution_device == base.device
