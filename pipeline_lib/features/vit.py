"""A vision transformer from a local folder, through the stock transformers classes: DINO, or the pocket's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from pipeline_lib.errors import InputError
from pipeline_lib.features.local_network import LocalNetwork, unit

# DINO was published without a pooling layer, which transformers would fill with random weights; it is not read here.
_WITH_CLASS_TOKEN: dict[str, dict[str, bool]] = {"vit": {"add_pooling_layer": False}, "dinov2": {}}


class VitEncoder(LocalNetwork):
    """A :class:`~pipeline_lib.features.encoders.FrameEncoder`: the last class token of a vision transformer.

    Its folder holds what a `ViTModel` or a `Dinov2Model` and its image processor saved, for example a copy of
    facebook/dino-vits16. A pooling layer does not count in its digest.
    """

    kind = "vision transformer"

    def _load(self, folder: Path) -> tuple[Any, Mapping[str, Any]]:
        found = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        if found not in _WITH_CLASS_TOKEN:
            expected = " or ".join(_WITH_CLASS_TOKEN)
            raise InputError(f"{folder} holds no vision transformer with a class token", got=found, expected=expected)
        options = {"local_files_only": True, "output_loading_info": True, **_WITH_CLASS_TOKEN[found]}
        model, info = AutoModel.from_pretrained(folder, **options)
        self._processor: Any = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        return model, info

    @property
    def _image_processor(self) -> Any:
        return self._processor

    @torch.inference_mode()
    def frames(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """See :class:`~pipeline_lib.features.encoders.FrameEncoder`."""
        parts = [
            self._model(pixel_values=pixels).last_hidden_state[:, 0].float().cpu() for pixels in self._pixels(frames)
        ]
        return unit(torch.cat(parts))
