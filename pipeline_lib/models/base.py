"""The seam between the methods and any video model.

A base is a diffusers pipeline folder and a small class that knows its family. Everything above this
package speaks the verbs of :class:`BaseModel` and the data of :class:`FamilySpec`, and cannot tell a
pocket model from a real one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pipeline_lib.errors import InputError
from pipeline_lib.records import FrameRules

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from torch import Tensor, nn

    from pipeline_lib.models.economy import Economy
    from pipeline_lib.models.folder import PipelineFolder
    from pipeline_lib.models.lora_file import UsedLora


@dataclass(frozen=True, kw_only=True)
class FamilySpec:
    """What of a family is only data.

    Attributes:
        name: registry name of the family, e.g. "wan".
        frame_rules: size, frame count and frame rate that the base was trained at.
        sigma_shift: the shift of the training density of sigma (:func:`flow_matching.shift_sigma`).
        guidance_scale: default of classifier-free guidance at generation.
        sampling_steps: default number of denoising steps.
        negative_prompt: default negative prompt.
        lora_targets: suffixes of the linear layers that an adapter takes: attention q, k, v, o and
            both feed-forward linears of every block.
        cross_attention: name of the part of a block that attends to the text; empty where text and video attend to
            each other in one.
        licence: of the weights.
        temporal_factor: pixel frames per latent frame of the autoencoder.
        spatial_factor: pixels per latent cell, along each side.
        latent_channels: of the autoencoder.
        low_noise_guidance_scale: the default of a base's low-noise expert, where it has one and that differs.
        patch_embedding: path of the denoiser's convolution from latents to tokens; empty where there is none.
        self_conditioned: whether the base was pretrained with self-conditioning.
    """

    name: str
    frame_rules: FrameRules
    sigma_shift: float
    guidance_scale: float
    sampling_steps: int
    negative_prompt: str = ""
    lora_targets: tuple[str, ...] = ()
    cross_attention: str = ""
    licence: str = ""
    temporal_factor: int = 4
    spatial_factor: int = 8
    latent_channels: int = 16
    low_noise_guidance_scale: float | None = None
    patch_embedding: str = ""
    self_conditioned: bool = False

    def adapted(self, cross_attention: bool) -> tuple[str, ...]:
        """Suffixes of the linear layers that an adapter takes.

        Args:
            cross_attention: with those that attend to the text; without, what a prompt says reaches the video as in
                the base.

        Returns:
            All of `lora_targets`, or a part of them.

        Raises:
            InputError: this family has no such part.
        """
        if cross_attention:
            return self.lora_targets
        if not self.cross_attention:
            raise InputError(
                "cross_attention: false, as in the preset demo, leaves out the layers that attend to the text",
                got=f"{self.name}, whose text and video attend to each other in the same layers",
                fix="set method.settings.cross_attention=true",
            )
        return tuple(name for name in self.lora_targets if not name.startswith(f"{self.cross_attention}."))

    def latent_shape(self, num_frames: int | None = None) -> tuple[int, int, int, int]:
        """Shape (c, t, h, w) of the latents of a clip of the base's size.

        Args:
            num_frames: of the clip; None: as many as the base was trained at.

        Returns:
            Channels, frames, height and width.
        """
        rules = self.frame_rules
        frames = 1 + ((num_frames or rules.num_frames) - 1) // self.temporal_factor
        return self.latent_channels, frames, rules.height // self.spatial_factor, rules.width // self.spatial_factor


@dataclass(frozen=True)
class Conditioning:
    """Text conditioning, opaque outside the family: named tensors whose first axis is the batch."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return next(iter(self.tensors.values())).shape[0]

    @property
    def width(self) -> int:
        """Size of a token's vector: the last axis of `text`, else of the first floating tensor, in any file's order."""
        floating = {name: value for name, value in self.tensors.items() if value.is_floating_point()}
        return floating.get("text", next(iter(floating.values()))).shape[-1]

    def take(self, rows: Sequence[int] | Tensor) -> Conditioning:
        """The rows asked for, in that order; rows may repeat."""
        import torch  # late: what a folder says of itself is read without it

        index = torch.as_tensor(rows, dtype=torch.long)
        return Conditioning({name: value[index.to(value.device)] for name, value in self.tensors.items()})

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Conditioning:
        """Moved to a device; floating tensors also to a dtype when one is given."""
        return Conditioning(
            {
                name: value.to(device, dtype if dtype and value.is_floating_point() else None)
                for name, value in self.tensors.items()
            }
        )

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Joined along the batch; shorter rows are padded with zeros, which no family reads.

        All parts must have the same names.
        """
        return Conditioning({name: _joined([part.tensors[name] for part in parts]) for name in parts[0].tensors})


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    import torch

    if tensors[0].dim() < 2:
        return torch.cat(list(tensors))
    length = max(tensor.shape[1] for tensor in tensors)
    padding = [(0, 0) * (tensor.dim() - 2) + (0, length - tensor.shape[1]) for tensor in tensors]
    return torch.cat([torch.nn.functional.pad(tensor, pad) for tensor, pad in zip(tensors, padding, strict=True)])


class BaseModel(Protocol):
    """One loaded video model. Latents are always normalised, channels-first (batch, c, t, h, w)."""

    economy: Economy
    """How the denoiser is kept; changed before it is loaded."""
    loras: Sequence[UsedLora]
    """LoRA files of others that are merged into the denoiser when it is loaded."""

    @property
    def folder(self) -> PipelineFolder:
        """Its files; `digest` is of these alone, without the LoRAs."""

    @property
    def spec(self) -> FamilySpec:
        """The family's data, with this checkpoint's own frame rules."""

    @property
    def source(self) -> str:
        """Registry name, folder or hub id that it was loaded from."""

    @property
    def digest(self) -> str:
        """SHA-256 over the weight files: the base's part of every artifact key."""

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""

    @property
    def dtype(self) -> torch.dtype:
        """The transformer's dtype."""

    @property
    def text_embedding_rms(self) -> float:
        """Root mean square of the text encoder's output rows: the scale of a learned token."""

    def encode_video(self, pixels: Tensor) -> Tensor:
        """Encodes clips; the mode of the posterior, no noise.

        Args:
            pixels: (batch, 3, frames, height, width), float in [-1, 1].

        Returns:
            Normalised latents, (batch, c, t, h, w), float32, on the CPU.
        """

    def decode_video(self, latents: Tensor) -> Tensor:
        """Inverse of :meth:`encode_video`; pixels in [-1, 1], float32, on the CPU."""

    def encode_text(
        self,
        prompts: Sequence[str],
        hidden: Sequence[Sequence[int]] | None = None,
        words: Mapping[str, Tensor] | None = None,
    ) -> Conditioning:
        """Encodes prompts as the stock pipeline does, padded alike.

        Args:
            prompts: any text; "" is the unconditional prompt.
            hidden: per prompt the positions of tokens to hide: a sentinel token is put in their
                place before encoding, positions kept. None hides nothing.
            words: sentinel to the vector (text_dim,) that takes the place of its input embedding;
                differentiable in these, through the frozen encoder.

        Returns:
            One row per prompt, on the CPU, float32.
        """

    def token_embeddings(self, prompt: str) -> Tensor:
        """Input embeddings of a prompt's tokens, in the order of :meth:`token_spans`.

        (tokens, text_dim), float32, on the CPU.
        """

    def token_spans(self, prompt: str) -> list[tuple[int, int]]:
        """Character span `[start, stop)` of each token of a prompt, end-of-text token left out.

        The index in the list is the position that `hidden` of :meth:`encode_text` speaks of.
        """

    def replace_rows(
        self, conditioning: Conditioning, positions: Sequence[Sequence[int]], vector: Tensor
    ) -> Conditioning:
        """Puts one learned vector at the given token positions of each row.

        Differentiable in `vector`, shape (text_dim,). Rows with no position are unchanged.
        """

    def compact(self, conditioning: Conditioning) -> Conditioning:
        """Drops padding that :meth:`velocity` does not need; the result stands for the same text."""

    def sentinel(self, index: int) -> str:
        """A single-piece word that the tokenizer knows and no caption uses, e.g. `<extra_id_0>`."""

    def velocity(self, noisy: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """The model's velocity (`noise - clean`).

        Args:
            noisy: (batch, c, t, h, w).
            sigma: (batch,), in [0, 1].
            conditioning: as many rows as `noisy`.

        Returns:
            Same shape and dtype as `noisy`.
        """

    def blocks(self) -> Sequence[nn.Module]:
        """The repeated transformer blocks, in order."""

    def experts(self) -> Sequence[tuple[tuple[float, float], nn.Module]]:
        """Denoisers with the sigma range `[low, high]` each serves: one, or two with the high-noise one first.

        A sigma on the boundary is the high-noise expert's; :meth:`velocity` sends each sample to its own.
        """

    def set_gradient_checkpointing(self, enabled: bool, *, keep_attention: bool = False) -> None:
        """Recomputes each block's activations in the backward pass, or not.

        Args:
            enabled: whether to.
            keep_attention: all but what attention gave; see :mod:`pipeline_lib.models.recompute`.
        """

    def free_encoders(self) -> None:
        """Drops the text encoder and the autoencoder from memory; later use reloads them."""

    def pipeline(self) -> DiffusionPipeline:
        """The stock pipeline over the same weights (the adapter, if attached, included)."""
