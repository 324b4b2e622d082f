"""Caption: every clip gets a caption, from the config or from a captioner."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline_lib.errors import ConfigError
from pipeline_lib.media.clip import Clip
from pipeline_lib.records import ArtifactRef, Caption
from pipeline_lib.registry import open_captioner
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.prepare import load_clips
from pipeline_lib.steps.step import Recipe, StepContext, StepResult, find_or_build
from pipeline_lib.storage import ArtifactStore, write_atomic

STAGE_VERSION = 1
KIND = "captions"
FILE_NAME = "captions.json"


def caption(context: StepContext, clips: ArtifactRef) -> StepResult:
    """Writes `captions.json`: one caption for each clip or set of images.

    Args:
        context: the config's captions and captioner.
        clips: of the step prepare.

    Returns:
        The captions, found or made.

    Raises:
        ConfigError: the number of given captions fits neither one nor all clips.
    """
    config = context.config
    recipe = Recipe(
        step="caption",
        kind=KIND,
        version=STAGE_VERSION,
        inputs=[clips],
        settings={
            "captioner": config.concept.captioner,
            "subject": config.concept.subject,
            "class_noun": config.concept.class_noun,
            "given": [item.model_dump() for item in config.captions],
        },
    )

    def make(folder: Path, _: str) -> None:
        captions = make_captions(config, load_clips(context.store, clips))
        text = json.dumps([item.model_dump() for item in captions], indent=1, sort_keys=True)
        write_atomic(folder / FILE_NAME, text)

    return find_or_build(context, recipe, make)


def make_captions(config: RunConfig, clips: list[Clip]) -> list[Caption]:
    """One caption for each clip: given, or the captioner's; all speak of one class noun.

    Args:
        config: its `captions`, and its captioner where they are empty.
        clips: clips or sets of images.

    Returns:
        As many captions as clips.

    Raises:
        ConfigError: the number of given captions fits neither one nor all clips.
    """
    given = list(config.captions)
    if len(given) == 1:
        given *= len(clips)
    if given and len(given) != len(clips):
        raise ConfigError("captions", got=f"{len(given)} captions for {len(clips)} clips", expected="one, or one each")
    if not given:
        captioner = open_captioner(config)
        given = [captioner.caption(clip.frames, config.concept.subject or config.concept.class_noun) for clip in clips]
    noun = config.concept.class_noun or given[0].class_noun
    return [item.model_copy(update={"class_noun": noun}) for item in given]


def load_captions(store: ArtifactStore, ref: ArtifactRef) -> list[Caption]:
    """The captions of a finished artifact."""
    loaded = json.loads((store.folder(ref) / FILE_NAME).read_text(encoding="utf-8"))
    return [Caption.model_validate(item) for item in loaded]
