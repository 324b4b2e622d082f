"""A vision transformer from a local folder, through the stock transformers classes: DINO, or the pocket's own."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from pipeline_lib.errors import InputError
from pipeline_lib.features.image_text import pixel_batches, preprocessing_id, unit, weights_digest

# DINO was published without a pooling layer, which transformers would fill with random weights; it is not read here.
_WITH_CLASS_TOKEN: dict[str, dict[str, bool]] = {"vit": {"add_pooling_layer": False}, "dinov2": {}}


class VitEncoder:
    """A :class:`~pipeline_lib.features.encoders.FrameEncoder`: the last class token of a vision transformer.

    Args:
        folder: a folder that a `ViTModel` (or `Dinov2Model`) and its image processor saved, for example a copy of
            facebook/dino-vits16; never downloaded.
        name: the id that scores carry; the folder's name when not given.
        device: where the network runs.
        batch_size: frames per forward pass.

    Raises:
        InputError: the folder is missing or holds no vision transformer.
    """

    def __init__(self, folder: Path | str, *, name: str = "", device: str = "cpu", batch_size: int = 32) -> None:
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise InputError(
                f"no vision transformer in {folder}",
                expected="a folder with config.json, weights and image processor",
                fix="download the encoder first and give its folder",
            )
        model, self._processor = _load(folder)
        self._model = model.float().eval().to(device)
        self.name = name or folder.name
        self._device = device
        self._batch_size = batch_size

    @cached_property
    def digest(self) -> str:
        """See :class:`~pipeline_lib.features.encoders.FrameEncoder`; a pooling layer does not count."""
        return weights_digest(self._model.state_dict())

    @cached_property
    def preprocessing(self) -> str:
        """See :class:`~pipeline_lib.features.encoders.FrameEncoder`."""
        return preprocessing_id(self._processor.to_dict())

    @torch.inference_mode()
    def frames(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """See :class:`~pipeline_lib.features.encoders.FrameEncoder`."""
        parts = [
            self._model(pixel_values=pixels.to(self._device)).last_hidden_state[:, 0].float().cpu()
            for pixels in pixel_batches(self._processor, frames, self._batch_size)
        ]
        return unit(torch.cat(parts))


def _load(folder: Path) -> tuple[Any, Any]:
    try:
        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        options = _WITH_CLASS_TOKEN.get(kind)
        if options is not None:
            model, info = AutoModel.from_pretrained(folder, local_files_only=True, output_loading_info=True, **options)
            processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder} cannot be loaded as a vision transformer", got=str(error)) from error
    if options is None:
        expected = " or ".join(_WITH_CLASS_TOKEN)
        raise InputError(f"{folder} holds no vision transformer with a class token", got=kind, expected=expected)
    # transformers fills weights that it does not find with random ones; a score over those would be noise.
    missing = sorted(map(str, info["missing_keys"]))
    if missing or info.get("mismatched_keys"):
        raise InputError(f"{folder} lacks weights of a vision transformer", got=f"no {', '.join(missing[:3])}")
    return model, processor
