"""CLIP from a local folder, through the stock transformers classes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPModel, CLIPProcessor

from pipeline_lib.errors import InputError

_PLACEHOLDER = re.compile(r"\{[^{}]*\}|<[^<>]*>|\[[^\[\]]*\]")


class ClipEncoder:
    """An :class:`~pipeline_lib.features.encoders.ImageTextEncoder` over a `CLIPModel`.

    Args:
        folder: a folder that `CLIPModel` and `CLIPProcessor` saved; never downloaded.
        name: the id that scores carry; the folder's name when not given.
        device: where the network runs.
        batch_size: frames per forward pass.

    Raises:
        InputError: the folder is missing or holds no CLIP model.
    """

    def __init__(self, folder: Path | str, *, name: str = "", device: str = "cpu", batch_size: int = 32) -> None:
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise InputError(
                f"no CLIP model in {folder}",
                expected="a folder with config.json, weights, tokenizer and image processor",
                fix="download the encoder first and give its folder",
            )
        model, self._processor = _load(folder)
        self._model = model.float().eval().to(device)
        self.name = name or folder.name
        self._device = device
        self._batch_size = batch_size

    @cached_property
    def digest(self) -> str:
        """See :class:`~pipeline_lib.features.encoders.FrameEncoder`."""
        return weights_digest(self._model.state_dict())

    @cached_property
    def preprocessing(self) -> str:
        """See :class:`~pipeline_lib.features.encoders.FrameEncoder`."""
        return preprocessing_id(self._processor.image_processor.to_dict())

    @torch.inference_mode()
    def frames(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """See :class:`~pipeline_lib.features.encoders.FrameEncoder`."""
        parts = [
            _projected(self._model.get_image_features(pixel_values=pixels.to(self._device)))
            for pixels in pixel_batches(self._processor.image_processor, frames, self._batch_size)
        ]
        return unit(torch.cat(parts))

    @torch.inference_mode()
    def text(self, text: str) -> torch.Tensor:
        """See :class:`~pipeline_lib.features.encoders.ImageTextEncoder`."""
        limit = self._text_limit
        tokens = self._processor.tokenizer([text], truncation=True, max_length=limit, return_tensors="pt")
        features = self._model.get_text_features(
            input_ids=tokens["input_ids"].to(self._device), attention_mask=tokens["attention_mask"].to(self._device)
        )
        return unit(_projected(features))[0]

    def text_fits(self, text: str) -> bool:
        """See :class:`~pipeline_lib.features.encoders.ImageTextEncoder`."""
        return len(self._processor.tokenizer(text, truncation=False, verbose=False)["input_ids"]) <= self._text_limit

    @property
    def _text_limit(self) -> int:
        # A tokenizer saved without a limit says 1e30; the position table is the network's own.
        return min(
            int(self._processor.tokenizer.model_max_length), self._model.config.text_config.max_position_embeddings
        )


def _load(folder: Path) -> tuple[Any, Any]:
    try:
        model, info = CLIPModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder} cannot be loaded as a CLIP model", got=str(error)) from error
    # transformers fills weights that it does not find with random ones; a score over those would be noise.
    if info["missing_keys"] or info.get("mismatched_keys"):
        missing = ", ".join(sorted(map(str, info["missing_keys"]))[:3])
        raise InputError(f"{folder} lacks weights of a CLIP model", got=f"no {missing}")
    return model, processor


def plain_prompt(text: str) -> str:
    """A prompt without its placeholders (`{subject}`, `<token>`, `[v1]`), for encoders that cannot know them."""
    return re.sub(r"\s+([,.;:])", r"\1", " ".join(_PLACEHOLDER.sub(" ", text).split())).strip(" ,;")


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


def _projected(features: Any) -> torch.Tensor:
    # transformers < 5 returns the projected tensor; 5 returns an output object whose pooler_output is projected.
    tensor = features if isinstance(features, torch.Tensor) else features.pooler_output
    return tensor.float().cpu()


def pixel_batches(processor: Any, frames: NDArray[np.uint8], batch_size: int) -> Iterator[torch.Tensor]:
    """What an image processor makes of frames.

    Args:
        processor: an image processor of transformers.
        frames: (T, H, W, 3), RGB.
        batch_size: frames at a time.

    Yields:
        float32 (B, 3, h, w), in order.
    """
    assert frames.ndim == 4 and frames.shape[-1] == 3 and frames.dtype == np.uint8, (frames.shape, frames.dtype)
    for start in range(0, len(frames), batch_size):
        batch = list(frames[start : start + batch_size])
        yield processor(images=batch, return_tensors="pt", input_data_format="channels_last")["pixel_values"]


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors (..., d) at length 1."""
    return torch.nn.functional.normalize(vectors, dim=-1)
