"""Which motion a track shows: a small network over time, trained on tracks without a pixel."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.pocket.judge.training import Losses
from pipeline_lib.pocket.judge.truth_table import MOTION_WORDS, poses
from pipeline_lib.world.motion import channel_values
from pipeline_lib.world.sampling import SceneMix, sample_scene
from pipeline_lib.world.scene import Motion

Array = npt.NDArray[np.float32]
_FEATURES = 9
# What the named motions move: a free motion that moves exactly one of these sets can be one of them.
_NAMED_SETS: frozenset[frozenset[str]] = frozenset(
    frozenset(names)
    for names in (
        (),
        ("vertical",),
        ("angle",),
        ("horizontal", "angle"),
        ("horizontal",),
        ("size",),
        ("horizontal", "vertical"),
    )
)
# Half frames, radians and relative sizes whose peak-to-peak is too small to see in 64 pixels.
_VISIBLE = {"horizontal": 0.06, "vertical": 0.06, "angle": 0.17, "size": 0.06, "stretch": 0.06}


def decidable(motion: Motion) -> bool:
    """Whether a motion can be told from every motion of another name.

    Named motions can. A free motion can when the set of channels that it visibly moves is not the
    set of a named motion: a free motion that only hops *is* bouncing to any eye.

    Args:
        motion: the motion.

    Returns:
        The answer; visible is more than 2 pixels, 10 degrees or 6 % from peak to peak.
    """
    if motion.name != "free":
        return True
    seen = {
        name for name, least in _VISIBLE.items() if float(np.ptp(channel_values(getattr(motion, name), 13))) > least
    }
    return frozenset(seen) not in _NAMED_SETS


def filled(track: Array) -> Array:
    """Fill frames without a subject by interpolation over time, angles unwrapped.

    Args:
        track: poses of one subject, shape (T, 5), NaN where it was not found; at least one was.

    Returns:
        Same shape, no NaN.
    """
    found = ~np.isnan(track[:, 0])
    time = np.arange(len(track))
    whole = track.copy()
    whole[found, 3] = np.unwrap(track[found, 3])
    for column in range(track.shape[1]):
        whole[:, column] = np.interp(time, time[found], whole[found, column])
    return whole.astype(np.float32)


def track_features(track: Tensor) -> Tensor:
    """What the network sees of tracks.

    Args:
        track: poses without NaN, angles unwrapped, shape (N, T, 5).

    Returns:
        Shape (N, 9, T): centred places over 16 pixels, steps of the angle and the centred angle in
        radians and as sine and cosine, centred log scale and stretch, and the steps of the place.
    """
    centred = track - track.mean(dim=1, keepdim=True)
    place = centred[..., :2] / 16.0
    step = functional.pad(track[:, 1:] - track[:, :-1], (0, 0, 1, 0))
    parts = [
        place,
        centred[..., 3:4].clamp(-4.0, 4.0),
        torch.sin(step[..., 3:4]),
        1.0 - torch.cos(step[..., 3:4]),
        4.0 * centred[..., 2:3],
        2.0 * centred[..., 4:5],
        step[..., :2] / 4.0,
    ]
    return torch.cat(parts, dim=-1).transpose(1, 2)


class MotionNetwork(nn.Module):
    """Three convolutions over time and a pooled answer.

    Args:
        width: channels.
        kernel: frames that a convolution sees.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside in (_FEATURES, width, width):
            layers += [nn.Conv1d(inside, width, kernel, padding=kernel // 2), nn.GELU()]
        self.layers = nn.Sequential(*layers)
        self.answer = nn.Linear(2 * width, len(MOTION_WORDS))

    def forward(self, track: Tensor) -> Tensor:
        """Logits of ``MOTION_WORDS``.

        Args:
            track: poses without NaN, shape (N, T, 5).

        Returns:
            Shape (N, 11).
        """
        features = self.layers(track_features(track))
        return self.answer(torch.cat([features.mean(dim=2), features.amax(dim=2)], dim=1))


def track_pool(seed: int, count: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """Tracks with the motions' names.

    Args:
        seed: seed of the scenes.
        count: how many.

    Returns:
        Poses, shape (count, T, 5), and indices into ``MOTION_WORDS``, shape (count,).
    """
    tracks: list[Array] = []
    names: list[int] = []
    index = 0
    mix = SceneMix(free_motion_share=0.4)
    while len(tracks) < count:
        scene = sample_scene(seed, index, mix)
        index += 1
        found = poses(scene)
        for position, subject in enumerate(scene.subjects):
            if decidable(subject.motion):
                tracks.append(found[:, position])
                names.append(MOTION_WORDS.index(subject.motion.name))
    return np.stack(tracks[:count]), np.array(names[:count], dtype=np.int64)


class MotionTrainer:
    """Losses of a step from its counter.

    Args:
        network: what is trained.
        seed: seed of tracks and noise.
        pool: tracks drawn once and kept.
        batch: tracks a step.
    """

    def __init__(self, network: MotionNetwork, seed: int, pool: int = 24_000, batch: int = 256) -> None:
        self.network, self.seed, self.batch = network, seed, batch
        tracks, names = track_pool(seed, pool)
        self.tracks, self.names = torch.from_numpy(tracks), torch.from_numpy(names)

    def losses(self, step: int) -> Losses:
        """The losses of one step."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        rows = torch.randint(len(self.tracks), (self.batch,), generator=generator)
        logits = self.network(as_tracked(self.tracks[rows], generator))
        return {"motion": functional.cross_entropy(logits, self.names[rows])}


def as_tracked(track: Tensor, generator: torch.Generator) -> Tensor:
    """Spoil true tracks as a tracker does: noise of many levels, and turns that are missed now and then.

    Args:
        track: true poses, shape (N, T, 5).
        generator: source of the noise.

    Returns:
        Same shape; angles are wrapped and unwrapped again, as they are when tracks are read.
    """
    count, frames = track.shape[:2]
    # Pixels, pixels, log scale, radians, log stretch: as good and as bad as trackers are.
    worst = torch.tensor([0.9, 0.9, 0.05, 0.2, 0.1])
    level = torch.rand(count, 1, 5, generator=generator).square() + 0.05
    spoilt = track + torch.randn(count, frames, 5, generator=generator) * worst * level
    share = 0.2 * (torch.rand(count, 1, generator=generator) - 0.5).clamp_min(0.0)
    missed = torch.rand(count, frames, generator=generator) < share
    turns = 2.0 * math.pi * torch.rand(count, frames, generator=generator)
    angle = spoilt[..., 3] + torch.where(missed, turns, torch.zeros_like(turns))
    step = torch.remainder(angle[:, 1:] - angle[:, :-1] + math.pi, 2.0 * math.pi) - math.pi
    unwrapped = torch.cat([angle[:, :1], angle[:, :1] + step.cumsum(dim=1)], dim=1)
    return torch.cat([spoilt[..., :3], unwrapped[..., None], spoilt[..., 4:]], dim=-1)
