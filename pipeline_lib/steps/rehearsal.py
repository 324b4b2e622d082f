"""A base's work, gone through without weights: what each piece of it takes in memory and in arithmetic.

The real networks of the folder, the real adapter and the real loss run on the meta device. Blocks of a list are alike:
of a deep model two of each list are run, then one more, whose difference is every further block's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from pipeline_lib.models.base import FamilySpec
from pipeline_lib.models.economy import Economy, Storage
from pipeline_lib.models.families import family_of
from pipeline_lib.models.nf4 import nf4_bytes
from pipeline_lib.models.wan import WanBase
from pipeline_lib.models.wan_attention import rows_needed
from pipeline_lib.records import StageSpec
from pipeline_lib.steps.weightless import Tally, WeightlessFolder, stored_bytes, without_values
from pipeline_lib.steps.weightless_stage import (
    PROMPT_TOKENS,
    TEXT_ROWS,
    resident,
    samples_of,
    text_of,
    text_rows,
    weightless_stage,
)

_Count = TypeVar("_Count")
_SHALLOW = 6  # a denoiser of at most so many blocks is run whole
PROMPTS_AT_ONCE = 16
_TEXT_TOKENS = {**TEXT_ROWS, "hunyuan": TEXT_ROWS["hunyuan"] + 95}  # that a text encoder reads; its chat template's too
_TRIMMED = ("wan", "hunyuan")  # whose encoders see no more tokens than the longest prompt has, in float32
_SECOND_ROWS = 77  # CLIP's


class Work(NamedTuple):
    """What a piece of work takes.

    Attributes:
        memory: bytes at its peak, beyond weights and adapter that are there before it.
        flops: of its matrix products, convolutions and attention.
        moved: bytes that all other work reads and writes.
    """

    memory: float = 0.0
    flops: float = 0.0
    moved: float = 0.0

    def times(self, count: float) -> Work:
        """This so many times, one after the other."""
        return Work(self.memory, self.flops * count, self.moved * count)

    def plus(self, times: float, more: Work, less: Work) -> Work:
        """This and so many times the difference of two others."""
        return Work(*(own + times * (a - b) for own, a, b in zip(self, more, less, strict=True)))


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What of a training step its memory and time depend on.

    Attributes:
        stage: as the method planned it.
        samples: in one micro-batch.
        again: whether it follows on another micro-batch, whose gradients are there.
        checkpointing: whether blocks are recomputed.
        keep_attention: all of them but their attention.
        storage: of the denoiser's weights.
    """

    stage: StageSpec
    samples: int
    again: bool = False
    checkpointing: bool = False
    keep_attention: bool = False
    storage: Storage = "full"


class Rehearsal:
    """Goes through a base's work; what was counted once is kept.

    Args:
        path: the base's folder.
        spec: of the base.
        dtype: of the denoiser and the text encoders.
        on_cpu: whether the run will be on the CPU.
    """

    def __init__(self, path: Path, spec: FamilySpec, dtype: torch.dtype, *, on_cpu: bool) -> None:
        self._path, self._spec, self._dtype, self._on_cpu = path, spec, dtype, on_cpu
        self._kept: dict[Hashable, Any] = {}
        self._autoencoder_bytes = 0

    @cached_property
    def _whole(self) -> Any:
        return self._open({}, "full")

    @cached_property
    def depth(self) -> dict[str, int]:
        """Blocks of a denoiser, by the name of their list."""
        denoiser = self._whole.experts()[0][1]
        return {name: len(list(denoiser.get_submodule(name).children())) for name in self._whole.BLOCK_LISTS}

    def denoiser_bytes(self, storage: Storage) -> tuple[int, list[int]]:
        """Bytes of one denoiser's weights, and of each block's among them, in the order of the forward pass."""
        return self._once(("bytes", storage), lambda: self._weigh(storage))

    def _weigh(self, storage: Storage) -> tuple[int, list[int]]:
        base = self._open({}, "fp8") if storage == "fp8" else self._whole
        denoiser = base.experts()[0][1]
        blocks = [block for name in base.BLOCK_LISTS for block in denoiser.get_submodule(name).children()]
        saved = [self._saved_by_four_bits(block) if storage == "nf4" else 0 for block in blocks]
        return stored_bytes(denoiser) - sum(saved), [
            stored_bytes(block) - less for block, less in zip(blocks, saved, strict=True)
        ]

    def factors(self, stage: StageSpec) -> tuple[int, int, int]:
        """Numbers in the factors that a stage's adapter has on one denoiser, in those that learn, and in its masks."""
        return self._once(("factors", stage.model_dump_json()), lambda: self._count_factors(stage))

    def _count_factors(self, stage: StageSpec) -> tuple[int, int, int]:
        base = self._open({}, "full")
        with without_values():
            live = weightless_stage(base, self._spec, stage)
        kinds = {kind: live.adapter.factors(kind) for kind in ("basis", "coefficients", "residual")}
        sizes = {kind: sum(factor.numel() for factor in factors.values()) for kind, factors in kinds.items()}
        masks = sum(sizes[kind] for kind in live.dropout.factors) if live.dropout.probability else 0
        return sum(sizes.values()), sum(factor.numel() for factor in live.trainable().values()), masks

    def training(self, lesson: Lesson) -> Work:
        """One micro-batch forward and backward; new gradients count, what the adapter holds before does not."""
        return self._extrapolated(("training", repr(lesson)), partial(self._train, lesson))

    def denoising(self, samples: int) -> Work:
        """One pass of sampling."""
        return self._extrapolated(("denoising", samples), partial(self._denoise, samples))

    def decoding(self) -> tuple[Work, int]:
        """One video out of its latents; and the bytes of the autoencoder's weights."""
        return self._once("decoding", lambda: self._autoencode(None)), self._autoencoder_bytes

    def encoding(self, frames: int) -> Work:
        """Latents out of one clip of so many frames."""
        return self._once(("encoding", frames), lambda: self._autoencode(frames))

    def reading(self, part: str) -> tuple[Work, int]:
        """Prompts through one text encoder, a batch of them; and the bytes of its weights."""
        return self._once(("reading", part), lambda: self._read(part))

    def _read(self, part: str) -> tuple[Work, int]:
        network = WeightlessFolder(self._path).load(part, dtype=self._dtype)
        rows = _SECOND_ROWS if part == "text_encoder_2" else _TEXT_TOKENS[self._spec.name]
        if self._dtype == torch.float32 and self._spec.name in _TRIMMED and rows != _SECOND_ROWS:
            rows += PROMPT_TOKENS - TEXT_ROWS[self._spec.name]
        with without_values(), torch.no_grad(), Tally(network.parameters()) as tally:
            network(torch.zeros(PROMPTS_AT_ONCE, rows, dtype=torch.long))
        return Work(tally.peak, tally.flops, tally.moved), stored_bytes(network)

    def _train(self, lesson: Lesson, depth: Mapping[str, int]) -> Work:
        base = self._open(depth, lesson.storage)
        base.set_gradient_checkpointing(lesson.checkpointing, keep_attention=lesson.keep_attention)
        with without_values():
            stage = weightless_stage(base, self._spec, lesson.stage)
            batch = samples_of(stage, lesson.samples)
            if lesson.again:
                for factor in stage.trainable().values():
                    factor.grad = torch.zeros_like(factor)
            with Tally(resident(stage)) as tally:
                loss, _ = stage.loss(batch)
                torch.autograd.backward(loss)  # the method of a tensor would leave these modes until it returns
            there = sum(factor.nbytes for factor in stage.trainable().values()) if lesson.again else 0
        return Work(tally.peak + there, tally.flops, tally.moved)

    def _denoise(self, samples: int, depth: Mapping[str, int]) -> Work:
        base = self._open(depth, "full")
        denoiser = base.experts()[0][1]
        rows = text_rows(self._spec.name, padded=True)
        with without_values(), torch.no_grad():
            noisy, sigma = torch.zeros(samples, *self._spec.latent_shape()), torch.zeros(samples)
            text = text_of(self._spec.name, denoiser, rows).take([0] * samples)
            with Tally(denoiser.parameters()) as tally:
                base.velocity(noisy, sigma, text)
        return Work(tally.peak, tally.flops, tally.moved)

    def _autoencode(self, frames: int | None) -> Work:
        base, rules = self._open({}, "full"), self._spec.frame_rules
        with without_values(), torch.no_grad():
            base.encode_video(torch.zeros(1, 3, 1, rules.height, rules.width))  # loads the autoencoder
            network = base.folder.networks["vae"]
            with Tally([*network.parameters(), *network.buffers()]) as tally:
                if frames is None:
                    base.decode_video(torch.zeros(1, *self._spec.latent_shape()))
                else:
                    base.encode_video(torch.zeros(1, 3, frames, rules.height, rules.width))
        self._autoencoder_bytes = stored_bytes(network)
        return Work(tally.peak, tally.flops, tally.moved)

    def _once(self, key: Hashable, count: Callable[[], _Count]) -> _Count:
        if key not in self._kept:
            self._kept[key] = count()
        counted: _Count = self._kept[key]
        return counted

    def _extrapolated(self, key: Hashable, count: Callable[[Mapping[str, int]], Work]) -> Work:
        return self._once(key, lambda: self._by_blocks(count))

    def _by_blocks(self, count: Callable[[Mapping[str, int]], Work]) -> Work:
        if sum(self.depth.values()) <= _SHALLOW:
            return count({})
        few = {name: min(2, blocks) for name, blocks in self.depth.items()}
        total = start = count(few)
        for name, blocks in self.depth.items():
            if blocks > few[name]:
                total = total.plus(blocks - few[name], count({**few, name: few[name] + 1}), start)
        return total

    def _open(self, depth: Mapping[str, int], storage: Storage) -> Any:
        """The base of a family, a child of :class:`pipeline_lib.models.diffusers_base.DiffusersBase`."""
        folder = WeightlessFolder(self._path, depth)
        base: Any = family_of(folder).open(folder, str(self._path), torch.device("meta"), self._dtype)
        base.economy = Economy(storage="fp8" if storage == "fp8" else "full")
        if isinstance(base, WanBase) and self._on_cpu:  # there padding is collapsed, elsewhere it is not
            base.padding.total = rows_needed(PROMPT_TOKENS, TEXT_ROWS["wan"])
        return base

    def _saved_by_four_bits(self, block: torch.nn.Module) -> int:
        """What 4-bit storage leaves out of a block."""
        layers = [layer for layer in block.modules() if type(layer) is torch.nn.Linear]
        weights = [layer.weight for layer in layers if layer.weight.dtype == self._dtype]
        return sum(weight.nbytes - nf4_bytes(weight.numel()) for weight in weights)
