"""Stages that train a LoRA: what their specs hold, and how one becomes a live stage.

Shared by all methods whose result is a LoRA; what differs between them is data in the spec.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.settings import (
    ESTIMATE_PROBABILITY,
    FULL_MASK_SHARE,
    OptimizerValues,
    SelfConditioningChoice,
)
from pipeline_lib.models.adapter import Adapter, AdapterSettings
from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.coefficients import products_dtype
from pipeline_lib.models.concept import SELF_CONDITIONING_FILE, TOKENS_FILE, TRIPLE_FILE, Companions
from pipeline_lib.models.learned_tokens import LearnedTokens, TokenMode
from pipeline_lib.models.lora_start import reduced
from pipeline_lib.models.self_conditioning import SelfConditioning
from pipeline_lib.models.triple import LoraTriple
from pipeline_lib.records import Record, StageSpec
from pipeline_lib.training.batch import SourceDraw
from pipeline_lib.training.data import LatentSet, TextBank, sentinels
from pipeline_lib.training.stage import DropoutSettings, OptimizerSettings, Stage, learned_vectors
from pipeline_lib.training.text import input_starts

Kind = Literal["frames", "clips"]


class AdapterStagePlan(Record):
    """All that a LoRA stage's spec holds, and so all that its key depends on.

    What came later is left out of the spec at its default, so that the keys of earlier runs still hold.

    Without `cross_attention` the layers that attend to the text have no adapter. Without `learn_factors` the adapter
    stays as it starts, and words alone learn. `frame_share` is the share of a clip stage's steps that see frames with
    their static prompts instead.
    """

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
    full_mask_share: float = Field(default=FULL_MASK_SHARE, exclude_if=lambda share: share == FULL_MASK_SHARE)
    words_at: TokenMode = Field(default="encoder_output", exclude_if=lambda mode: mode == "encoder_output")
    live_drop: float = Field(default=0.0, exclude_if=lambda share: share == 0.0)
    self_conditioning: SelfConditioningChoice = Field(default="auto", exclude_if=lambda choice: choice == "auto")
    estimate_probability: float = Field(default=ESTIMATE_PROBABILITY, exclude_if=lambda p: p == ESTIMATE_PROBABILITY)
    start: tuple[str, ...] = Field(default=(), exclude_if=lambda start: not start)
    learn_factors: bool = Field(default=True, exclude_if=lambda learn: learn)
    frame_share: float = Field(default=0.0, exclude_if=lambda share: share == 0.0)
    cross_attention: bool = Field(default=True, exclude_if=lambda adapted: adapted)


def build_adapter_stage(spec: StageSpec, base: BaseModel, inputs: StageInputs) -> Stage:
    """Attaches the adapter that a spec asks for and assembles the live stage.

    Args:
        spec: `settings` is an :class:`AdapterStagePlan`.
        base: gets the adapter, on both experts where it has two.
        inputs: data, prior set, earlier stage.

    Returns:
        The stage, at its start: the base bit for bit, the base with the LoRA that it starts from, or the earlier
        stage's model bit for bit.

    Raises:
        InputError: the spec wants clips and there are none, or a prior set that was not given.
    """
    plan = AdapterStagePlan.model_validate(spec.settings)
    concept, text = _concept(spec.data, spec, inputs)
    adapter = _adapter(plan, base, inputs)
    adapter.compute_in(products_dtype(base.device, base.dtype))
    before = Companions() if inputs.previous is None else Companions.load(inputs.previous)
    held_out = spec.data == "frames" and len(inputs.data.held_out_frames) > 0
    validation = inputs.data.held_out_frames if held_out else concept.first(4)
    return Stage(
        spec=spec,
        base=base,
        adapter=adapter,
        learning=_learning(plan),
        sources=_sources(plan, spec, base, inputs),
        validation=(validation, text),
        validation_held_out=held_out,
        optimizer=OptimizerSettings(**plan.optimizer.model_dump()),
        dropout=DropoutSettings(probability=plan.dropout, rescale=plan.dropout_rescale, factors=plan.dropout_on),
        micro_batch=inputs.micro_batch,
        seed=inputs.seed,
        vectors=_vectors(plan, base, text, before),
        learning_words=plan.learning_words,
        words_at=plan.words_at,
        self_conditioning=_self_conditioning(plan, base, before),
    )


def finish_adapter_stage(stage: Stage, folder: Path) -> dict[str, float]:
    """Writes the factors and the learned words, and measures them.

    Args:
        stage: that was trained.
        folder: gets `triple.safetensors`, and `tokens.safetensors` and `self_conditioning.safetensors` where these
            were trained.

    Returns:
        Where factors learned, means over layers of `basis_norm`, `basis_change` (how far the basis moved in this
        stage, over its norm) and `effective_rank` (exponential entropy of the update's singular values); per learned
        word its norm relative to an ordinary token's; the norm of the self-conditioning, where there is one; and
        whether the validation loss was on held-out data.
    """
    triple = stage.adapter.triple()
    triple.save(folder / TRIPLE_FILE)
    figures = {}
    if stage.learning:
        figures["basis_norm"] = _mean([factors.basis.norm() for factors in triple.layers.values()])
        figures["basis_change"] = stage.adapter.basis_change()
        figures["effective_rank"] = _mean([effective_rank(down, up) for down, up in triple.merged().values()])
    if stage.vectors:
        words = LearnedTokens(stage.vectors, sentinels(stage.base, stage.vectors), stage.words_at)
        words.save(folder / TOKENS_FILE)
        ordinary = _ordinary_size(stage)
        for word, vector in stage.vectors.items():
            figures[f"{word}_relative_norm"] = float(vector.detach().float().square().mean().sqrt()) / ordinary
    if stage.self_conditioning is not None:
        projection = stage.self_conditioning.projection()
        projection.save(folder / SELF_CONDITIONING_FILE)
        figures["self_conditioning_norm"] = float(projection.weight.norm())
    return {**figures, "validation_held_out": float(stage.validation_held_out)}


class AdapterMethod:
    """The half of :class:`pipeline_lib.methods.method.Method` that deals with live stages, for LoRA stages."""

    starts_from_loras: ClassVar[bool] = True

    def build(self, spec: StageSpec, base: BaseModel, inputs: StageInputs) -> Stage:
        """See :func:`build_adapter_stage`."""
        return build_adapter_stage(spec, base, inputs)

    def finish(self, stage: Stage, folder: Path) -> dict[str, float]:
        """See :func:`finish_adapter_stage`."""
        return finish_adapter_stage(stage, folder)

    def release(self, stage: Stage) -> None:
        """Takes the adapter, and the self-conditioning, off the base again."""
        if stage.self_conditioning is not None:
            stage.self_conditioning.remove()
        stage.adapter.detach()


def effective_rank(down: Tensor, up: Tensor) -> Tensor:
    """Exponential of the entropy of the normalised singular values of `up @ down` (Roy, Vetterli 2007)."""
    singular = torch.linalg.svdvals(torch.linalg.qr(up).R @ torch.linalg.qr(down.T).R.T)
    share = singular / singular.sum().clamp_min(1e-30)
    return torch.exp(-(share * share.clamp_min(1e-30).log()).sum())


def _learning(plan: AdapterStagePlan) -> tuple[Literal["basis", "coefficients", "residual"], ...]:
    if not plan.learn_factors:
        return ()
    return ("residual",) if plan.learn_residual else ("basis", "coefficients")


def _concept(kind: Kind, spec: StageSpec, inputs: StageInputs) -> tuple[LatentSet, TextBank]:
    if kind == "frames":
        return inputs.data.frames, inputs.data.frame_text
    if not len(inputs.data.windows):
        raise InputError(f"stage {spec.name} learns motion and needs a clip", got="images only", fix="add a video")
    return inputs.data.windows, inputs.data.clip_text


def _adapter(plan: AdapterStagePlan, base: BaseModel, inputs: StageInputs) -> Adapter:
    denoisers = [denoiser for _, denoiser in base.experts()]
    if inputs.previous is None:
        settings = AdapterSettings(
            rank=plan.rank,
            targets=base.spec.adapted(plan.cross_attention),
            basis=plan.basis,
            zero_factor=plan.zero_factor,
        )
        adapter = Adapter.attach(denoisers, settings, inputs.seed)
        adapter.begin_with({path: reduced(*pair, plan.rank) for path, pair in inputs.start.items()})
    else:
        adapter = Adapter.from_triple(denoisers, LoraTriple.load(inputs.previous / TRIPLE_FILE))
    if plan.learn_residual:
        adapter.begin_residual()
    elif not plan.learn_factors:
        adapter.freeze()
    return adapter


def _vectors(plan: AdapterStagePlan, base: BaseModel, text: TextBank, before: Companions) -> dict[str, nn.Parameter]:
    start = {} if before.tokens is None else dict(before.tokens.vectors)
    if plan.words_at == "encoder_input":
        start = {**input_starts(base, text.prompts, [word for word in plan.words if word not in start]), **start}
    vectors = learned_vectors(plan.words, text.conditioning.width, start)
    for vector in vectors.values():
        vector.data = vector.data.to(base.device)
    return vectors


def _sees_estimates(plan: AdapterStagePlan, base: BaseModel) -> bool:
    return base.spec.self_conditioned if plan.self_conditioning == "auto" else plan.self_conditioning == "on"


def _self_conditioning(plan: AdapterStagePlan, base: BaseModel, before: Companions) -> SelfConditioning | None:
    if not _sees_estimates(plan, base):
        return None
    (_, denoiser), *more = base.experts()
    if more:
        raise InputError(
            f"self-conditioning is trained on one denoiser, but {base.source} has {len(more) + 1} experts",
            fix="switch it off in the method's settings",
        )
    if before.self_conditioning is not None:
        return SelfConditioning(denoiser, before.self_conditioning)
    return SelfConditioning.zero(denoiser, base.spec.patch_embedding)


def _ordinary_size(stage: Stage) -> float:
    text = stage.sources[0].text
    if stage.words_at == "encoder_output":
        return text.row_rms
    return float(stage.base.token_embeddings(text.prompts[0]).square().mean().sqrt())


def _turns(plan: AdapterStagePlan, spec: StageSpec) -> list[tuple[Kind, tuple[float, float]]]:
    """Which data a step sees, and in which part of a number drawn once a step."""
    if plan.frame_share == 0:
        return [(spec.data, (0.0, 1.0))]
    return [("frames", (0.0, plan.frame_share)), ("clips", (plan.frame_share, 1.0))]


def _sources(plan: AdapterStagePlan, spec: StageSpec, base: BaseModel, inputs: StageInputs) -> tuple[SourceDraw, ...]:
    if plan.prior_weight and inputs.prior is None:
        raise InputError(f"stage {spec.name} preserves the prior, but no prior set was sampled")
    own, prior = list[SourceDraw](), list[SourceDraw]()
    for kind, turn in _turns(plan, spec):
        latents, text = _concept(kind, spec, inputs)
        concept = SourceDraw(
            origin="concept",
            latents=latents,
            text=text,
            count=plan.batch,
            weight=1.0,
            sigma_shift=base.spec.sigma_shift,
            drop_probability=plan.live_drop or plan.pad_probability,
            full_mask_share=plan.full_mask_share,
            estimate_probability=plan.estimate_probability if _sees_estimates(plan, base) else 0.0,
            turn=turn,
        )
        own.append(concept)
        if plan.prior_weight and inputs.prior is not None:
            preserved = replace(
                concept,
                origin="prior",
                latents=inputs.prior.frames if kind == "frames" else inputs.prior.clips,
                text=inputs.prior.text,
                weight=plan.prior_weight,
                drop_probability=plan.pad_probability,
            )
            prior.append(preserved)
    return (*own, *prior)


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean())
