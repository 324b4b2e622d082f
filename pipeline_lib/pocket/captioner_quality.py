"""How good the pocket captioner is, measured through the captioner's own path on held-out clips.

Captions are graded on meaning, by the world's grammar: synonyms are equal and order does not matter. What the
frames cannot tell is not asked for:

- colour, texture, accessory and motion by the judge's rules (:mod:`pipeline_lib.pocket.judge.grading`);
- eyes behind glasses, and eyes or antennae whose absence would change fewer than 12 pixels in most frames;
- a free motion has no name: it is right to call it what it may be called in a caption.

``static`` is the share of a subject's attributes that are told right, over all clips; ``static_exact`` the share
of clips in which all of them are. The other fields are right or wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline_lib.captions.vlm import VLMCaptioner
from pipeline_lib.pocket.captioner_data import strange_clip
from pipeline_lib.pocket.judge.grading import answerable
from pipeline_lib.pocket.judge.tally import Share, Tally
from pipeline_lib.pocket.world_settings import HELD_OUT_SEED
from pipeline_lib.records import Caption
from pipeline_lib.world import phrases
from pipeline_lib.world.render import RenderedClip, render
from pipeline_lib.world.sampling import sample_scene, scene_generator
from pipeline_lib.world.scene import Scene, Subject

_LEAST_CHANGE, _LEAST_PIXELS, _LEAST_FRAMES = 24, 12, 0.5
_BESIDE = re.compile(r",? (?:next to|beside) .*$")
_ACCESSORY_WORDS = tuple(word for word in phrases.ACCESSORY_PHRASES if word != "none")


def captioner_figures(folder: Path, count: int = 256) -> dict[str, dict[str, dict[str, float]]]:
    """Share of right fields on held-out clips.

    Args:
        folder: of the model and its processor.
        count: clips, and half as many that are not of the pocket world.

    Returns:
        Under ``captioner``: each field of the caption, ``static_exact``, each attribute as ``static.NAME``, and
        ``elsewhere``, the share of strange clips of which it says nothing; each with ``value``, the bounds of its
        95 % interval ``low`` and ``high``, and ``n``.
    """
    captioner, tally = VLMCaptioner(folder), Tally()
    for index in range(count):
        scene = sample_scene(HELD_OUT_SEED, index)
        clip = render(scene)
        said = captioner.caption(clip.frames, scene.subjects[0].shape)
        grade_caption(tally, scene, clip, said)
    for index in range(count // 2):
        captioner.caption(strange_clip(scene_generator(HELD_OUT_SEED, index, stream=33)), "dog")
        tally.add("elsewhere", bool(captioner.notes))
    return {"captioner": {name: _record(share) for name, share in tally.shares().items()}}


def grade_caption(tally: Tally, scene: Scene, clip: RenderedClip, said: Caption) -> None:
    """Count what a caption tells of a scene's first subject and of its surroundings.

    Args:
        tally: where to count.
        scene: the truth.
        clip: the scene rendered.
        said: the caption.
    """
    subject, told = scene.subjects[0], static_attributes(said.static)
    asked = asked_attributes(scene, clip)
    right = {name: _agrees(name, told, subject) for name in sorted(asked - {"motion"})}
    for name, holds in right.items():
        tally.add("static", holds)
        tally.add(f"static.{name}", holds)
    if right:
        tally.add("static_exact", all(right.values()))
    if "motion" in asked:
        named = subject.motion.name != "free"
        allowed = phrases.MOTION_PHRASES[subject.motion.name] if named else phrases.free_motion_phrases(subject.motion)
        tally.add("motion", said.motion in allowed)
    tally.add("camera", said.camera in phrases.CAMERA_PHRASES[scene.camera.name])
    tally.add("background", said.background in phrases.BACKGROUND_PHRASES[scene.backdrop.name])
    tally.add("light", said.light in phrases.LIGHT_PHRASES[scene.light])


def static_attributes(words: str) -> dict[str, object]:
    """What words say of a look.

    Args:
        words: of a caption's static part; what is said of another subject is left out.

    Returns:
        ``colours`` in order, ``texture``, ``accessory``, ``eyes`` (0 where none are told) and ``antennae``
        (0, 1, or 2 for several).
    """
    own = _BESIDE.sub("", words)
    colours = {said: name for name, options in phrases.COLOUR_PHRASES.items() for said in options}
    found = [colours[word] for word in re.findall(r"[a-z]+", own.split(" with ")[0].split(",")[0]) if word in colours]
    textures = [name for name, options in phrases.TEXTURE_PHRASES.items() if any(said in own for said in options)]
    eyes = [count for count, said in phrases.EYE_PHRASES.items() if said in own]
    return {
        "colours": tuple(found),
        "texture": textures[0] if textures else "plain",
        "accessory": next((word for word in _ACCESSORY_WORDS if word in own), "none"),
        "eyes": eyes[0] if eyes else 0,
        "antennae": 2 if "antennae" in own else int("antenna" in own),
    }


def asked_attributes(scene: Scene, clip: RenderedClip) -> frozenset[str]:
    """What the frames can tell of a scene's first subject.

    Args:
        scene: the scene.
        clip: the scene rendered.

    Returns:
        Some of ``colour``, ``texture``, ``accessory``, ``eyes``, ``antennae`` and ``motion``.
    """
    subject, asked = scene.subjects[0], set(answerable(scene, clip)[0]) - {"shape"}
    if subject.kind == "creature" and {"texture", "colour"} & asked:
        if subject.accessory != "glasses" and _shows(scene, clip, lambda one: replace(one, eyes=1 + one.eyes % 4)):
            asked.add("eyes")
        if _shows(scene, clip, lambda one: replace(one, antennae=0 if one.antennae else 2)):
            asked.add("antennae")
    return frozenset(asked)


def _shows(scene: Scene, clip: RenderedClip, change: Callable[[Subject], Subject]) -> bool:
    """Whether a change of the first subject changes enough pixels in most frames."""
    other = render(replace(scene, subjects=(change(scene.subjects[0]), *scene.subjects[1:]))).frames
    changed = np.abs(other.astype(np.int16) - clip.frames).max(axis=-1) > _LEAST_CHANGE
    return bool((changed.sum(axis=(1, 2)) >= _LEAST_PIXELS).mean() >= _LEAST_FRAMES)


def _agrees(name: str, told: Mapping[str, object], subject: Subject) -> bool:
    if name == "colour":
        both = (subject.colour, subject.second_colour)
        return told["colours"] == (both if subject.kind == "creature" else both[:1])
    if name == "antennae":
        return told[name] == min(subject.antennae, 2)
    return bool(told[name] == getattr(subject, name))


def _record(share: Share) -> dict[str, float]:
    assert share.value is not None
    assert share.interval is not None
    low, high = share.interval
    return {"value": round(share.value, 4), "low": round(low, 4), "high": round(high, 4), "n": share.count}
