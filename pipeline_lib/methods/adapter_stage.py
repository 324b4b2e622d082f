"""Stages that train a LoRA: what their specs hold, and how one becomes a live stage.

Shared by all methods whose result is a LoRA; what differs between them is data in the spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.settings import OptimizerValues
from pipeline_lib.models.adapter import Adapter, AdapterSettings
from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.concept import TOKENS_FILE, TRIPLE_FILE
from pipeline_lib.models.learned_tokens import LearnedTokens
from pipeline_lib.models.triple import LoraTriple
from pipeline_lib.records import Record, StageSpec
from pipeline_lib.training.batch import SourceDraw
from pipeline_lib.training.data import LatentSet, TextBank, sentinels
from pipeline_lib.training.stage import DropoutSettings, OptimizerSettings, Stage, learned_vectors


class AdapterStagePlan(Record):
    """All that a LoRA stage's spec holds, and so all that its key depends on."""

    rank: int
    basis: Literal["output", "input"] = "output"
    zero_factor: Literal["basis", "coefficients"] = "basis"
    learn_residual: bool = False
    batch: int
    optimizer: OptimizerValues
    dropout: float = 0.0
    dropout_rescale: bool = True
    dropout_on: tuple[Literal["coefficients", "residual"], ...] = ("coefficients",)
    prior_weight: float = 0.0
    pad_probability: float = 0.0
    words: tuple[str, ...] = ()
    learning_words: tuple[str, ...] = ()


def build_adapter_stage(spec: StageSpec, base: BaseModel, inputs: StageInputs) -> Stage:
    """Attaches the adapter that a spec asks for and assembles the live stage.

    Args:
        spec: `settings` is an :class:`AdapterStagePlan`.
        base: gets the adapter on its only denoiser.
        inputs: data, prior set, earlier stage.

    Returns:
        The stage, at its start: the base bit for bit, or the earlier stage's model bit for bit.

    Raises:
        InputError: the spec wants clips and there are none, or a prior set that was not given.
    """
    plan = AdapterStagePlan.model_validate(spec.settings)
    concept, text = _concept(spec, inputs)
    adapter, start = _adapter(plan, base, inputs)
    vectors = learned_vectors(plan.words, text.conditioning.width, start)
    for vector in vectors.values():
        vector.data = vector.data.to(base.device)
    held_out = spec.data == "frames" and len(inputs.data.held_out_frames) > 0
    validation = inputs.data.held_out_frames if held_out else _first(concept, 4)
    return Stage(
        spec=spec,
        base=base,
        adapter=adapter,
        learning=("residual",) if plan.learn_residual else ("basis", "coefficients"),
        sources=_sources(plan, spec, base, inputs, (concept, text)),
        validation=(validation, text),
        validation_held_out=held_out,
        optimizer=OptimizerSettings(**plan.optimizer.model_dump()),
        dropout=DropoutSettings(probability=plan.dropout, rescale=plan.dropout_rescale, factors=plan.dropout_on),
        micro_batch=inputs.micro_batch,
        seed=inputs.seed,
        vectors=vectors,
        learning_words=plan.learning_words,
    )


def finish_adapter_stage(stage: Stage, folder: Path) -> dict[str, float]:
    """Writes the factors and the learned words, and measures them.

    Args:
        stage: that was trained.
        folder: gets `triple.safetensors`, and `tokens.safetensors` where words were learned.

    Returns:
        Means over layers of `basis_norm`, `basis_change` (how far the basis moved in this stage, over its
        norm) and `effective_rank` (exponential entropy of the update's singular values); per learned word its
        norm relative to an ordinary token's; and whether the validation loss was on held-out data.
    """
    triple = stage.adapter.triple()
    triple.save(folder / TRIPLE_FILE)
    figures = {
        "basis_norm": _mean([factors.basis.norm() for factors in triple.layers.values()]),
        "basis_change": stage.adapter.basis_change(),
        "effective_rank": _mean([effective_rank(down, up) for down, up in triple.merged().values()]),
    }
    if stage.vectors:
        LearnedTokens(stage.vectors, sentinels(stage.base, stage.vectors)).save(folder / TOKENS_FILE)
        ordinary = stage.sources[0].text.row_rms
        for word, vector in stage.vectors.items():
            figures[f"{word}_relative_norm"] = float(vector.detach().float().square().mean().sqrt()) / ordinary
    return {**figures, "validation_held_out": float(stage.validation_held_out)}


class AdapterMethod:
    """The half of :class:`pipeline_lib.methods.method.Method` that deals with live stages, for LoRA stages."""

    def build(self, spec: StageSpec, base: BaseModel, inputs: StageInputs) -> Stage:
        """See :func:`build_adapter_stage`."""
        return build_adapter_stage(spec, base, inputs)

    def finish(self, stage: Stage, folder: Path) -> dict[str, float]:
        """See :func:`finish_adapter_stage`."""
        return finish_adapter_stage(stage, folder)

    def release(self, stage: Stage) -> None:
        """Takes the adapter off the base again."""
        stage.adapter.detach()


def effective_rank(down: Tensor, up: Tensor) -> Tensor:
    """Exponential of the entropy of the normalised singular values of `up @ down` (Roy, Vetterli 2007)."""
    singular = torch.linalg.svdvals(torch.linalg.qr(up).R @ torch.linalg.qr(down.T).R.T)
    share = singular / singular.sum().clamp_min(1e-30)
    return torch.exp(-(share * share.clamp_min(1e-30).log()).sum())


def _concept(spec: StageSpec, inputs: StageInputs) -> tuple[LatentSet, TextBank]:
    if spec.data == "frames":
        return inputs.data.frames, inputs.data.frame_text
    if not len(inputs.data.windows):
        raise InputError(f"stage {spec.name} learns motion and needs a clip", got="images only", fix="add a video")
    return inputs.data.windows, inputs.data.clip_text


def _adapter(plan: AdapterStagePlan, base: BaseModel, inputs: StageInputs) -> tuple[Adapter, Mapping[str, Tensor]]:
    (_, denoiser), *more = base.experts()
    if more:
        raise InputError(f"base {base.source} has {len(more) + 1} experts; only bases with one can be trained yet")
    if inputs.previous is None:
        settings = AdapterSettings(
            rank=plan.rank, targets=base.spec.lora_targets, basis=plan.basis, zero_factor=plan.zero_factor
        )
        return Adapter.attach(denoiser, settings, inputs.seed), {}
    adapter = Adapter.from_triple(denoiser, LoraTriple.load(inputs.previous / TRIPLE_FILE))
    if plan.learn_residual:
        adapter.begin_residual()
    tokens = inputs.previous / TOKENS_FILE
    return adapter, LearnedTokens.load(tokens).vectors if tokens.is_file() else {}


def _sources(
    plan: AdapterStagePlan, spec: StageSpec, base: BaseModel, inputs: StageInputs, concept: tuple[LatentSet, TextBank]
) -> tuple[SourceDraw, ...]:
    shift = base.spec.sigma_shift
    own = SourceDraw(
        origin="concept",
        latents=concept[0],
        text=concept[1],
        count=plan.batch,
        weight=1.0,
        sigma_shift=shift,
        pad_probability=plan.pad_probability,
    )
    if plan.prior_weight == 0:
        return (own,)
    if inputs.prior is None:
        raise InputError(f"stage {spec.name} preserves the prior, but no prior set was sampled")
    prior = SourceDraw(
        origin="prior",
        latents=inputs.prior.frames if spec.data == "frames" else inputs.prior.clips,
        text=inputs.prior.text,
        count=plan.batch,
        weight=plan.prior_weight,
        sigma_shift=shift,
        pad_probability=plan.pad_probability,
    )
    return (own, prior)


def _first(latents: LatentSet, count: int) -> LatentSet:
    return LatentSet(latents.latents[:count], latents.prompt[:count])


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean())
