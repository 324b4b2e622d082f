"""Prior: the base's own clips of a class, shared by all concepts of that class on that base."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline_lib.generation.sample import SamplingSettings
from pipeline_lib.records import ArtifactRef
from pipeline_lib.seeding import derived_seed
from pipeline_lib.steps.caption import load_captions
from pipeline_lib.steps.sampling import Order, sample_all
from pipeline_lib.steps.step import Recipe, StepContext, StepResult, find_or_build
from pipeline_lib.training.prior import encode_prior, prior_prompts

STAGE_VERSION = 1
KIND = "prior"


def prior(context: StepContext, captions: ArtifactRef) -> StepResult:
    """Samples and encodes the prior set that the method asks for.

    Only the class noun of the captions counts, so the set is found again by every concept of the class.
    """
    request = context.method.method.prior(context.method.settings)
    assert request is not None, "the plan says whether there is a prior step"
    noun = load_captions(context.store, captions)[0].class_noun
    sampling, seed = SamplingSettings.of(context.base.spec), context.config.seed
    recipe = Recipe(
        step="prior",
        kind=KIND,
        version=STAGE_VERSION,
        settings={"class_noun": noun, "request": request.model_dump(), "sampling": dataclasses.asdict(sampling)},
        extra=context.base_facts(),
    )

    def make(folder: Path, key: str) -> dict[str, float]:
        prompts = prior_prompts(noun, request.clips, seed)
        orders = [Order(prompt, derived_seed(seed, "prior", index)) for index, prompt in enumerate(prompts)]
        clips = sample_all(context, "prior", orders, sampling, context.store.work_folder(KIND, key))
        encode_prior(context.base, clips, prompts, request.drop, seed).save(folder)
        return {"clips": len(clips)}

    return find_or_build(context, recipe, make)
