"""The judge's two networks, each on one of two trunks: convolutions or patches.

The first judge stands on residual convolutions, the second on a transformer over patches: they
share no layer, no weight and no seed, so that a fault of one is not a fault of the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.pocket.judge.crops import CROP_SIZE
from pipeline_lib.pocket.judge.truth_table import FRAME_WORDS, SUBJECT_WORDS
from pipeline_lib.world.vocabulary import FRAME_SIZE

Architecture = Literal["convolutions", "patches"]


def _convolution(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)
    )


class ResidualBlock(nn.Module):
    """Two convolutions beside an identity.

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return functional.relu(x + self.second(self.first(x)))


class ConvolutionTrunk(nn.Module):
    """Residual convolutions down to an eighth, merged with a quarter.

    Args:
        widths: channels at half, quarter and eighth size.
        merged: whether the eighth is laid back over the quarter (fine places) or returned alone.
    """

    def __init__(self, widths: tuple[int, int, int], merged: bool) -> None:
        super().__init__()
        self.stem = _convolution(12, widths[0])
        self.fine = nn.Sequential(_convolution(widths[0], widths[1], 2), ResidualBlock(widths[1]))
        self.coarse = nn.Sequential(_convolution(widths[1], widths[2], 2), ResidualBlock(widths[2]))
        self.merged = merged
        self.channels, self.stride, self.coarse_channels = widths[2], 8, widths[2]
        if merged:
            self.coarse.append(ResidualBlock(widths[2]))
            self.across = nn.Conv2d(widths[2], widths[1], 1)
            self.join = _convolution(widths[1], widths[1])
            self.channels, self.stride = widths[1], 4

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Features for places and features for the whole.

        Args:
            pictures: shape (N, 3, S, S), in [0, 1].

        Returns:
            Shapes (N, ``channels``, S / ``stride``, …) and (N, ``coarse_channels``, S / 8, …).
        """
        half = functional.pixel_unshuffle(pictures - 0.5, 2).contiguous(memory_format=torch.channels_last)
        quarter = self.fine(self.stem(half))
        eighth = self.coarse(quarter)
        if not self.merged:
            return eighth, eighth
        spread = functional.interpolate(self.across(eighth), scale_factor=2.0)
        return self.join(quarter + spread), eighth


class PatchTrunk(nn.Module):
    """A transformer over 8×8 patches.

    Args:
        size: width and height of a picture in pixels.
        width: numbers per patch.
        depth: blocks.
    """

    def __init__(self, size: int, width: int, depth: int) -> None:
        super().__init__()
        self.side = 8
        self.stride = size // self.side
        self.channels = self.coarse_channels = width
        self.embed = nn.Linear(3 * self.stride**2, width)
        self.place = nn.Parameter(0.02 * torch.randn(1, self.side**2, width))
        layers = [
            nn.TransformerEncoderLayer(width, 4, 3 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        ]
        self.blocks = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the patches, twice: see :meth:`ConvolutionTrunk.forward`."""
        patches = functional.pixel_unshuffle(2.0 * pictures - 1.0, self.stride).flatten(2).transpose(1, 2)
        tokens = self.embed(patches) + self.place
        for block in self.blocks:
            tokens = block(tokens)
        grid = self.norm(tokens).transpose(1, 2).unflatten(2, (self.side, self.side))
        return grid, grid


@dataclass(frozen=True)
class SceneOutput:
    """What the scene network says of frames.

    Attributes:
        grid: shape (N, 6, g, g): logit of a subject's centre, its offset from the cell's centre in
            cells (x, y), log of its scale over 16 pixels, sine and cosine of its angle.
        mask: logits of the union mask, shape (N, 64, 64).
        frame: logits per attribute of ``FRAME_WORDS``.
    """

    grid: Tensor
    mask: Tensor
    frame: dict[str, Tensor]


class SceneNetwork(nn.Module):
    """Finds subjects, their union mask, the background and the light of single frames.

    Args:
        architecture: which trunk.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.trunk: ConvolutionTrunk | PatchTrunk = (
            ConvolutionTrunk((24, 40, 80), merged=True)
            if architecture == "convolutions"
            else PatchTrunk(FRAME_SIZE, 96, 3)
        )
        self.grid = nn.Conv2d(self.trunk.channels, 6, 1)
        self.mask = nn.Conv2d(self.trunk.channels, self.trunk.stride**2, 1)
        self.frame = nn.ModuleDict(
            {name: nn.Linear(2 * self.trunk.coarse_channels, len(words)) for name, words in FRAME_WORDS.items()}
        )

    def forward(self, pictures: Tensor) -> SceneOutput:
        """Read frames.

        Args:
            pictures: shape (N, 3, 64, 64), in [0, 1].

        Returns:
            The outputs.
        """
        fine, coarse = self.trunk(pictures)
        pooled = torch.cat([coarse.mean(dim=(2, 3)), coarse.amax(dim=(2, 3))], dim=1)
        mask = functional.pixel_shuffle(self.mask(fine), self.trunk.stride)
        return SceneOutput(
            grid=self.grid(fine).float(),
            mask=mask.squeeze(1).float(),
            frame={name: head(pooled).float() for name, head in self.frame.items()},
        )


@dataclass(frozen=True)
class CropOutput:
    """What the crop network says of crops.

    Attributes:
        words: logits per attribute of ``SUBJECT_WORDS``.
        residual: shape (N, 6), see :func:`crops.residual`.
        subject: logit of there being a subject, shape (N,).
        mask: logits of this subject's mask, shape (N, 48, 48).
    """

    words: dict[str, Tensor]
    residual: Tensor
    subject: Tensor
    mask: Tensor


class CropNetwork(nn.Module):
    """Reads one upright subject crop.

    Args:
        architecture: which trunk.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.trunk: ConvolutionTrunk | PatchTrunk = (
            ConvolutionTrunk((32, 64, 112), merged=False)
            if architecture == "convolutions"
            else PatchTrunk(CROP_SIZE, 96, 3)
        )
        width, side = self.trunk.coarse_channels, CROP_SIZE // self.trunk.stride
        self.mask = nn.Conv2d(width, self.trunk.stride**2, 1)
        self.squeeze = nn.Conv2d(width, 16, 1)
        self.common = nn.Sequential(nn.Linear(16 * side**2 + width, 160), nn.ReLU())
        self.words = nn.ModuleDict({name: nn.Linear(160, len(words)) for name, words in SUBJECT_WORDS.items()})
        self.residual = nn.Linear(160, 6)
        self.subject = nn.Linear(160, 1)

    def forward(self, crops: Tensor) -> CropOutput:
        """Read crops.

        Args:
            crops: light divided out, shape (N, 3, 48, 48), in [0, 1].

        Returns:
            The outputs.
        """
        _, features = self.trunk(crops)
        mask = functional.pixel_shuffle(self.mask(features), self.trunk.stride)
        pooled = torch.cat([self.squeeze(features).flatten(1), features.mean(dim=(2, 3))], dim=1)
        common = self.common(functional.relu(pooled))
        return CropOutput(
            words={name: head(common).float() for name, head in self.words.items()},
            residual=self.residual(common).float(),
            subject=self.subject(common).squeeze(1).float(),
            mask=mask.squeeze(1).float(),
        )
