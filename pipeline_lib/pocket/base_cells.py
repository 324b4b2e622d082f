"""What lies in each cell of the latents, asked of the transformer while the base is trained.

A velocity loss hardly ever has to know that the cell a subject left is the cell that it entered: what stands still is
put together from all frames within its own cell, what moves is not. So every token is asked how much of each of its
cells is a subject's, where on that subject's upright body the cell lies, which of two subjects it is, and what the
caption calls it. Two cells of one part of a body then look alike to attention, wherever and however turned they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline_lib.pocket.base_places import in_pixels
from pipeline_lib.pocket.base_words import SUBJECT_SIZES, UNKNOWN

_BLOCK = 3
_PATCH = 2
_CELL = 8.0  # pixels
_FURTHEST = 1.5  # in half heights; hats and balloons end about there
_NUMBERS = 4  # occupancy, across and down on the body, which subject


def on_bodies(asked: Tensor, side: int) -> Tensor:
    """Where on each subject's upright, unstretched body the cells of a frame lie.

    Args:
        asked: of :func:`~pipeline_lib.pocket.base_places.subject_poses`, shape (..., 2, 6).
        side: cells across and down.

    Returns:
        To the right and down in half heights of the subject, shape (..., 2, side, side, 2); NaN where there is no such
        subject.
    """
    across, down, scale, turn, stretch = (value[..., None, None] for value in in_pixels(asked))
    axis = (torch.arange(side) + 0.5) * _CELL
    dx, dy = axis - across, axis[:, None] - down
    wide, tall = scale * torch.exp(-0.5 * stretch), scale * torch.exp(0.5 * stretch)
    x = (dx * torch.cos(turn) + dy * torch.sin(turn)) / wide
    y = (dy * torch.cos(turn) - dx * torch.sin(turn)) / tall
    return torch.stack(torch.broadcast_tensors(x, y), dim=-1)


def _tokens(cells: Tensor) -> Tensor:
    """(B, T, h, w, ...) to (B, tokens, cells of a token, ...), in the order of Wan's patches."""
    batch, frames, height, width = cells.shape[:4]
    split = cells.reshape(batch, frames, height // _PATCH, _PATCH, width // _PATCH, _PATCH, *cells.shape[4:])
    ordered = split.transpose(3, 4)
    return ordered.reshape(batch, frames * height * width // _PATCH**2, _PATCH**2, *cells.shape[4:])


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp_min(1.0)


class CellHeads(nn.Module):
    """Linear readings of a token's cells from the hidden states of a transformer.

    Args:
        blocks: of a ``WanTransformer3DModel``; hidden states of the forward pass in progress are kept.
        width: of the hidden states.
    """

    def __init__(self, blocks: nn.ModuleList, width: int) -> None:
        super().__init__()
        self.place_head = nn.Linear(width, _PATCH**2 * _NUMBERS)
        self.word_head = nn.Linear(width, sum(SUBJECT_SIZES))
        self._seen: list[Tensor] = []
        blocks[_BLOCK].register_forward_hook(self._keep)

    def _keep(self, _block: nn.Module, _inputs: object, output: Tensor) -> None:
        self._seen = [output]

    def forward(self, poses: Tensor, occupancy: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of the forward pass that was just made.

        Args:
            poses: of :func:`~pipeline_lib.pocket.base_places.subject_poses`, shape (B, T, 2, 6).
            occupancy: share of subject pixels, shape (B, 1, T, h, w).
            words: of :func:`~pipeline_lib.pocket.base_words.answers`, one row per sample, shape (B, QUESTIONS).

        Returns:
            Of the places (occupancy, body, side) and of the words of the subject that a token shows.
        """
        hidden = self._seen.pop().float()
        bodies = on_bodies(poses, occupancy.shape[-1])
        distance = bodies.square().sum(-1).nan_to_num(nan=torch.inf)
        second = distance[:, :, 1] < distance[:, :, 0]
        body = torch.where(second[..., None], bodies[:, :, 1], bodies[:, :, 0])
        body = body.nan_to_num().clamp(-_FURTHEST, _FURTHEST)
        share, body, second = _tokens(occupancy[:, 0]), _tokens(body), _tokens(second)
        read = self.place_head(hidden).unflatten(-1, (_PATCH**2, _NUMBERS))
        pair = ~poses[:, :1, 1, :1].isnan()
        places = (
            nn.functional.binary_cross_entropy_with_logits(read[..., 0], share)
            + _mean((read[..., 1:3] - body).square().sum(-1), share)
            + _mean(
                nn.functional.binary_cross_entropy_with_logits(read[..., 3], second.float(), reduction="none"),
                share * pair,
            )
        )
        shows = ((second * share).sum(-1) > 0.5 * share.sum(-1)).long()
        return places, self._words(hidden, share.sum(-1), shows, words)

    def _words(self, hidden: Tensor, share: Tensor, shows: Tensor, words: Tensor) -> Tensor:
        """Cross-entropy of the words of the shown subject, the mean over questions.

        Args:
            hidden: shape (B, tokens, width).
            share: how much of each token is a subject, shape (B, tokens).
            shows: which subject, shape (B, tokens).
            words: shape (B, QUESTIONS).

        Returns:
            Scalar.
        """
        kinds = len(SUBJECT_SIZES)
        of_both = words[:, : 2 * kinds].unflatten(1, (2, kinds))
        asked = torch.take_along_dim(of_both, shows[..., None], dim=1)
        total = hidden.new_zeros(())
        for logits, answer in zip(self.word_head(hidden).split(SUBJECT_SIZES, dim=-1), asked.unbind(-1), strict=True):
            errors = nn.functional.cross_entropy(logits.transpose(1, 2), answer, ignore_index=UNKNOWN, reduction="none")
            total = total + _mean(errors, share * (answer != UNKNOWN))
        return total / kinds
