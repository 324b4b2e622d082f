"""The three ways of training that a family is measured in, built on one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from benchmarks.family_sizes import FamilySize
from benchmarks.loops import (
    WARM_UP,
    Draw,
    Step,
    add_lora,
    bare_step,
    cached,
    encoded,
    hand_optimizer,
    our_step,
    peak_bytes,
)
from benchmarks.random_base import open_base
from pipeline_lib.methods.baselines.lora import PlainLora
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.settings import settings_from
from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.economy import Economy, Storage
from pipeline_lib.training.data import LatentSet, TextBank, TrainingData, empty_set

Arm = Literal["ours", "bare", "usual"]
ARMS: tuple[Arm, ...] = ("ours", "bare", "usual")
# Longer than any family's rows of text, so that every arm sees all of them.
PROMPT = " ".join(["a red dog running in the snow on the beach"] * 70)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How families are measured.

    Attributes:
        device: where.
        steps: measured of each arm.
        rank: of the LoRA.
        arms: in the order of measuring.
        recompute: each block's activations in the backward pass.
        keep_attention: but not what attention gave, in our arm.
        compiled: each block.
        storage: of the frozen weights; None: the size's own.
        swapped_blocks: blocks that live on the host.
        dtype: of the denoiser and the text encoders.
        tiny: tiny folders in the place of real sizes.
    """

    device: torch.device
    steps: int = 10
    rank: int = 32
    arms: tuple[Arm, ...] = ARMS
    recompute: bool = True
    keep_attention: bool = False
    compiled: bool = False
    storage: Storage | None = None
    swapped_blocks: int = 0
    dtype: torch.dtype = torch.bfloat16
    tiny: bool = False


class Arms:
    """Builds the arms of one size. The bare loop and the usual way share one denoiser and one optimizer.

    Args:
        path: the folder.
        size: whose it is.
        options: how it is measured.
    """

    def __init__(self, path: Path, size: FamilySize, options: Options) -> None:
        self._path, self.options = path, options
        storage: Storage = options.storage or ("full" if options.tiny else size.storage)
        self.economy = Economy(storage=storage, swapped_blocks=options.swapped_blocks, compiled=options.compiled)
        self._bare: tuple[BaseModel, torch.optim.AdamW] | None = None
        self._before_hand: int | None = None
        rules = self._open().spec.frame_rules
        self.label = f"{rules.num_frames}×{rules.height}×{rules.width}"

    def build(self, arm: Arm) -> Step:
        """One arm's step, with all that it needs on the device."""
        if arm == "ours":
            return self._ours()
        base, optimizer = self._by_hand()
        return bare_step(base, optimizer, _cached(base) if arm == "bare" else self._encoded(base))

    def held_by_others(self, arm: Arm) -> int:
        """Bytes on the device now that an arm has no share in; asked before it is built."""
        device = self.options.device
        now = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        if arm == "ours":
            return now
        if self._before_hand is None:
            self._before_hand = now
        return self._before_hand

    def _open(self) -> BaseModel:
        return open_base(self._path, self.options.device, self.options.dtype, self.economy)

    def _ours(self) -> Step:
        base, method = self._open(), PlainLora()
        clips, text = _data(base)
        settings = settings_from(method, "paper", {"rank": self.options.rank, "batch": 1})
        none = empty_set(clips.latents)
        data = TrainingData(frames=none, held_out_frames=none, windows=clips, frame_text=text, clip_text=text)
        inputs = StageInputs(data=data, prior=None, previous=None, seed=0, micro_batch=1)
        stage = method.build(method.plan(settings, has_clips=True)[0], base, inputs)
        base.set_gradient_checkpointing(self.options.recompute, keep_attention=self.options.keep_attention)
        return our_step(stage)

    def _by_hand(self) -> tuple[BaseModel, torch.optim.AdamW]:
        if self._bare is None:
            base = self._open()
            learning = add_lora(base, self.options.rank)
            base.set_gradient_checkpointing(self.options.recompute)
            self._bare = base, hand_optimizer(learning)
        return self._bare

    def _encoded(self, base: BaseModel) -> Draw:
        rules = base.spec.frame_rules
        draw = torch.Generator().manual_seed(0)
        pixels = torch.rand(1, 3, rules.num_frames, rules.height, rules.width, generator=draw) * 2 - 1
        return encoded(base, pixels, PROMPT)


def arm_peak(arms: Arms, arm: Arm) -> tuple[Step, int]:
    """Builds an arm, warms it up, and takes its peak.

    Args:
        arms: the size's.
        arm: which; those by hand come after one another.

    Returns:
        Its step, and bytes: on a GPU all that the arm holds at once, on a CPU what a step adds.
    """
    device = arms.options.device
    others = arms.held_by_others(arm)
    step = arms.build(arm)
    for number in range(WARM_UP):
        step(number)
    if device.type != "cuda":
        return step, peak_bytes(step)
    torch.cuda.reset_peak_memory_stats(device)
    step(WARM_UP)
    torch.cuda.synchronize(device)
    return step, torch.cuda.max_memory_allocated(device) - others


def _data(base: BaseModel) -> tuple[LatentSet, TextBank]:
    """One clip's latents and its prompt, encoded; then the encoders are gone, as in a run."""
    latents = torch.randn(1, *base.spec.latent_shape(), generator=torch.Generator().manual_seed(0))
    text = base.compact(base.encode_text([PROMPT]))
    base.free_encoders()
    bank = TextBank((PROMPT,), 1, text, {}, (len(base.token_spans(PROMPT)),))
    return LatentSet(latents, torch.zeros(1, dtype=torch.long)), bank


def _cached(base: BaseModel) -> Draw:
    return cached([_data(base)], 1)
