"""What encoders from a local folder share: how they are opened, named and traced, and how frames reach them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline_lib.errors import InputError


class LocalNetwork(ABC):
    """A transformers network in a folder, frozen; never downloaded.

    Args:
        folder: where network and image processor were saved.
        name: the id that scores carry; the folder's name when not given.
        device: where the network runs.
        batch_size: frames per forward pass.

    Attributes:
        kind: what it is, for messages.
        name: see the arguments.

    Raises:
        InputError: the folder is missing or holds no such network.
    """

    kind: ClassVar[str]

    def __init__(self, folder: Path | str, *, name: str = "", device: str = "cpu", batch_size: int = 32) -> None:
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise InputError(
                f"no {self.kind} in {folder}",
                expected="a folder with config.json, weights and processor",
                fix="download the encoder first and give its folder",
            )
        try:
            model, info = self._load(folder)
        except InputError:
            raise
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{folder} cannot be loaded as a {self.kind}", got=str(error)) from error
        self._require_all(folder, info)
        self._model = model.float().eval().to(device)
        self.name = name or folder.name
        self._device = device
        self._batch_size = batch_size

    @abstractmethod
    def _load(self, folder: Path) -> tuple[Any, Mapping[str, Any]]:
        """Opens the folder; returns the network and transformers' loading info, keeps the processor."""

    @property
    @abstractmethod
    def _image_processor(self) -> Any:
        """The image processor, of transformers."""

    def _require_all(self, folder: Path, info: Mapping[str, Any]) -> None:
        # transformers fills weights that it does not find with random ones; a score over those would be noise.
        missing = sorted(map(str, info["missing_keys"]))
        if missing or info.get("mismatched_keys"):
            raise InputError(f"{folder} lacks weights of a {self.kind}", got=f"no {', '.join(missing[:3])}")

    @cached_property
    def digest(self) -> str:
        """See :class:`~pipeline_lib.features.encoders.FrameEncoder`."""
        return weights_digest(self._model.state_dict())

    @cached_property
    def preprocessing(self) -> str:
        """See :class:`~pipeline_lib.features.encoders.FrameEncoder`."""
        return preprocessing_id(self._image_processor.to_dict())

    def _pixels(self, frames: NDArray[np.uint8]) -> Iterator[torch.Tensor]:
        """Batches (B, 3, h, w) float32 on the network's device, in order, of frames (T, H, W, 3) RGB."""
        assert frames.ndim == 4 and frames.shape[-1] == 3 and frames.dtype == np.uint8, (frames.shape, frames.dtype)
        for start in range(0, len(frames), self._batch_size):
            batch = list(frames[start : start + self._batch_size])
            made = self._image_processor(images=batch, return_tensors="pt", input_data_format="channels_last")
            yield made["pixel_values"].to(self._device)


def weights_digest(weights: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def preprocessing_id(settings: dict[str, Any]) -> str:
    """A readable id of an image processor's settings, e.g. `resize 224 bicubic, crop 224x224, #1a2b3c4d`.

    The digits after `#` are a digest of all settings that act on pixels.

    Args:
        settings: the image processor's `to_dict()`.

    Returns:
        The id; equal for settings that treat pixels alike.
    """
    acting = {key: settings.get(key) for key in _ACTING_SETTINGS}
    digest = hashlib.sha256(repr(sorted(acting.items())).encode()).hexdigest()[:8]
    parts = []
    if acting["do_resize"]:
        size = dict(acting["size"] or {})
        side = size.get("shortest_edge") or f"{size.get('height')}x{size.get('width')}"
        parts.append(f"resize {side} {_RESAMPLING.get(int(acting['resample'] or 0), 'other')}")
    if acting["do_center_crop"]:
        crop = dict(acting["crop_size"] or {})
        parts.append(f"crop {crop.get('height')}x{crop.get('width')}")
    return ", ".join([*parts, f"#{digest}"])


_ACTING_SETTINGS = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor",
    "do_normalize", "image_mean", "image_std", "do_pad", "pad_size", "do_convert_rgb",
)  # fmt: skip
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors (..., d) at length 1."""
    return torch.nn.functional.normalize(vectors, dim=-1)
