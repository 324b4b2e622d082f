"""A segmenter over any CLIPSeg folder: words in, one mask a frame out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import AutoProcessor, CLIPSegForImageSegmentation

from pipeline_lib.errors import InputError
from pipeline_lib.masks.track import MaskTrack


class ClipSegSegmenter:
    """Masks by CLIPSeg (Lüddecke and Ecker, CVPR 2022), each frame on its own.

    Args:
        model_folder: a transformers folder with model and processor.
        device: where the model runs.
        dtype: of its weights.
        threshold: a pixel belongs to the subject from this probability on.
        batch: frames in a forward pass.

    Raises:
        InputError: the folder holds no such model.
    """

    def __init__(
        self,
        model_folder: Path,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        threshold: float = 0.5,
        batch: int = 16,
    ) -> None:
        try:
            self._processor: Any = AutoProcessor.from_pretrained(
                model_folder, local_files_only=True, trust_remote_code=False
            )
            model: Any = CLIPSegForImageSegmentation.from_pretrained(
                model_folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{model_folder} holds no segmenter that can be loaded",
                got=str(error).splitlines()[0][:200],
                expected="a transformers folder of a CLIPSeg model with its processor",
                fix="fetch the whole folder, or give your own masks",
            ) from error
        self._model: Any = model.to(device).eval()
        self._device, self._threshold, self._batch = device, threshold, batch
        self.name = f"clipseg:{Path(model_folder).name}"

    def segment(self, frames: NDArray[np.uint8], noun: str) -> MaskTrack:
        """See :class:`~pipeline_lib.masks.segmenter.Segmenter`."""
        shares = torch.cat(
            [self._shares(frames[start : start + self._batch], noun) for start in range(0, len(frames), self._batch)]
        )
        track = MaskTrack((shares >= self._threshold).float().numpy())
        if len(track.empty_frames()) == len(frames):
            raise InputError(
                f"{self.name} finds no {noun!r} in any frame",
                fix="say what to look for with --set mask.subject='…', give your own masks, or train without masks",
            )
        return track

    @torch.inference_mode()
    def _shares(self, frames: NDArray[np.uint8], noun: str) -> Tensor:
        """Probability of the subject at each pixel of some frames, on the CPU."""
        inputs = self._processor(
            text=[noun] * len(frames),
            images=[np.ascontiguousarray(frame) for frame in frames],
            padding=True,
            truncation=True,
            return_tensors="pt",
        ).to(self._device)
        pixels = inputs.pop("pixel_values").to(self._model.dtype)
        logits = self._model(pixel_values=pixels, **inputs).logits.float()
        # One picture alone comes back without its batch axis in some versions.
        logits = logits.reshape(len(frames), 1, *logits.shape[-2:])
        size = frames.shape[1:3]
        fitted = functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return torch.sigmoid(fitted[:, 0]).cpu()
