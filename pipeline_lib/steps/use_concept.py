"""Videos of a trained concept: whoever made it, its files become an artifact, and so do the videos."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from pipeline_lib.generation.sample import SamplingSettings
from pipeline_lib.media.write import write_video
from pipeline_lib.models.concept import load_concept, read_concept, unload_concept
from pipeline_lib.records import ArtifactRef, Prompt, Record
from pipeline_lib.steps.sampling import Order, sample_all, unseeded_facts
from pipeline_lib.steps.step import Recipe, StepContext, StepResult, find_or_build
from pipeline_lib.storage import ArtifactStore
from pipeline_lib.storage.files import sha256

STAGE_VERSION = 1
CONCEPT_KIND, KIND = "concept", "videos"


class SampleRequest(Record):
    """What is wanted of a concept.

    `prompts` hold `{subject}` in the subject's place. A strength of None is the recorded one; `negative` is for prompts
    without one of their own, empty: the base's; `frames`, `num_inference_steps` and `guidance_scale` 0: the base's own.
    """

    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...] = (0,)
    identity: float | None = None
    motion: float | None = None
    negative: str = ""
    frames: int = 0
    num_inference_steps: int = 0
    guidance_scale: float = 0.0


def adopted(store: ArtifactStore, folder: Path) -> ArtifactRef:
    """A concept folder as an artifact of the store, by what it holds.

    Args:
        store: that takes it.
        folder: of a concept: of a run, of a registered model, or anybody's.

    Returns:
        The artifact, found or copied.

    Raises:
        InputError: it is not a concept.
    """
    read_concept(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != "manifest.json")
    settings = {"adopted": [[path.name, sha256(path)] for path in files]}
    key = store.key(CONCEPT_KIND, [], settings, STAGE_VERSION, {})

    def copy(target: Path) -> None:
        for path in files:
            shutil.copyfile(path, target / path.name)

    return store.build(CONCEPT_KIND, key, copy).ref


def use_concept(context: StepContext, concept: ArtifactRef, request: SampleRequest) -> StepResult:
    """Samples a concept through the stock pipeline.

    Args:
        context: the base, with the LoRAs that are to be on it.
        concept: from :func:`adopted`.
        request: what is wanted.

    Returns:
        The videos, found or made: `0000.mp4` on, prompt by prompt and seed by seed.

    Raises:
        InputError: the concept is not for this base, or the base cannot make so many frames.
        StopRequested: a stop was asked for.
    """
    record = read_concept(context.store.folder(concept)).record
    strengths = {
        "identity": record.identity_strength if request.identity is None else request.identity,
        "motion": record.motion_strength if request.motion is None else request.motion,
    }
    sampling = _sampling(context, request)
    orders = [
        Order(record.wording.fill(prompt.text), seed, prompt.negative)
        for prompt in request.prompts
        for seed in request.seeds
    ]
    recipe = Recipe(
        step="generate",
        kind=KIND,
        version=STAGE_VERSION,
        inputs=[concept],
        settings={"orders": orders, "strengths": strengths, "sampling": dataclasses.asdict(sampling)},
        extra=unseeded_facts(context),
    )

    def make(folder: Path, key: str) -> dict[str, float]:
        scratch, pipeline = context.store.work_folder(KIND, key), context.base.pipeline()
        load_concept(pipeline, context.store.folder(concept), **strengths)
        try:
            made = sample_all(context, recipe.step, orders, sampling, scratch, pipeline=pipeline)
        finally:
            unload_concept(pipeline, record.name)
        for index, frames in enumerate(made):
            write_video(frames, folder / f"{index:04d}.mp4", sampling.frames_per_second)
        return {"videos": len(made)}

    return find_or_build(context, recipe, make)


def _sampling(context: StepContext, request: SampleRequest) -> SamplingSettings:
    own = SamplingSettings.of(context.base.spec)
    return dataclasses.replace(
        own,
        num_frames=request.frames or own.num_frames,
        num_inference_steps=request.num_inference_steps or own.num_inference_steps,
        guidance_scale=request.guidance_scale or own.guidance_scale,
        negative_prompt=request.negative or own.negative_prompt,
    )


def videos(store: ArtifactStore, ref: ArtifactRef) -> list[Path]:
    """The videos of a finished artifact, in order."""
    return sorted(store.folder(ref).glob("*.mp4"))
