"""Caption: every clip gets a caption, from the config or from a captioner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline_lib.captions.fields import split_subject
from pipeline_lib.errors import ConfigError
from pipeline_lib.media.clip import Clip
from pipeline_lib.observers import captioner_folder, captioner_name, open_captioner
from pipeline_lib.records import ArtifactRef, Caption
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.prepare import load_clips
from pipeline_lib.steps.step import Recipe, StepContext, StepResult, find_or_build
from pipeline_lib.storage import ArtifactStore, write_atomic
from pipeline_lib.storage.files import CHECKSUMS

STAGE_VERSION = 2
KIND = "captions"
FILE_NAME = "captions.json"


def caption(context: StepContext, clips: ArtifactRef) -> StepResult:
    """Writes `captions.json`: one caption for each clip or set of images, and the captioner's notes.

    Args:
        context: the config's captions and captioner.
        clips: of the step prepare.

    Returns:
        The captions, found or made, with the captioner's notes.

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
            "captioner": _identity(config),
            "subject": config.concept.subject,
            "class_noun": config.concept.class_noun,
            "given": [item.model_dump() for item in config.captions],
        },
    )

    def make(folder: Path, _: str) -> None:
        captions, notes = make_captions(config, load_clips(context.store, clips), str(context.base.device))
        content = {"captions": [item.model_dump() for item in captions], "notes": notes}
        write_atomic(folder / FILE_NAME, json.dumps(content, indent=1, sort_keys=True))

    result = find_or_build(context, recipe, make)
    return result.model_copy(update={"notes": tuple(_content(context.store, result.ref)["notes"])})


def make_captions(config: RunConfig, clips: list[Clip], device: str = "cpu") -> tuple[list[Caption], list[str]]:
    """One caption for each clip: given, or the captioner's; all speak of one class noun.

    Args:
        config: its `captions`, and its captioner where they are empty.
        clips: clips or sets of images.
        device: where a captioner's model runs.

    Returns:
        As many captions as clips; what the captioner noted.

    Raises:
        ConfigError: the number of given captions fits neither one nor all clips.
    """
    given, notes = list(config.captions), list[str]()
    if len(given) == 1:
        given *= len(clips)
    if given and len(given) != len(clips):
        raise ConfigError("captions", got=f"{len(given)} captions for {len(clips)} clips", expected="one, or one each")
    if given:
        noun = class_noun(config)
        return [item.model_copy(update={"class_noun": noun}) for item in given], notes
    captioner = open_captioner(config, device)
    noun, looks = split_subject(config.concept.subject or config.concept.class_noun, config.concept.class_noun)
    for clip in clips:
        seen = captioner.caption(clip.frames, noun, unordered=clip.record.kind == "images")
        static = ", ".join(part for part in (looks, seen.static) if part)
        given.append(seen.model_copy(update={"class_noun": noun, "static": static}))
        notes += [f"{clip.record.name}: {note}" for note in captioner.notes]
    return given, notes


def class_noun(config: RunConfig) -> str:
    """The noun that a run's captions and prompts use for the subject's class.

    Args:
        config: its `concept.class_noun` wins over its own captions, those over its `concept.subject`.

    Returns:
        E.g. "wolf" for the subject "grey wolf".

    Raises:
        InputError: nothing names the subject.
    """
    if config.concept.class_noun or not config.captions:
        return split_subject(config.concept.subject or config.concept.class_noun, config.concept.class_noun)[0]
    return config.captions[0].class_noun


def load_captions(store: ArtifactStore, ref: ArtifactRef) -> list[Caption]:
    """The captions of a finished artifact."""
    return [Caption.model_validate(item) for item in _content(store, ref)["captions"]]


def _content(store: ArtifactStore, ref: ArtifactRef) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((store.folder(ref) / FILE_NAME).read_text(encoding="utf-8"))
    return content


def _identity(config: RunConfig) -> str | list[list[str]]:
    """What a captioner's words depend on: its name, or the contents of its folder, wherever that lies."""
    folder = captioner_folder(config)
    if folder is None:
        return captioner_name(config)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [[path.relative_to(folder).as_posix(), CHECKSUMS.of(path)] for path in files]
