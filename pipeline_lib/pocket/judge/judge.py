"""The judge: reads attributes, tracks, masks and looks back from pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.pocket.judge.camera_reading import CameraNetwork, registration_features
from pipeline_lib.pocket.judge.crops import uncrop, without_light
from pipeline_lib.pocket.judge.finding import Found, look, peaks, rows_of, tracks
from pipeline_lib.pocket.judge.motion_reading import MotionNetwork, filled
from pipeline_lib.pocket.judge.networks import Architecture, CropNetwork, SceneNetwork
from pipeline_lib.pocket.judge.reading import Reading, SubjectReading, Word
from pipeline_lib.pocket.judge.scene_training import to_pictures
from pipeline_lib.pocket.judge.truth_table import FRAME_WORDS, MOTION_WORDS, SUBJECT_WORDS
from pipeline_lib.pocket.zoo import zoo_root
from pipeline_lib.storage.files import sha256
from pipeline_lib.storage.tensors import read_tensors, save_tensors
from pipeline_lib.world.vocabulary import CAMERAS, FRAME_SIZE

Frames = npt.NDArray[np.uint8]
JudgeName = Literal["first", "second"]
FROZEN = {
    "first.safetensors": "cadc0c307ec6da4bea1a9fd4a99007de465d55e06cd3704f287d50a7a6357cd2",
    "first_gallery.safetensors": "421b6a518827da98e51cb4ceb16ae2c4d2e335f0f21755aaf3274f63b76d32ef",
    "second.safetensors": "aca3474cba5acd69f39fe002d10440923fe6ad220bc77648e631f3fef159e2fe",
    "second_gallery.safetensors": "8f195537a6e6675a21572adbe74de4766c4eb34f55b3a18036b3b91414c82ca4",
}
"""SHA-256 of the files that judge: figures measured with other ones are not comparable."""
_LEAST_MOTION_FRAMES = 5
_LEAST_CAMERA_FRAMES = 4


@dataclass(frozen=True)
class JudgeDesign:
    """What makes one judge differ from the other.

    Attributes:
        architecture: trunk of the scene and crop networks.
        seed: seed of weights, draws and damage.
        motion: width and kernel of the motion network.
        camera: width of the camera network.
    """

    architecture: Architecture
    seed: int
    motion: tuple[int, int]
    camera: int


DESIGNS: dict[JudgeName, JudgeDesign] = {
    "first": JudgeDesign("convolutions", 11, (48, 3), 32),
    "second": JudgeDesign("patches", 29, (40, 5), 48),
}


class JudgeNetworks(nn.Module):
    """The four networks of one judge.

    Args:
        design: which ones.
    """

    def __init__(self, design: JudgeDesign) -> None:
        super().__init__()
        self.scene = SceneNetwork(design.architecture)
        self.crop = CropNetwork(design.architecture)
        self.motion = MotionNetwork(*design.motion)
        self.camera = CameraNetwork(design.camera)


def judge_path(name: JudgeName) -> Path:
    """Where the weights of a judge lie in the zoo."""
    return zoo_root() / "judge" / f"{name}.safetensors"


def save_networks(networks: JudgeNetworks, path: Path, name: JudgeName) -> None:
    """Write a judge's weights in half precision.

    Args:
        networks: the four networks.
        path: the file.
        name: which design.
    """
    state = {key: value.half() if value.is_floating_point() else value for key, value in networks.state_dict().items()}
    kept = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, kept, {"judge": name, "architecture": DESIGNS[name].architecture})


def check_frames(frames: Frames) -> None:
    """Refuse what the judge cannot read.

    Args:
        frames: a clip.

    Raises:
        InputError: when it is not (T, 64, 64, 3) uint8 with T ≥ 1.
    """
    if (
        frames.dtype != np.uint8
        or frames.ndim != 4
        or frames.shape[1:] != (FRAME_SIZE, FRAME_SIZE, 3)
        or not len(frames)
    ):
        raise InputError(
            "the judge reads clips of the pocket world",
            got=f"{frames.dtype} {frames.shape}",
            expected=f"uint8 (T, {FRAME_SIZE}, {FRAME_SIZE}, 3), T ≥ 1",
        )


class Judge:
    """One judge, ready to read.

    Args:
        networks: its networks, trained.
        name: which design.
        digest: SHA-256 of the weights' file, for traces; empty when there is no file.
    """

    def __init__(self, networks: JudgeNetworks, name: JudgeName, digest: str = "") -> None:
        self.networks, self.name, self.digest = networks.float().eval(), name, digest

    @staticmethod
    def load(name: JudgeName = "first", path: Path | None = None) -> Judge:
        """Load a judge of the zoo.

        Args:
            name: ``"first"`` judges, ``"second"`` cross-checks it.
            path: another file of the same design.

        Returns:
            The judge.

        Raises:
            InputError: when there is no such file or it holds another design.
        """
        path = path or judge_path(name)
        tensors, facts = read_tensors(path)
        if facts.get("judge") != name:
            raise InputError(f"{path} holds no {name!r} judge", got=repr(facts.get("judge")))
        networks = JudgeNetworks(DESIGNS[name])
        missing, unexpected = networks.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=False)
        if unexpected or any(not key.endswith("num_batches_tracked") for key in missing):
            raise InputError(f"{path} does not fit the judge", got=f"{unexpected or missing}")
        return Judge(networks, name, sha256(path))

    @torch.no_grad()
    def read(self, frames: Frames) -> Reading:
        """Read a clip or a picture.

        Args:
            frames: RGB, shape (T, 64, 64, 3), uint8, at 8 frames per second; T = 1 for a picture.

        Returns:
            What was read.

        Raises:
            InputError: when the frames have another shape or type.
        """
        check_frames(frames)
        pictures = to_pictures(frames)
        scene = self.networks.scene(pictures)
        told = {name: _agreed(logits) for name, logits in scene.frame.items()}
        lit = without_light(pictures, told["light"].expand(len(pictures), -1))
        return Reading(
            subjects=self._subjects(lit, scene.grid),
            background=_word(told["background"], FRAME_WORDS["background"]),
            light=_word(told["light"], FRAME_WORDS["light"]),
            camera=self._camera(pictures, torch.sigmoid(scene.mask), told["background"]),
            daylight=lit,
        )

    def _subjects(self, lit: Tensor, grid: Tensor) -> tuple[SubjectReading, ...]:
        coarse = peaks(grid)
        if not len(coarse[0]):  # convolutions refuse an empty batch
            return ()
        found = look(self.networks.crop, lit, coarse)
        return tuple(self._subject(found, rows) for rows in tracks(found, len(lit)))

    def _subject(self, found: Found, rows: npt.NDArray[np.int64]) -> SubjectReading:
        present = torch.from_numpy(rows[rows >= 0])
        words = {
            name: _word(_agreed(found.output.words[name][present]), options) for name, options in SUBJECT_WORDS.items()
        }
        pose = found.pose[present]
        laid = uncrop(torch.sigmoid(found.output.mask[present])[:, None], pose)[:, 0] > 0.5
        mask = np.zeros((len(rows), FRAME_SIZE, FRAME_SIZE), dtype=bool)
        mask[rows >= 0] = laid.numpy()
        track = rows_of(found.pose, rows)
        return SubjectReading(
            words=words,
            motion=self._motion(track),
            track=track,
            mask=mask,
            presence=float(found.presence[present].mean()),
        )

    def _motion(self, track: npt.NDArray[np.float32]) -> Word | None:
        seen = int((~np.isnan(track[:, 0])).sum())
        if seen < max(_LEAST_MOTION_FRAMES, len(track) / 2):
            return None
        logits = self.networks.motion(torch.from_numpy(filled(track))[None])
        return _word(torch.softmax(logits[0], dim=0), MOTION_WORDS)

    def _camera(self, pictures: Tensor, mask: Tensor, background: Tensor) -> Word | None:
        if len(pictures) < _LEAST_CAMERA_FRAMES:
            return None
        features = registration_features(pictures, mask, background)
        return _word(torch.softmax(self.networks.camera(features[None])[0], dim=0), CAMERAS)


def _agreed(logits: Tensor) -> Tensor:
    """Probabilities that all frames agree on: the mean of their logarithms.

    Args:
        logits: shape (T, K).

    Returns:
        Shape (K,).
    """
    return torch.softmax(torch.log_softmax(logits, dim=1).mean(dim=0), dim=0)


def _word(probabilities: Tensor, options: tuple[str, ...]) -> Word:
    best = int(probabilities.argmax())
    return Word(options[best], float(probabilities[best]))
