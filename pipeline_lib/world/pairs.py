"""Pairs: two gizmos in one clip, for what methods make of two subjects at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline_lib.errors import InputError
from pipeline_lib.world.gizmos import CLASS_NOUN, REPORTING, TUNING, EditingPrompt, Gizmo, gizmo
from pipeline_lib.world.phrases import BACKGROUND_PHRASES
from pipeline_lib.world.scene import Channel, Scene, Subject

PAIR_NOUN = f"{CLASS_NOUN} and a {CLASS_NOUN}"
"""As training captions call two creatures: they have no plural."""
SHRINK = 0.8
"""Of size and travel: members never meet, and are large enough to be told apart after the autoencoder (at 0.7 one of
them was named in 8 % of its frames)."""
ASIDE = 0.48
"""Half frames from the frame's middle, as training pairs stand."""
TUNING_PAIRS = tuple(range(len(TUNING) // 2))
"""Indices of the pairs of tuning gizmos."""
REPORTING_PAIRS = tuple(range(len(TUNING_PAIRS), len(TUNING_PAIRS) + len(REPORTING) // 2))
"""Indices of the pairs of gizmos that are only for reporting."""
PAIRS = (*TUNING_PAIRS, *REPORTING_PAIRS)


@dataclass(frozen=True)
class Pair:
    """One held-out concept with two subjects.

    Attributes:
        index: 0 … 5.
        name: Its members' names, for tables.
        members: The gizmos, the left one first.
        reference: The clip that a method learns from: both as in their own clips, smaller, where the first one lives.
        second: The same two elsewhere and on each other's side, for comparison only.
        caption: What a captioner that knows neither says of the reference clip.
        static_caption: Its static part.
        motion_caption: Its motion part.
        editing_prompts: What to generate after learning.
    """

    index: int
    name: str
    members: tuple[Gizmo, Gizmo]
    reference: Scene
    second: Scene
    caption: str
    static_caption: str
    motion_caption: str
    editing_prompts: tuple[EditingPrompt, ...]


def pair(index: int) -> Pair:
    """Return one pair: the gizmos of twice that number and the next.

    Args:
        index: 0 … 5; see ``TUNING_PAIRS`` and ``REPORTING_PAIRS``.

    Returns:
        The pair.

    Raises:
        InputError: When there is no such pair.
    """
    if index not in PAIRS:
        raise InputError("no such pair", got=str(index), expected=f"{PAIRS[0]} … {PAIRS[-1]}")
    members = gizmo(2 * index), gizmo(2 * index + 1)
    first, other = members
    home = BACKGROUND_PHRASES[first.reference.backdrop.name][0]
    static, motion = f"a {PAIR_NOUN}", f"both {first.motion_caption}"
    return Pair(
        index=index,
        name=f"{first.name} and {other.name}",
        members=members,
        reference=replace(first.reference, subjects=_side_by_side(first, other)),
        second=replace(first.second, subjects=_side_by_side(other, first)),
        caption=f"{static} {motion} {home}",
        static_caption=static,
        motion_caption=motion,
        editing_prompts=tuple(_both(prompt) for prompt in first.editing_prompts if "colour" not in prompt.attributes),
    )


def _side_by_side(left: Gizmo, right: Gizmo) -> tuple[Subject, Subject]:
    return _small(left.reference.subjects[0], -ASIDE), _small(right.reference.subjects[0], ASIDE)


def _small(subject: Subject, aside: float) -> Subject:
    motion = subject.motion
    travel = replace(motion, horizontal=_shrunk(motion.horizontal), vertical=_shrunk(motion.vertical))
    return replace(subject, motion=travel, position=(aside, subject.position[1]), size=SHRINK * subject.size)


def _shrunk(channel: Channel) -> Channel:
    waves = tuple(replace(wave, amplitude=SHRINK * wave.amplitude) for wave in channel.harmonics)
    return Channel(SHRINK * channel.drift, waves)


def _both(prompt: EditingPrompt) -> EditingPrompt:
    """The first member's prompt, asked of both; no other colour: of two, a prompt cannot say whose."""
    return replace(prompt, text=prompt.text.replace(" moving ", " both moving "))
