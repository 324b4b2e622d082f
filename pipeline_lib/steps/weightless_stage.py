"""A live stage on a base without weights: the real adapter, samples and loss, all of them shapes without values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline_lib.models.adapter import Adapter, AdapterSettings
from pipeline_lib.models.base import BaseModel, Conditioning, FamilySpec
from pipeline_lib.models.self_conditioning import SelfConditioning
from pipeline_lib.records import StageSpec
from pipeline_lib.training.batch import Sample, SourceDraw, coefficient_masks
from pipeline_lib.training.data import LatentSet, TextBank
from pipeline_lib.training.stage import DropoutSettings, OptimizerSettings, Stage

TEXT_ROWS = {"wan": 512, "ltx": 128, "hunyuan": 256, "cogvideox": 226}  # that stock pipelines pad a prompt to
PROMPT_TOKENS = 32  # of a caption; they matter where text is not padded
_WIDTHS = {"wan": "text_dim", "ltx": "caption_channels", "hunyuan": "text_embed_dim", "cogvideox": "text_embed_dim"}
_OPTIMIZER = OptimizerSettings(
    learning_rate=1e-4, token_learning_rate=1e-5, betas=(0.9, 0.99), weight_decay=0.0, max_gradient_norm=1.0
)


def text_rows(family: str, *, padded: bool) -> int:
    """Rows of a prompt's text: as many as the stock pipeline gives, or as few as training keeps."""
    rows = TEXT_ROWS[family]
    return rows if padded or family == "cogvideox" else min(PROMPT_TOKENS, rows)


def text_of(family: str, denoiser: Any, rows: int) -> Conditioning:
    """One prompt's text; to be made where nothing has values."""
    config = denoiser.config
    tensors = {"text": torch.zeros(1, rows, config[_WIDTHS[family]]), "length": torch.zeros(1, dtype=torch.long)}
    if family == "hunyuan":
        tensors |= {"pooled": torch.zeros(1, config["pooled_projection_dim"]), "guidance": torch.zeros(1)}
    return Conditioning(tensors)


def weightless_stage(base: BaseModel, spec: FamilySpec, planned: StageSpec) -> Stage:
    """The stage as a method would build it, with data that is nothing but its shape.

    Args:
        base: without weights; gets the adapter.
        spec: of the base that it stands for.
        planned: the stage's plan. Settings that it does not have are taken for off.

    Returns:
        The stage; to be made, and used, where nothing has values.
    """
    settings = planned.settings
    denoiser: Any = base.experts()[0][1]
    factors = AdapterSettings(
        rank=int(settings.get("rank", 8)),
        targets=base.spec.adapted(bool(settings.get("cross_attention", True))),
        basis=settings.get("basis", "output"),
    )
    adapter = Adapter.attach(denoiser, factors, 0)
    residual = bool(settings.get("learn_residual"))
    if residual:
        adapter.begin_residual()
    text = TextBank(("",), 1, text_of(spec.name, denoiser, text_rows(spec.name, padded=False)), {}, (PROMPT_TOKENS,))
    shape = spec.latent_shape(1 if planned.data == "frames" else None)
    latents = LatentSet(torch.zeros(1, *shape), torch.zeros(1, dtype=torch.long))
    return Stage(
        spec=planned,
        base=base,
        adapter=adapter,
        learning=("residual",) if residual else ("basis", "coefficients"),
        sources=_sources(planned, latents, text),
        validation=(latents, text),
        validation_held_out=False,
        optimizer=_OPTIMIZER,
        dropout=DropoutSettings(
            probability=float(settings.get("dropout", 0.0)),
            rescale=True,
            factors=tuple(settings.get("dropout_on", ("coefficients",))),
        ),
        micro_batch=1,
        seed=0,
        self_conditioning=SelfConditioning.zero(denoiser, spec.patch_embedding)
        if sees_estimates(planned, spec)
        else None,
    )


def samples_of(stage: Stage, count: int) -> list[Sample]:
    """A micro-batch, and its dropout masks put in force. Origins take turns; every estimate is seen."""
    for kind in stage.dropout.factors if stage.dropout.probability > 0 else ():
        shapes = {path: factor.shape for path, factor in stage.adapter.factors(kind).items()}
        stage.adapter.set_masks(kind, coefficient_masks(shapes, 0.5, True, torch.Generator("cpu")))
    source = stage.sources[0]
    clean = source.latents.latents[0]
    return [
        Sample(
            source=stage.sources[index % len(stage.sources)],
            clean=clean,
            noise=torch.zeros_like(clean),
            sigma=torch.zeros(()),
            row=0,
            hidden=(),
            weight=1.0,
            estimated=stage.self_conditioning is not None,
        )
        for index in range(count)
    ]


def resident(stage: Stage) -> list[Tensor]:
    """What is there before a micro-batch begins: weights, factors, and the gradients of one before it."""
    denoiser = stage.base.experts()[0][1]
    gradients = [value.grad for value in denoiser.parameters() if value.grad is not None]
    return [*denoiser.parameters(), *denoiser.buffers(), *gradients]


def step_samples(planned: StageSpec) -> int:
    """Samples of one step of a stage, those of the prior included."""
    return int(planned.settings.get("batch", 1)) * (2 if planned.settings.get("prior_weight") else 1)


def sees_estimates(planned: StageSpec, spec: FamilySpec) -> bool:
    """Whether a stage trains with self-conditioning."""
    choice = planned.settings.get("self_conditioning", "auto")
    return choice == "on" or (choice == "auto" and spec.self_conditioned)


def _sources(planned: StageSpec, latents: LatentSet, text: TextBank) -> tuple[SourceDraw, ...]:
    concept = SourceDraw(origin="concept", latents=latents, text=text, count=1, weight=1.0, sigma_shift=1.0)
    if not planned.settings.get("prior_weight"):
        return (concept,)
    return concept, SourceDraw(origin="prior", latents=latents, text=text, count=1, weight=1.0, sigma_shift=1.0)
