"""FLOPs of one training step at any size, counted by torch's counter without memory; peak rates; model FLOPs used.

Model FLOPs are those of the denoiser's forward and backward pass, without recomputation (PaLM, appendix B): what a
LoRA's training needs, about twice the forward pass in the frozen linear layers and three times in attention.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.family_sizes import FamilySize
from benchmarks.loops import add_lora
from benchmarks.random_base import open_base, write_folder
from pipeline_lib.models.base import BaseModel, Conditioning
from pipeline_lib.steps.speed import peak_flops

ADAPTER_BYTES = 16  # a float32 factor, its gradient and AdamW's two moments


class StepFlops(NamedTuple):
    """FLOPs of one sample.

    Attributes:
        forward: of the forward pass, adapter included.
        step: of forward and backward pass.
        attention: that part of `step` which is attention's.
        recomputed: of a step that recomputes every block.
    """

    forward: int
    step: int
    attention: int
    recomputed: int


class SizeCounts(NamedTuple):
    """What is counted of one checkpoint at one size of video.

    Attributes:
        tokens: of the video in the denoiser.
        parameters: of one denoiser.
        weight_bytes: of all denoisers, as they are kept.
        adapter_parameters: of the LoRA on all denoisers.
        block_input_bytes: of one input for each block, which is what recomputation keeps.
        flops: of one training step of one sample.
    """

    tokens: int
    parameters: int
    weight_bytes: int
    adapter_parameters: int
    block_input_bytes: int
    flops: StepFlops

    @property
    def memory_floor(self) -> int:
        """Bytes below which no step with recomputed blocks goes: the activations of a block at work come on top."""
        return self.weight_bytes + ADAPTER_BYTES * self.adapter_parameters + self.block_input_bytes


def model_flops_used(flops: float, seconds: float, device_name: str) -> float | None:
    """The share of a device's peak that model FLOPs make up; None for an unknown device."""
    peak = peak_flops(device_name)
    return flops / seconds / peak if peak else None


def count_size(size: FamilySize, rank: int) -> SizeCounts:
    """Counts a checkpoint's step, without memory for it.

    Everything counted is linear in the number of blocks from the second one on, so networks of one and of two blocks
    tell it for any number. With two experts every sample passes one of them: the FLOPs are one expert's, the weights
    both's.

    Args:
        size: checkpoint and video.
        rank: of the LoRA.

    Returns:
        The counts.
    """
    one = _count(size, dict.fromkeys(size.depth, 1), rank)
    total = dict(one)
    block_forward = 0
    for stack, blocks in size.depth.items():
        two = _count(size, {**dict.fromkeys(size.depth, 1), stack: 2}, rank)
        block_forward += blocks * (two["forward"] - one["forward"])
        for name, first in one.items():
            total[name] += (blocks - 1) * (two[name] - first)
    experts = 2 if "transformer_2" in size.parts else 1
    return SizeCounts(
        tokens=total["tokens"],
        parameters=total["parameters"],
        weight_bytes=experts * total["weight_bytes"],
        adapter_parameters=experts * total["adapter_parameters"],
        block_input_bytes=total["block_input_bytes"],
        flops=StepFlops(total["forward"], total["step"], total["attention"], total["step"] + block_forward),
    )


def _count(size: FamilySize, depth: Mapping[str, int], rank: int) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = write_folder(size, Path(folder), experts=False, transformer=depth)
        base = open_base(path, torch.device("meta"), torch.bfloat16)
        denoiser: Any = base.experts()[0][1]
        parameters = sum(value.numel() for value in denoiser.parameters())
        weight_bytes = _kept_bytes(base, size.storage)
        learned = add_lora(base, rank)
        seen = _watch_block_inputs(base)
        forward, backward = count_step(base, size.text_rows)
    return {
        "parameters": parameters,
        "weight_bytes": weight_bytes,
        "adapter_parameters": sum(value.numel() for value in learned),
        "tokens": seen["tokens"],
        "block_input_bytes": seen["bytes"],
        "forward": forward.get_total_flops(),
        "step": forward.get_total_flops() + backward.get_total_flops(),
        "attention": _attention(forward) + _attention(backward),
    }


def count_step(base: BaseModel, text_rows: int) -> tuple[FlopCounterMode, FlopCounterMode]:
    """Counts the forward and the backward pass of one sample on a base that has an adapter.

    Args:
        base: on "meta", or where it is computed in earnest.
        text_rows: rows of text, all of them a prompt's.

    Returns:
        The counter of each pass.
    """
    clean = torch.zeros(1, *base.spec.latent_shape(), device=base.device)
    sigma = torch.full((1,), 0.5, device=base.device)
    text = _text(base, text_rows)
    with FlopCounterMode(display=False) as forward:
        velocity = base.velocity(clean, sigma, text)
    with FlopCounterMode(display=False) as backward:
        (velocity.float() - clean).square().mean().backward()
    return forward, backward


def _attention(counter: FlopCounterMode) -> int:
    """On "meta" attention is written out, in batched products, of which these models have no others."""
    counts = counter.get_flop_counts()["Global"]
    return sum(count for operation, count in counts.items() if str(operation).startswith(("aten.bmm", "aten.baddbmm")))


def _text(base: BaseModel, rows: int) -> Conditioning:
    """Conditioning of a prompt that fills all rows, of the shapes that the family's encoders give."""
    config: Any = base.experts()[0][1].config
    width = next(config[name] for name in ("text_dim", "caption_channels", "text_embed_dim") if name in config)
    text = {"text": torch.zeros(1, rows, width, device=base.device), "length": torch.tensor([rows])}
    if "pooled_projection_dim" in config:
        text["pooled"] = torch.zeros(1, config["pooled_projection_dim"], device=base.device)
        text["guidance"] = torch.ones(1)
    return Conditioning(text)


def _watch_block_inputs(base: BaseModel) -> dict[str, int]:
    """Counts the tensors that enter blocks with the video's tokens, in the first forward pass that comes."""
    seen = {"tokens": 0, "bytes": 0}
    counted: set[int] = set()

    def look(block: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        hidden = inputs[0] if inputs else named["hidden_states"]
        if id(block) not in counted:
            counted.add(id(block))
            seen["tokens"] = seen["tokens"] or hidden.shape[1]
            seen["bytes"] += hidden.numel() * hidden.element_size()

    for block in base.blocks():
        block.register_forward_pre_hook(look, with_kwargs=True)
    return seen


def _kept_bytes(base: BaseModel, storage: str) -> int:
    """Bytes of one denoiser's weights; in 8 or 4 bits only the blocks' matrices are."""
    denoiser = base.experts()[0][1]
    matrices = {id(value) for block in base.blocks() for value in block.parameters() if value.dim() == 2}
    size = {"full": 2.0, "fp8": 1.0, "nf4": 0.5 + 4 / 64}[storage]
    return sum(
        int(value.numel() * size) if id(value) in matrices else value.numel() * value.element_size()
        for value in denoiser.parameters()
    )
