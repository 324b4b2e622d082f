"""Wan 2.2 T2V-A14B: one denoiser for high noise and one for low noise, chosen by the time step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import WanPipeline
from torch import Tensor, nn

from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.models.wan import WanBase
from pipeline_lib.models.wan_attention import CollapsedPadding


class WanExperts(WanBase):
    """A Wan text-to-video base with two experts.

    As in the stock pipeline (`pipelines/wan/pipeline_wan.py`, `WanPipeline.__call__`), `transformer` serves the
    time steps from `boundary_ratio * num_train_timesteps` on, the boundary included, and `transformer_2` those
    below.

    Args:
        folder: the diffusers folder, with `transformer_2` and `boundary_ratio`.
        source: what the user asked for.
        device: where all parts go.
        dtype: of the denoisers and the text encoder.
    """

    def __init__(self, folder: PipelineFolder, source: str, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(folder, source, device, dtype)
        self.boundary_ratio = float(folder.index["boundary_ratio"])
        self._low_noise_padding: CollapsedPadding | None = None

    @property
    def low_noise_transformer(self) -> Any:
        """The denoiser below the boundary, a `WanTransformer3DModel`."""
        return self.low_noise_padding.transformer

    @property
    def low_noise_padding(self) -> CollapsedPadding:
        """As :attr:`padding`, of the low-noise denoiser."""
        if self._low_noise_padding is None:
            self._low_noise_padding = self._collapsed("transformer_2")
        return self._low_noise_padding

    def experts(self) -> Sequence[tuple[tuple[float, float], nn.Module]]:
        """The high-noise expert first."""
        ratio = self.boundary_ratio
        return [((ratio, 1.0), self.transformer), ((0.0, ratio), self.low_noise_transformer)]

    def set_gradient_checkpointing(self, enabled: bool, *, keep_attention: bool = False) -> None:
        """Of both experts."""
        self.padding.set_gradient_checkpointing(enabled, keep_attention=keep_attention)
        self.low_noise_padding.set_gradient_checkpointing(enabled, keep_attention=keep_attention)

    def pipeline(self) -> WanPipeline:
        """The stock pipeline over the same modules, with a scheduler of its own."""
        return WanPipeline(
            tokenizer=self._tokenizer,
            text_encoder=self._text_encoder,
            vae=self._vae,
            scheduler=self._fresh_scheduler(),
            transformer=self.transformer,
            transformer_2=self.low_noise_transformer,
            boundary_ratio=self.boundary_ratio,
            expand_timesteps=bool(self._folder.index.get("expand_timesteps", False)),
        )

    def _denoise(self, noisy: Tensor, timestep: Tensor, text: Tensor, lengths: Tensor) -> Tensor:
        # On the host, where training leaves its sigmas, this waits for no device.
        high = timestep >= self.boundary_ratio * self._scheduler.config.num_train_timesteps
        steps = timestep.to(noisy.device)
        order, parts = [], []
        for padding, mine in ((self.padding, high), (self.low_noise_padding, ~high)):
            rows = mine.nonzero().flatten()
            if len(rows) == len(noisy):
                return padding.velocity(noisy, steps, text, lengths)
            if len(rows):
                order.append(rows)
                parts.append(padding.velocity(noisy[rows], steps[rows], text[rows], lengths[rows]))
        return torch.cat(parts)[torch.cat(order).argsort()]


def open_wan(folder: PipelineFolder, source: str, device: torch.device, dtype: torch.dtype) -> WanBase:
    """The base of a Wan folder, with one expert or two."""
    kind = WanExperts if "transformer_2" in folder.parts else WanBase
    return kind(folder, source, device, dtype)
