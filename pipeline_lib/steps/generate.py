"""Generate: the same prompts and seeds on the base and on the personalised model.

The base's samples are an artifact of their own, keyed without the adapter, so runs share them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.generation.prompts import check_prompts, default_prompts
from pipeline_lib.media.write import write_video
from pipeline_lib.models.adapter import Adapter
from pipeline_lib.models.concept import TRIPLE_FILE, Companions, idle_strengths
from pipeline_lib.models.triple import LoraTriple
from pipeline_lib.records import ArtifactRef, Caption, Prompt, SampleRecord, Wording
from pipeline_lib.run_config import RunConfig
from pipeline_lib.sections import SamplesSection
from pipeline_lib.steps.caption import load_captions
from pipeline_lib.steps.check import asked_prompts
from pipeline_lib.steps.encode import encoding_settings
from pipeline_lib.steps.layout import SAMPLES_FILE
from pipeline_lib.steps.sampling import Order, sample_all, unseeded_facts, user_sampling
from pipeline_lib.steps.step import Recipe, StepContext, StepResult, find_or_build
from pipeline_lib.storage import ArtifactStore, write_atomic
from pipeline_lib.training.data import MOTION_TOKEN

STAGE_VERSION = 1
KIND = "samples"
Which = Literal["base", "personalised"]


def generate_base(context: StepContext, captions: ArtifactRef) -> StepResult:
    """Samples of the base, with the bare class noun as the subject."""
    spoken = load_captions(context.store, captions)[0]
    prompts, _ = planned_prompts(context.config, spoken)
    return _generate(context, [(prompt, prompt.filled(spoken.class_noun)) for prompt in prompts], None)


def generate_personalised(context: StepContext, captions: ArtifactRef, stage: ArtifactRef) -> StepResult:
    """Samples of the personalised model, with the method's words for the subject and for the motion."""
    spoken = load_captions(context.store, captions)
    prompts, notes = planned_prompts(context.config, spoken[0])
    folder = context.store.folder(stage)
    words = wording(context, spoken, learned_names(folder))
    asked = context.config.samples
    idle = idle_strengths(
        context.method.method.name,
        LoraTriple.load(folder / TRIPLE_FILE),
        Companions.load(folder),
        (asked.identity_strength, asked.motion_strength),
        ("samples.identity_strength", "samples.motion_strength"),
    )
    notes += [idle] if idle else []
    result = _generate(context, [(prompt, words.fill(prompt.text)) for prompt in prompts], stage)
    return result.model_copy(update={"notes": tuple(notes)})


def planned_prompts(config: RunConfig, caption: Caption) -> tuple[list[Prompt], list[str]]:
    """The prompts of a run: from its file, else its list, else made from the caption.

    The caption's own prompt goes first unless one of the person's is a reconstruction: without one there
    is nothing that the reference could be compared with pixel by pixel.

    Args:
        config: its `samples` section.
        caption: of the first clip.

    Returns:
        At least one prompt, each with `{subject}`; notes on those that were changed.

    Raises:
        InputError: the file or a prompt cannot be used; names the line, or the prompt.
    """
    prompts, notes = check_prompts(asked_prompts(config), caption.class_noun)
    made = default_prompts(caption)
    if not prompts:
        return made, notes
    return (prompts if any(prompt.kind == "reconstruction" for prompt in prompts) else [made[0], *prompts]), notes


def wording(context: StepContext, captions: Sequence[Caption], learned: Collection[str]) -> Wording:
    """How a run's concept is spoken of: in its samples, its previews and its exported folder.

    Args:
        context: the method's words.
        captions: of all clips.
        learned: names of the words whose vectors the stage in question has learned.

    Returns:
        The words; none for the motion where its vector was not learned (yet).
    """
    wanted = encoding_settings(context, captions[0].class_noun)
    spoken = MOTION_TOKEN not in wanted.learned or MOTION_TOKEN in learned
    phrases = tuple(caption.motion for caption in captions)
    return Wording(subject=wanted.subject, motion=wanted.motion if spoken else "", phrases=phrases)


def learned_names(folder: Path) -> tuple[str, ...]:
    """Names of the learned words in a stage's folder."""
    tokens = Companions.load(folder).tokens
    return () if tokens is None else tuple(tokens.vectors)


def load_samples(store: ArtifactStore, ref: ArtifactRef) -> list[tuple[SampleRecord, NDArray[np.uint8]]]:
    """Records and frames (t, h, w, 3) of a finished artifact."""
    folder, records = store.folder(ref), sample_records(store, ref)
    return [(record, np.load((folder / record.file).with_suffix(".npy"), allow_pickle=False)) for record in records]


def sample_records(store: ArtifactStore, ref: ArtifactRef) -> list[SampleRecord]:
    """Records of a finished artifact, without its frames."""
    listed = json.loads((store.folder(ref) / SAMPLES_FILE).read_text(encoding="utf-8"))
    return [SampleRecord.model_validate(item) for item in listed]


def _generate(context: StepContext, prompts: list[tuple[Prompt, str]], stage: ArtifactRef | None) -> StepResult:
    asked, sampling = context.config.samples, user_sampling(context)
    which: Which = "personalised" if stage else "base"
    strengths = (asked.identity_strength, asked.motion_strength) if stage else (0.0, 0.0)
    recipe = Recipe(
        step=f"generate-{which}",
        kind=KIND,
        version=STAGE_VERSION,
        inputs=[stage] if stage else [],
        settings={
            "prompts": [[prompt.model_dump(), text] for prompt, text in prompts],
            "seeds": asked.seeds,
            "sampling": dataclasses.asdict(sampling),
            "strengths": strengths,
        },
        extra=unseeded_facts(context),
    )
    todo = [(prompt, text, seed) for prompt, text in prompts for seed in asked.seeds]

    def make(folder: Path, key: str) -> dict[str, float]:
        orders = [Order(text, seed, prompt.negative) for prompt, text, seed in todo]
        with personalised(context, stage, asked):
            videos = sample_all(context, recipe.step, orders, sampling, context.store.work_folder(KIND, key))
        records = [
            SampleRecord(
                file=f"{index:04d}.mp4",
                prompt=prompt,
                filled_prompt=text,
                seed=seed,
                model=which,
                identity_strength=strengths[0],
                motion_strength=strengths[1],
                num_frames=sampling.num_frames,
                frames_per_second=sampling.frames_per_second,
            )
            for index, (prompt, text, seed) in enumerate(todo)
        ]
        for record, frames in zip(records, videos, strict=True):
            write_video(frames, folder / record.file, sampling.frames_per_second)
            np.save((folder / record.file).with_suffix(".npy"), frames, allow_pickle=False)
        text = json.dumps([record.model_dump() for record in records], indent=1, sort_keys=True)
        write_atomic(folder / SAMPLES_FILE, text)
        return {"videos": len(records)}

    return find_or_build(context, recipe, make)


@contextmanager
def personalised(context: StepContext, stage: ArtifactRef | None, strengths: SamplesSection) -> Iterator[None]:
    """The base with all that a stage trained inside the block; bare where there is no stage."""
    if stage is None:
        yield
        return
    folder = context.store.folder(stage)
    denoisers = [denoiser for _, denoiser in context.base.experts()]
    adapter = Adapter.from_triple(denoisers, LoraTriple.load(folder / TRIPLE_FILE))
    try:
        adapter.set_strengths(strengths.identity_strength, strengths.motion_strength)
        with companions(context, folder, strengths.identity_strength):
            yield
    finally:
        adapter.detach()


@contextmanager
def companions(context: StepContext, folder: Path, identity: float = 1.0) -> Iterator[None]:
    """Learned words and self-conditioning of a stage's folder, where it has any, on the base inside the block."""
    beside = Companions.load(folder)
    attached = beside.attach(context.base.pipeline(), identity) if beside != Companions() else None
    try:
        yield
    finally:
        if attached is not None:
            attached.remove()
