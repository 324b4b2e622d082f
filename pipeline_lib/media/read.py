"""Reads clips and images as a base wants them: size, frame rate, enough frames; nothing lost silently."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.errors import MediaError
from pipeline_lib.media.clip import Clip
from pipeline_lib.media.decode import decode_frames
from pipeline_lib.media.fitting import fit_size
from pipeline_lib.media.images import LoadedImage, load_image
from pipeline_lib.media.limits import DEFAULT_LIMITS, MediaLimits
from pipeline_lib.media.shots import find_shots
from pipeline_lib.media.sniff import sniff
from pipeline_lib.media.source import VideoSource, open_video
from pipeline_lib.media.survey import Survey
from pipeline_lib.media.timing import Timing, retime
from pipeline_lib.records import ClipRecord, FrameRules, Shot, SourceFacts

_IMAGES_AT_ONCE = 2
MOST_WINDOWS = 40
"""A clip is cut after so many times the base's number of frames; training draws windows from it."""


def read_clips(
    paths: Sequence[Path], rules: FrameRules, *, shot: int | None = None, limits: MediaLimits = DEFAULT_LIMITS
) -> list[Clip]:
    """Reads several clips of one concept.

    Of each file one shot is kept, whole: the longest, or the one asked for. It is re-timed to the base's
    frame rate by nearest time stamps and has at least `rules.num_frames` frames. What was left out,
    cropped, repeated, slowed down or tone-mapped stands in the record's notes. A file of one frame comes
    back as a set of one image. A file that is cut short or damaged is used as far as it decodes, with a
    note, if that is enough; without its index (an mp4 whose recording broke off) it is an error.

    Args:
        paths: files.
        rules: the base's.
        shot: index of the shot to use, from 0 (notes and messages count from 1); None takes the longest.
        limits: caps on each file.

    Returns:
        One clip per file, in order.

    Raises:
        MediaError: a file cannot be used; the message names it and the fix.
    """
    return [_read_clip(Path(path), rules, shot, limits) for path in paths]


def read_images(paths: Sequence[Path], rules: FrameRules, *, limits: MediaLimits = DEFAULT_LIMITS) -> Clip:
    """Reads images as one unordered set, each fitted to the base's size.

    Args:
        paths: files, at least one.
        rules: the base's; only its size is used.
        limits: caps on each file.

    Returns:
        A clip of kind "images"; its frame rate is 0.

    Raises:
        MediaError: a file cannot be used, or there is none.
    """
    if not paths:
        raise MediaError("no images were given", expected="at least one", fix="give the images of the subject")
    size = (rules.height, rules.width)
    with ThreadPoolExecutor(_IMAGES_AT_ONCE) as pool:
        loaded = list(pool.map(lambda path: load_image(Path(path), size, limits), paths))
    notes = [note for image in loaded for note in _image_notes(image, rules)]
    name = loaded[0].facts.name if len(loaded) == 1 else f"{len(loaded)} images"
    return _image_set(name, np.stack([image.pixels for image in loaded]), [image.facts for image in loaded], notes)


def _read_clip(path: Path, rules: FrameRules, shot: int | None, limits: MediaLimits) -> Clip:
    if sniff(path, limits) == "image":
        return read_images([path], rules, limits=limits)
    with open_video(path, limits) as source:
        if source.facts.num_frames == 1:
            return _one_frame(source, rules, limits)
        return _one_shot(source, rules, shot, limits)


def _one_frame(source: VideoSource, rules: FrameRules, limits: MediaLimits) -> Clip:
    size = source.seen.header.display_size
    fit = fit_size(*size, rules.height, rules.width)
    frames, decoded = decode_frames(source.path, source.seen, fit, np.zeros(1, np.int64), limits)
    notes = [*_source_notes(source.seen), *fit.notes(*size), *decoded, "a video of one frame: used as an image"]
    name = source.facts.name
    return _image_set(name, frames, [source.facts], [f"{name}: {note}" for note in notes])


def _one_shot(source: VideoSource, rules: FrameRules, asked: int | None, limits: MediaLimits) -> Clip:
    seen, facts, size = source.seen, source.facts, source.seen.header.display_size
    fit = fit_size(*size, rules.height, rules.width)
    shots = find_shots(seen.thumbnails, seen.frame_seconds)
    used = _choose_shot(facts.name, shots, asked)
    part = f"{facts.name}, shot {used + 1} of {len(shots)}" if len(shots) > 1 else facts.name
    timing = _timing(seen, shots[used], rules, part, limits)
    frames, decoded = decode_frames(source.path, seen, fit, timing.picks + shots[used].start, limits)
    notes = [*_source_notes(seen), *_shot_notes(shots, used, seen.times), *timing.notes, *fit.notes(*size), *decoded]
    record = ClipRecord(
        name=facts.name,
        kind="video",
        sources=(facts,),
        height=rules.height,
        width=rules.width,
        num_frames=len(frames),
        frames_per_second=rules.frames_per_second,
        shots=shots,
        shot_used=used,
        notes=tuple(notes),
    )
    return Clip(frames, record)


def _timing(seen: Survey, shot: Shot, rules: FrameRules, name: str, limits: MediaLimits) -> Timing:
    in_memory = limits.kept_bytes // (rules.height * rules.width * 3)
    most = max(rules.num_frames, min(in_memory, MOST_WINDOWS * rules.num_frames))
    return retime(seen.times[shot.start : shot.stop], seen.frame_seconds, rules, name, most)


def _choose_shot(name: str, shots: Sequence[Shot], asked: int | None) -> int:
    if asked is None:
        return max(range(len(shots)), key=lambda index: (shots[index].stop - shots[index].start, -index))
    if not 0 <= asked < len(shots):
        raise MediaError(
            f"{name} has no shot {asked + 1}",
            got=f"{len(shots)} shots",
            expected=f"a number from 1 to {len(shots)}",
            fix="leave the shot out to use the longest",
        )
    return asked


def _shot_notes(shots: Sequence[Shot], used: int, times: NDArray[np.float64]) -> list[str]:
    if len(shots) == 1:
        return []
    parts = []
    for number, shot in enumerate(shots, 1):
        end = times[min(shot.stop, len(times) - 1)]
        parts.append(f"{number}: {times[shot.start]:.1f}-{end:.1f} s")
    return [
        f"{len(shots)} shots ({', '.join(parts[:12])}{', ...' if len(parts) > 12 else ''}): shot {used + 1} is used"
    ]


def _source_notes(seen: Survey) -> list[str]:
    header, deep = seen.header, seen.header.bit_depth > 8
    streams, size = header.num_video_streams, f"{header.width}x{header.height}"
    lost = header.seconds > seen.seconds + max(0.25, 2 * seen.frame_seconds)
    told = (
        (streams > 1, f"{streams} video streams: the largest ({size}) is used"),
        (header.rotation, f"turned upright by {header.rotation} degrees"),
        (lost, f"cut short: {seen.seconds:.2f} s of {header.seconds:.2f} s can be decoded and are used"),
        (seen.damage, f"damaged: the decoder reported {seen.damage} errors and went on"),
        (not seen.timed, "no time stamps: frames were taken as evenly spaced"),
        (seen.variable_rate, "variable frame rate: frames were taken by their time stamps"),
        (seen.size_changes, "the picture changes its size within the file: all of it was scaled to one size"),
        (seen.interlaced, "interlaced: whole pictures were made of the fields"),
        (header.hdr, "high dynamic range: tone-mapped to standard range, some highlights are flattened"),
        (deep and not header.hdr, f"{header.bit_depth}-bit colour: rounded to 8 bits"),
    )
    return [words for holds, words in told if holds]


def _image_notes(image: LoadedImage, rules: FrameRules) -> list[str]:
    facts = image.facts
    fit = fit_size(facts.height, facts.width, rules.height, rules.width)
    notes = [*image.notes, *fit.notes(facts.height, facts.width)]
    if facts.bit_depth > 8:
        notes.append(f"{facts.bit_depth}-bit colour: rounded to 8 bits")
    return [f"{facts.name}: {note}" for note in notes]


def _image_set(name: str, frames: NDArray[np.uint8], facts: Sequence[SourceFacts], notes: Sequence[str]) -> Clip:
    record = ClipRecord(
        name=name,
        kind="images",
        sources=tuple(facts),
        height=frames.shape[1],
        width=frames.shape[2],
        num_frames=len(frames),
        frames_per_second=0.0,
        notes=tuple(notes),
    )
    return Clip(frames, record)
