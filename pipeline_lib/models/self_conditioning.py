"""Self-conditioning: the model sees its own estimate of the clean latents beside the noisy ones.

Chen et al. 2023 (Bit Diffusion), as FIT and Set-and-Sequence use it. The estimate enters through a second
patch projection without bias, whose output is added to the patch embedding's; at zero it is not there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.flow_matching import clean_estimate
from pipeline_lib.models.attachment import Attachment
from pipeline_lib.storage.tensors import read_tensors, save_tensors

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_SUFFIX = ".weight"


@dataclass(frozen=True)
class PatchProjection:
    """The trained projection, as a concept keeps it.

    Attributes:
        path: of the patch embedding in the denoiser whose output it is added to.
        weight: (width, c, t, h, w) float32, the patch embedding's own shape.
    """

    path: str
    weight: Tensor

    def save(self, path: Path) -> None:
        """Writes one safetensors file: the weight, named after the patch embedding's."""
        save_tensors(path, {f"{self.path}{_SUFFIX}": self.weight.detach().float().cpu()})

    @staticmethod
    def load(path: Path) -> PatchProjection:
        """Reads what :meth:`save` wrote.

        Args:
            path: of the file.

        Returns:
            The projection, float32 on the CPU.

        Raises:
            InputError: unreadable, or anything but one finite weight.
        """
        tensors, _ = read_tensors(path)
        for name, weight in tensors.items():
            if len(tensors) == 1 and name.endswith(_SUFFIX) and weight.dim() == 5 and torch.isfinite(weight).all():
                return PatchProjection(name.removesuffix(_SUFFIX), weight)
        raise InputError(f"{path} holds no patch projection", got=", ".join(tensors) or "nothing")

    def attach(self, pipeline: DiffusionPipeline, strength: float = 1.0) -> Attachment:
        """Conditions a stock pipeline on its own estimates until the attachment is removed.

        Args:
            pipeline: calls its transformer once for the prompt and then, under guidance, once for the negative
                prompt, at timesteps that fall. Other pipelines over the same transformer are conditioned too.
            strength: of the projection.

        Returns:
            What takes it off again.

        Raises:
            InputError: it was trained on another base.
        """
        stock: Any = pipeline
        live = SelfConditioning(stock.transformer, PatchProjection(self.path, self.weight * strength))
        sampling = _Sampling(live, stock.scheduler.config.num_train_timesteps)
        transformer: nn.Module = stock.transformer
        return Attachment(
            [
                transformer.register_forward_pre_hook(sampling.before, with_kwargs=True),
                transformer.register_forward_hook(sampling.after, with_kwargs=True),
                live,
            ]
        )


class SelfConditioning:
    """A live projection on a denoiser; without an estimate the denoiser is what it was.

    Args:
        denoiser: a diffusers model.
        projection: added to its patch embedding.

    Raises:
        InputError: the denoiser has no such patch embedding.

    Attributes:
        weight: float32; may learn.
    """

    def __init__(self, denoiser: nn.Module, projection: PatchProjection) -> None:
        embedding = _patch_embedding(denoiser, projection.path)
        if embedding.weight.shape != projection.weight.shape:
            raise InputError(
                "the self-conditioning was trained on another base",
                got=f"a projection of shape {tuple(projection.weight.shape)}",
                expected=str(tuple(embedding.weight.shape)),
            )
        self.path = projection.path
        self.weight = nn.Parameter(projection.weight.to(embedding.weight.device, torch.float32, copy=True))
        self._stride = embedding.stride
        self._estimate: Tensor | None = None
        self._handle = embedding.register_forward_hook(self._add)

    @classmethod
    def zero(cls, denoiser: nn.Module, path: str) -> SelfConditioning:
        """A fresh one, at zero: the base exactly."""
        return cls(denoiser, PatchProjection(path, torch.zeros(_patch_embedding(denoiser, path).weight.shape)))

    def projection(self) -> PatchProjection:
        """A copy of what is stored, float32 on the CPU."""
        return PatchProjection(self.path, self.weight.detach().to("cpu", torch.float32, copy=True))

    @contextmanager
    def given(self, estimate: Tensor | None) -> Iterator[None]:
        """The denoiser sees this estimate inside.

        Args:
            estimate: of the clean latents, of the shape of the noisy ones; zero where a sample has none.
        """
        kept = self._estimate
        self.show(estimate)
        try:
            yield
        finally:
            self.show(kept)

    def show(self, estimate: Tensor | None) -> None:
        """The denoiser sees this estimate from now on."""
        self._estimate = estimate

    def remove(self) -> None:
        """Takes the projection off; the denoiser is what it was."""
        self._handle.remove()

    def _add(self, _module: nn.Module, _inputs: Any, embedded: Tensor) -> Tensor:
        if self._estimate is None:
            return embedded
        estimate = self._estimate.to(embedded.device, torch.float32)
        extra = nn.functional.conv3d(estimate, self.weight.to(embedded.device), stride=self._stride)
        return embedded + extra.to(embedded.dtype)


class _Sampling:
    """Follows a stock pipeline's calls: the conditional estimate of one step goes into both calls of the next."""

    def __init__(self, live: SelfConditioning, timesteps: int) -> None:
        self._live, self._timesteps = live, timesteps
        self._noisy: Tensor | None = None
        self._timestep = math.inf
        self._conditional = True
        self._next: Tensor | None = None

    def before(self, _module: nn.Module, _inputs: Any, named: dict[str, Any]) -> None:
        noisy, timestep = named["hidden_states"], float(_of_samples(named["timestep"])[0])
        known = self._noisy is not None and noisy.shape == self._noisy.shape
        self._conditional = not (
            known and timestep == self._timestep and torch.equal(noisy, cast("Tensor", self._noisy))
        )
        if self._conditional:
            # A video's first step has no estimate; its timestep is not below that of any step before it.
            self._live.show(self._next if known and timestep < self._timestep else None)
            self._noisy, self._timestep = noisy, timestep

    def after(self, _module: nn.Module, _inputs: Any, named: dict[str, Any], output: Any) -> None:
        if self._conditional:
            velocity = output[0] if isinstance(output, tuple) else output.sample
            noisy, sigma = named["hidden_states"].float(), _of_samples(named["timestep"]) / self._timesteps
            self._next = clean_estimate(noisy, velocity.float(), sigma)


def _of_samples(timestep: Tensor) -> Tensor:
    """One for each sample, where a pipeline gives one for each token; without an image all tokens' are the same."""
    return timestep if timestep.dim() == 1 else timestep[:, 0]


def _patch_embedding(denoiser: nn.Module, path: str) -> nn.Conv3d:
    found = dict(denoiser.named_modules()).get(path)
    if not isinstance(found, nn.Conv3d):
        raise InputError(
            "this base has no patch embedding that self-conditioning could be added to", got=path or "none"
        )
    return found
