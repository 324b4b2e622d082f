"""CLIP from a local folder, through the stock transformers classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPModel, CLIPProcessor

from pipeline_lib.features.local_network import LocalNetwork, unit

_PLACEHOLDER = re.compile(r"\{[^{}]*\}|<[^<>]*>|\[[^\[\]]*\]")


class ClipEncoder(LocalNetwork):
    """An :class:`~pipeline_lib.features.encoders.ImageTextEncoder` over a folder of `CLIPModel` and `CLIPProcessor`."""

    kind = "CLIP model"

    def _load(self, folder: Path) -> tuple[Any, Mapping[str, Any]]:
        model, info = CLIPModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        self._processor: Any = CLIPProcessor.from_pretrained(folder, local_files_only=True)
        return model, info

    @property
    def _image_processor(self) -> Any:
        return self._processor.image_processor

    @torch.inference_mode()
    def frames(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """See :class:`~pipeline_lib.features.encoders.FrameEncoder`."""
        parts = [_projected(self._model.get_image_features(pixel_values=pixels)) for pixels in self._pixels(frames)]
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


def plain_prompt(text: str) -> str:
    """A prompt without its placeholders (`{subject}`, `<token>`, `[v1]`), for encoders that cannot know them."""
    return re.sub(r"\s+([,.;:])", r"\1", " ".join(_PLACEHOLDER.sub(" ", text).split())).strip(" ,;")


def _projected(features: Any) -> torch.Tensor:
    # transformers < 5 returns the projected tensor; 5 returns an output object whose pooler_output is projected.
    tensor = features if isinstance(features, torch.Tensor) else features.pooler_output
    return tensor.float().cpu()
