"""Prior: the base's own clips of a class, shared by all concepts of that class on that base.

Two artifacts: the sampled clips, which cost much and depend on nothing of a run but the class noun, and
their encoding, which also depends on how a method masks prompt tokens. Both are drawn under one fixed
seed, so that runs of other seeds, concepts and methods find them.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.generation.sample import SamplingSettings
from pipeline_lib.records import ArtifactRef
from pipeline_lib.seeding import derived_seed
from pipeline_lib.steps.caption import load_captions
from pipeline_lib.steps.sampling import Order, sample_all, unseeded_facts
from pipeline_lib.steps.step import Recipe, StepContext, StepResult, find_or_build
from pipeline_lib.storage import write_atomic
from pipeline_lib.training.prior import encode_prior, prior_prompts

STAGE_VERSION = 2
KIND, CLIPS_KIND = "prior", "prior-clips"
SEED = 0
CLIPS_FILE, PROMPTS_FILE = "clips.npy", "prompts.json"


def prior(context: StepContext, captions: ArtifactRef) -> StepResult:
    """The prior set that the method asks for, encoded; its clips are sampled where no run has done so."""
    request = context.method.method.prior(context.method.settings)
    assert request is not None, "the plan says whether there is a prior step"
    noun = load_captions(context.store, captions)[0].class_noun
    asked = {
        "class_noun": noun,
        "clips": request.clips,
        "seed": SEED,
        "sampling": dataclasses.asdict(SamplingSettings.of(context.base.spec)),
    }
    recipe = Recipe(
        step="prior",
        kind=KIND,
        version=STAGE_VERSION,
        settings={"sampled": asked, "drop": dataclasses.asdict(request.drop)},
        extra=unseeded_facts(context),
    )

    def make(folder: Path, _: str) -> dict[str, float]:
        clips, prompts = _sampled(context, asked)
        encode_prior(context.base, list(clips), prompts, request.drop, SEED).save(folder)
        return {"clips": len(clips)}

    return find_or_build(context, recipe, make)


def _sampled(context: StepContext, asked: dict[str, Any]) -> tuple[NDArray[np.uint8], list[str]]:
    """Clips (n, t, h, w, 3) and their prompts, found or sampled."""
    store = context.store
    key = store.key(CLIPS_KIND, [], asked, STAGE_VERSION, unseeded_facts(context))

    def make(folder: Path) -> None:
        prompts = prior_prompts(asked["class_noun"], asked["clips"], SEED)
        orders = [Order(prompt, derived_seed(SEED, "prior", index)) for index, prompt in enumerate(prompts)]
        sampling = SamplingSettings.of(context.base.spec)
        clips = sample_all(context, "prior", orders, sampling, store.work_folder(CLIPS_KIND, key))
        np.save(folder / CLIPS_FILE, np.stack(clips), allow_pickle=False)
        write_atomic(folder / PROMPTS_FILE, json.dumps(prompts, indent=1))

    folder = (store.find(CLIPS_KIND, key) or store.build(CLIPS_KIND, key, make)).folder
    return np.load(folder / CLIPS_FILE, allow_pickle=False), json.loads((folder / PROMPTS_FILE).read_text())
