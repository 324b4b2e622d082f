"""Where and when, asked of the transformer while the base is trained.

A text-to-video transformer of Wan's kind has relative rotary places alone. Which frame of the clip a token belongs to
stands in nothing that it is given; it can be found out only from what lies at the clip's ends, and the velocity hardly
asks for it. Without it *left* and *right* mean nothing while a direction is still open: a subject that is on the right
in some frame goes either way, unless one knows which end is the start. So every token is asked for its frame, and every
frame for its subjects' poses. What that brought is told in README.md.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline_lib.pocket.judge.truth_table import MOST_SUBJECTS, poses
from pipeline_lib.pocket.world_settings import SIZE
from pipeline_lib.world.scene import Scene

POSE_NUMBERS = 6
"""A pose here: place across and down, log size, sine and cosine of the turn, log stretch, each about one in spread."""
HALF = SIZE / 2.0
_USUAL_SIZE = 15.0
# Rows and columns are known after two blocks; poses need what the text says, and what is left to draw needs poses.
_FRAME_BLOCK, _POSE_BLOCK = 1, 4


def subject_poses(scene: Scene) -> npt.NDArray[np.float32]:
    """Poses of a scene's subjects, in numbers of about the same spread.

    Args:
        scene: the scene.

    Returns:
        Shape (T, 2, 6), NaN where there is no such subject.
    """
    across, down, size, turn, stretch = np.moveaxis(poses(scene), -1, 0)
    columns = (
        2.0 * (across / HALF - 1.0),
        6.0 * (down / HALF - 1.0),
        4.5 * (size - np.log(_USUAL_SIZE)),
        2.0 * np.sin(turn),
        2.0 * np.cos(turn),
        10.0 * stretch,
    )
    return np.stack(columns, axis=-1).astype(np.float32)


def in_pixels(asked: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The poses that :func:`subject_poses` put into numbers of one spread.

    Args:
        asked: shape (..., 6).

    Returns:
        Places across and down and half heights in pixels, turns in radians, log stretch, shape (...) each.
    """
    across, down, size, sine, cosine, stretch = asked.unbind(-1)
    return (
        HALF * (across / 2.0 + 1.0),
        HALF * (down / 6.0 + 1.0),
        _USUAL_SIZE * torch.exp(size / 4.5),
        torch.atan2(sine, cosine),
        stretch / 10.0,
    )


class PlaceHeads(nn.Module):
    """Linear readings of a token's frame and of a frame's poses from the hidden states of a transformer.

    Args:
        blocks: of a ``WanTransformer3DModel``; hidden states of the forward pass in progress are kept.
        width: of the hidden states.
        frames: of a whole clip.
    """

    def __init__(self, blocks: nn.ModuleList, width: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.frame_head = nn.Linear(width, frames)
        self.pose_head = nn.Linear(width, MOST_SUBJECTS * POSE_NUMBERS)
        self._seen: dict[str, Tensor] = {}
        for name, place in (("frame", _FRAME_BLOCK), ("pose", _POSE_BLOCK)):
            blocks[place].register_forward_hook(self._keep(name))

    def _keep(self, name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_block: nn.Module, _inputs: object, output: Tensor) -> None:
            self._seen[name] = output

        return hook

    def forward(self, asked: Tensor) -> tuple[Tensor | None, Tensor]:
        """Losses of the forward pass that was just made.

        Args:
            asked: of :func:`subject_poses`, shape (B, T, 2, 6).

        Returns:
            Cross-entropy of the frames, None unless the clip is whole, and mean squared error of the poses.
        """
        seen, tokens = self._seen.pop("frame"), self._seen.pop("pose")
        count = asked.shape[1]
        read = self.pose_head(tokens.float().unflatten(1, (count, -1)).mean(dim=2))
        known = ~asked.isnan()
        errors = (read.unflatten(-1, (MOST_SUBJECTS, POSE_NUMBERS)) - asked.nan_to_num()).square() * known
        pose_loss = errors.sum() / known.sum().clamp_min(1)
        if count != self.frames:
            return None, pose_loss
        logits = self.frame_head(seen.float()).flatten(0, 1)
        places = torch.arange(count).repeat_interleave(seen.shape[1] // count).repeat(len(asked))
        return nn.functional.cross_entropy(logits, places), pose_loss
