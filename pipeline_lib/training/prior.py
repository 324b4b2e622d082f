"""Prior preservation: the base's own clips of the class, sampled once, as a regulariser.

Ruiz et al. 2023 (DreamBooth, Eq. 2), as Set-and-Sequence uses it in both stages. The prompts have two
parts, one sentence of appearance and one of motion, and never hold a placeholder word.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline_lib.models.base import BaseModel
from pipeline_lib.seeding import generator
from pipeline_lib.training.data import LatentSet, PriorData
from pipeline_lib.training.encode import to_pixels
from pipeline_lib.training.text import TokenDropSettings, encode_texts

FRAMES_PER_CLIP = 2

APPEARANCES = (
    "a red {noun}", "a small blue {noun}", "a striped {noun}", "a {noun} with a hat", "a yellow {noun}",
    "a spotted {noun}", "a green {noun}", "a {noun} with a scarf", "a large purple {noun}", "a white {noun}",
    "a {noun} with glasses", "a pink {noun}",
)  # fmt: skip
PLACES = ("on the beach", "in a forest", "in the snow", "in the city", "in a desert", "in a meadow", "in a plain room")
MOTIONS = (
    "standing still", "bouncing up and down", "moving to the left", "moving to the right", "spinning around",
    "swaying from side to side", "moving in a circle", "hopping",
)  # fmt: skip


def prior_prompts(class_noun: str, count: int, seed: int) -> list[str]:
    """Two-part prompts about the class: appearance and place, then motion.

    Args:
        class_noun: e.g. "dog".
        count: how many.
        seed: of the draws; the lists are walked in shuffled order so that all words come up.

    Returns:
        `count` prompts.
    """
    orders = []
    for name, words in (("appearance", APPEARANCES), ("place", PLACES), ("motion", MOTIONS)):
        orders.append([words[i] for i in torch.randperm(len(words), generator=generator(seed, f"prior-{name}"))])
    looks, places, motions = orders
    return [
        f"{looks[i % len(looks)].format(noun=class_noun)} {places[i % len(places)]}, {motions[i % len(motions)]}"
        for i in range(count)
    ]


def encode_prior(
    base: BaseModel, clips: Sequence[NDArray[np.uint8]], prompts: Sequence[str], drop: TokenDropSettings, seed: int
) -> PriorData:
    """Encodes sampled clips and a few of their frames.

    Args:
        base: whose clips these are.
        clips: one per prompt, (t, h, w, 3) uint8.
        prompts: what they were sampled from.
        drop: text-token masking, as for the concept's prompts.
        seed: of the masked variants.

    Returns:
        Clips and, re-encoded as one-frame clips, frames from each (a slice of a clip's latents is not
        what an image is to the model).
    """
    frames, owners = [], []
    for index, clip in enumerate(clips):
        for at in np.linspace(0, len(clip) - 1, FRAMES_PER_CLIP).round().astype(int):
            frames.append(base.encode_video(to_pixels(clip[at : at + 1])))
            owners.append(index)
    encoded = torch.cat([base.encode_video(to_pixels(clip)) for clip in clips])
    text = encode_texts(base, prompts, drop, {}, seed)
    return PriorData(
        frames=LatentSet(torch.cat(frames), torch.tensor(owners)),
        clips=LatentSet(encoded, torch.arange(len(clips))),
        text=text,
    )
