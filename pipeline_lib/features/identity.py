"""Who a subject is: a small convolutional embedder of subject crops."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from pipeline_lib.errors import InputError
from pipeline_lib.features.local_network import unit, weights_digest
from pipeline_lib.storage import write_atomic
from pipeline_lib.storage.tensors import read_tensors, save_tensors

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"
_MARGIN = 0.08
"""How much wider than the mask's box a crop is, on each side, as a share of the box."""


@dataclass(frozen=True, kw_only=True)
class IdentityConfig:
    """Shape of an identity network; `config.json` beside its weights.

    Attributes:
        crop_size: width and height of a crop in pixels, a multiple of 8.
        widths: channels at half, quarter and eighth size.
        embedding: numbers of an embedding.
        threshold: cosine above which two subjects count as the same one, at a false-accept rate of 1 %; 0 when it
            has not been measured.
    """

    crop_size: int = 40
    widths: tuple[int, int, int] = (24, 56, 112)
    embedding: int = 64
    threshold: float = 0.0


def _convolution(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(width, width), _convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(functional.relu(self.first(x))))


class IdentityNetwork(nn.Module):
    """Residual convolutions down to an eighth, then one linear map.

    Args:
        config: its shape.
    """

    def __init__(self, config: IdentityConfig) -> None:
        super().__init__()
        half, quarter, eighth = config.widths
        self.trunk = nn.Sequential(
            nn.PixelUnshuffle(2),
            _convolution(12, half),
            nn.ReLU(),
            _convolution(half, quarter, 2),
            nn.ReLU(),
            _Residual(quarter),
            _convolution(quarter, eighth, 2),
            nn.ReLU(),
            _Residual(eighth),
            _Residual(eighth),
        )
        cells = (config.crop_size // 8) ** 2
        self.squeeze = nn.Conv2d(eighth, 32, 1)
        self.embedding = nn.Linear(32 * cells + eighth, config.embedding)

    def forward(self, crops: Tensor) -> Tensor:
        """Embed crops.

        Args:
            crops: RGB in [-0.5, 0.5], 0 around the subject, shape (N, 3, S, S).

        Returns:
            Unit vectors, shape (N, D).
        """
        features = self.trunk(crops.contiguous(memory_format=torch.channels_last))
        told = torch.cat([functional.relu(self.squeeze(features)).flatten(1), features.mean(dim=(2, 3))], dim=1)
        return functional.normalize(self.embedding(told).float(), dim=1)


def subject_boxes(masks: Tensor) -> Tensor:
    """Square boxes around masks, a little wider.

    Args:
        masks: (N, H, W) in [0, 1].

    Returns:
        (N, 4): left, top, right, bottom in pixels, perhaps beyond the frame; NaN where a mask is empty.
    """
    inside = masks > 0.5
    ends = []
    for axis, length in ((1, masks.shape[2]), (2, masks.shape[1])):
        there = inside.any(dim=axis)
        place = torch.arange(length, device=masks.device)
        first = torch.where(there, place, length).amin(dim=1)
        last = torch.where(there, place, -1).amax(dim=1) + 1
        ends.append((first.float(), last.float()))
    (left, right), (top, bottom) = ends
    half = torch.maximum(right - left, bottom - top) * (0.5 + _MARGIN)
    x, y = (left + right) / 2, (top + bottom) / 2
    boxes = torch.stack([x - half, y - half, x + half, y + half], dim=1)
    return torch.where(inside.any(dim=2).any(dim=1)[:, None], boxes, torch.nan)


def whole_boxes(count: int, height: int, width: int) -> Tensor:
    """The smallest square around a whole frame, `count` times: shape (count, 4)."""
    half, x, y = max(height, width) / 2, width / 2, height / 2
    return torch.tensor([[x - half, y - half, x + half, y + half]]).expand(count, 4).contiguous()


def subject_crops(pictures: Tensor, masks: Tensor | None, boxes: Tensor, size: int) -> Tensor:
    """Cut subjects out, everything else and what is beyond the frame becomes grey.

    Args:
        pictures: RGB in [0, 1], shape (N, 3, H, W).
        masks: (N, H, W) in [0, 1]; None keeps what is around the subject.
        boxes: shape (N, 4), see :func:`subject_boxes`.
        size: width and height of a crop.

    Returns:
        What :class:`IdentityNetwork` takes, shape (N, 3, size, size).
    """
    centred = pictures - 0.5
    if masks is not None:
        centred = centred * masks[:, None]
    places = torch.cat([torch.arange(len(boxes), device=boxes.device)[:, None].to(boxes), boxes], dim=1)
    return roi_align(centred, places, (size, size), aligned=True)


class CropIdentityEncoder:
    """An :class:`~pipeline_lib.features.encoders.IdentityEncoder` over an :class:`IdentityNetwork`.

    Args:
        folder: what :func:`save_identity` wrote.
        name: the id that scores carry; the folder's name when not given.
        device: where the network runs.
        batch_size: frames per forward pass.

    Raises:
        InputError: the folder is missing or holds no identity network.
    """

    def __init__(self, folder: Path | str, *, name: str = "", device: str = "cpu", batch_size: int = 64) -> None:
        folder = Path(folder)
        self.config, self._network = load_identity(folder)
        self._network.to(device)
        self.name = name or folder.name
        self._device, self._batch_size = device, batch_size

    @cached_property
    def digest(self) -> str:
        """See :class:`~pipeline_lib.features.encoders.IdentityEncoder`."""
        return weights_digest(self._network.state_dict())

    @property
    def preprocessing(self) -> str:
        """See :class:`~pipeline_lib.features.encoders.IdentityEncoder`."""
        size = self.config.crop_size
        return f"mask on grey, square box + {_MARGIN:.0%}, roi_align {size}x{size}"

    @torch.inference_mode()
    def subjects(self, frames: NDArray[np.uint8], masks: NDArray[np.float32] | None) -> Tensor:
        """See :class:`~pipeline_lib.features.encoders.IdentityEncoder`."""
        assert frames.ndim == 4 and frames.shape[-1] == 3 and frames.dtype == np.uint8, (frames.shape, frames.dtype)
        assert masks is None or masks.shape == frames.shape[:3], (masks.shape, frames.shape)
        parts = []
        for start in range(0, len(frames), self._batch_size):
            place = slice(start, start + self._batch_size)
            parts.append(self._embedded(frames[place], None if masks is None else masks[place]))
        return torch.cat(parts)

    def _embedded(self, frames: NDArray[np.uint8], masks: NDArray[np.float32] | None) -> Tensor:
        pictures = torch.from_numpy(frames).to(self._device).permute(0, 3, 1, 2).float() / 255.0
        shown = None if masks is None else torch.from_numpy(masks).to(self._device).float()
        boxes = whole_boxes(len(frames), *frames.shape[1:3]).to(self._device) if shown is None else subject_boxes(shown)
        there = ~boxes[:, 0].isnan()
        told = torch.full((len(frames), self.config.embedding), torch.nan)
        if there.any():
            kept = None if shown is None else shown[there]
            crops = subject_crops(pictures[there], kept, boxes[there], self.config.crop_size)
            told[there.cpu()] = unit(self._network(crops).float().cpu())
        return told


def save_identity(folder: Path, config: IdentityConfig, weights: Mapping[str, Tensor]) -> None:
    """Write a network in half precision, with its config.

    Args:
        folder: made when missing.
        config: shape and threshold.
        weights: its state dict.
    """
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    save_tensors(folder / _WEIGHTS, half)
    write_atomic(folder / _CONFIG, json.dumps(asdict(config), indent=1))


def load_identity(folder: Path) -> tuple[IdentityConfig, IdentityNetwork]:
    """Read what :func:`save_identity` wrote.

    Args:
        folder: the folder.

    Returns:
        Config and network, in fp32, ready to be called.

    Raises:
        InputError: no such files, or they do not fit together.
    """
    try:
        told = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        config = IdentityConfig(**{**told, "widths": tuple(told["widths"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"no identity encoder in {folder}", got=str(error), expected="config.json and weights"
        ) from error
    weights, _ = read_tensors(folder / _WEIGHTS)
    network = IdentityNetwork(config)
    try:
        network.load_state_dict(
            {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
        )
    except RuntimeError as error:
        raise InputError(f"{folder}: weights and config do not fit together", got=str(error)) from error
    return config, network.eval()
