"""Prepare: files of a concept become clips at the base's size, frame count and rate."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from pipeline_lib.errors import InputError
from pipeline_lib.media.clip import Clip
from pipeline_lib.media.collect import MediaFiles, collect
from pipeline_lib.media.read import read_clips, read_images
from pipeline_lib.media.write import write_video
from pipeline_lib.records import ArtifactRef, FrameRules
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.step import Recipe, StepContext, StepResult, find_or_build
from pipeline_lib.storage import ArtifactStore
from pipeline_lib.storage.files import CHECKSUMS

STAGE_VERSION = 1
KIND = "clips"


def prepare(context: StepContext) -> StepResult:
    """Decodes, fits and stores all inputs; `<n>/` is the n-th clip or set of images, with files to look at.

    Args:
        context: the config's inputs and the base's frame rules.

    Returns:
        The clips, found or made, with the notes of their records.

    Raises:
        MediaError: a file cannot be used.
        InputError: no input was named.
    """
    media = collect_inputs(context.config)
    _ = context.method  # a wrong setting is told before anything is made
    rules = context.base.spec.frame_rules
    shot = context.config.concept.shot
    recipe = Recipe(
        step="prepare",
        kind=KIND,
        version=STAGE_VERSION,
        settings={
            "rules": rules.model_dump(),
            "shot": shot,
            "clips": [[path.name, CHECKSUMS.of(path)] for path in media.clips],
            "images": [[path.name, CHECKSUMS.of(path)] for path in media.images],
        },
    )

    def make(folder: Path, _: str) -> dict[str, float]:
        clips = read_media(media, rules, shot)
        for index, clip in enumerate(clips):
            clip.save(folder / str(index))
            _write_view(clip, folder / str(index))
        return {"clips": len(clips), "frames": sum(len(clip.frames) for clip in clips)}

    result = find_or_build(context, recipe, make)
    notes = [note for clip in load_clips(context.store, result.ref) for note in clip.record.notes]
    return result.model_copy(update={"notes": tuple(notes)})


def collect_inputs(config: RunConfig) -> MediaFiles:
    """All clips and images of a run's inputs, in the order given.

    Args:
        config: its `concept.inputs`: files and folders.

    Returns:
        The files, clips and images apart.

    Raises:
        MediaError: an input is not there, or holds no media.
        InputError: no input was named.
    """
    if not config.concept.inputs:
        raise InputError("nothing to learn from: concept.inputs is empty", fix="name a clip, an image or a folder")
    found = [collect(Path(text).expanduser()) for text in config.concept.inputs]
    return MediaFiles(
        clips=tuple(path for media in found for path in media.clips),
        images=tuple(path for media in found for path in media.images),
    )


def read_media(media: MediaFiles, rules: FrameRules, shot: int) -> list[Clip]:
    """Reads what was collected; the images are one set, after the clips.

    Args:
        media: files.
        rules: the base's.
        shot: counted from 1; 0 takes the longest.

    Returns:
        Clips that fit the base.
    """
    clips = read_clips(media.clips, rules, shot=shot - 1 if shot else None)
    return [*clips, read_images(media.images, rules)] if media.images else clips


def load_clips(store: ArtifactStore, ref: ArtifactRef) -> list[Clip]:
    """The clips of a finished artifact."""
    folder = store.folder(ref)
    return [Clip.load(path) for path in sorted(folder.glob("[0-9]*"), key=lambda path: int(path.name))]


def view_files(folder: Path) -> tuple[Path, ...]:
    """What a person can look at of one clip's folder: an mp4, or pictures."""
    return (*sorted(folder.glob("*.mp4")), *sorted(folder.glob("*.png")))


def has_clips(clips: list[Clip]) -> bool:
    """Whether there is motion to learn."""
    return any(clip.record.kind == "video" for clip in clips)


def _write_view(clip: Clip, folder: Path) -> None:
    if clip.record.kind == "video":
        write_video(clip.frames, folder / "clip.mp4", clip.record.frames_per_second)
    for index, image in enumerate(clip.frames if clip.record.kind == "images" else ()):
        Image.fromarray(image).save(folder / f"{index:03d}.png")
