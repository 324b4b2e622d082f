"""The adapter: PEFT's LoRA layers with one shared basis and a re-parametrised coefficient matrix.

PEFT owns the layers and their forward pass. What Set-and-Sequence adds is a weight parametrisation
(`torch.nn.utils.parametrize`) on the factor that holds the coefficients, so that a layer computes with
`s1·(B1 ⊙ M1) + s2·(B2 ⊙ M2)` (Eq. 5 and the coefficient dropout of section 4.3) while what is stored
stays B1 and B2. Masks are drawn by the caller, before the forward: recomputation and micro-batches see
the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline_lib.errors import InputError, PipelineError
from pipeline_lib.models.block_swap import compute_device
from pipeline_lib.models.coefficients import Coefficients, InDtype
from pipeline_lib.models.triple import SECOND_EXPERT, Basis, LayerFactors, LoraTriple
from pipeline_lib.seeding import generator

ADAPTER_NAME = "concept"
Denoisers = nn.Module | Sequence[nn.Module]
"""One diffusers model with `add_adapter`, or the two experts of a base, the high-noise one first."""


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """Shape and start of an adapter; alpha equals the rank.

    Attributes:
        rank: of every layer's update.
        targets: suffixes of the linear layers that take one.
        basis: which side of the product is the basis; see :mod:`pipeline_lib.models.triple`.
        zero_factor: which factor starts at zero, so that the model starts as the base.
    """

    rank: int
    targets: tuple[str, ...]
    basis: Basis = "output"
    zero_factor: Literal["basis", "coefficients"] = "basis"


class Adapter:
    """A LoRA on a base's denoisers, in the shared-basis form. Made by :meth:`attach` or :meth:`from_triple`.

    Paths of the second expert's layers begin with :data:`pipeline_lib.models.triple.SECOND_EXPERT`.
    """

    def __init__(self, denoisers: Denoisers, settings: AdapterSettings) -> None:
        self._denoisers = _by_prefix(denoisers)
        self.settings = settings
        self._basis: dict[str, nn.Parameter] = {}
        self._coefficients: dict[str, nn.Parameter] = {}
        self._mixes: dict[str, Coefficients] = {}
        self._first_basis: dict[str, Tensor] = {}
        self._wrap()

    @classmethod
    def attach(cls, denoisers: Denoisers, settings: AdapterSettings, seed: int) -> Adapter:
        """Puts a fresh adapter on all denoisers of a base; its output is the base's, bit for bit.

        Args:
            denoisers: of the base.
            settings: shape and start.
            seed: of the factor that does not start at zero.

        Returns:
            The adapter, trainable.

        Raises:
            InputError: no layer of a denoiser matches the targets.
        """
        live = _by_prefix(denoisers)
        _add_to_all(live, settings.rank, dict.fromkeys(live, settings.targets))
        adapter = cls(denoisers, settings)
        adapter._initialise(seed)
        adapter._remember_basis()
        return adapter

    @classmethod
    def from_triple(cls, denoisers: Denoisers, triple: LoraTriple) -> Adapter:
        """Puts trained factors on the denoisers of a base.

        Args:
            denoisers: of the base.
            triple: trained on the same layers.

        Returns:
            The adapter; the residual learns if there is one, until told otherwise.

        Raises:
            InputError: the triple was made for other layers or other shapes.
        """
        settings = AdapterSettings(rank=triple.rank, targets=tuple(triple.layers), basis=triple.basis)
        live, parts = _by_prefix(denoisers), triple.by_expert()
        if set(live) != set(parts):
            raise InputError(
                "the concept was trained on a base with another number of experts",
                got=str(len(parts)),
                expected=str(len(live)),
                fix="use the base that concept.json names",
            )
        _add_to_all(live, triple.rank, {prefix: tuple(part.layers) for prefix, part in parts.items()})
        adapter = cls(denoisers, settings)
        try:
            adapter._load(triple)
        except InputError:
            adapter.detach()
            raise
        adapter._remember_basis()
        return adapter

    @torch.no_grad()
    def begin_with(self, layers: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Puts plain LoRA layers in the place of a fresh adapter's first rows and columns.

        What is left of the rank keeps its fresh values, one factor of which is zero: the model is the one with those
        layers on it, and all of the rank learns. Other layers stay fresh.

        Args:
            layers: module path to (down (r, in), up (out, r)), r not above the adapter's rank.

        Raises:
            InputError: a layer that the adapter does not have; it is taken off.
        """
        if stray := sorted(layers.keys() - self._basis.keys()):
            self.detach()
            raise InputError(
                "training cannot start from layers that are not trained",
                got=", ".join(stray[:4]),
                fix="with cross_attention: false those that attend to the text are not: set it to true",
            )
        downs, ups = self._coefficients, self._basis
        if self.settings.basis == "input":
            downs, ups = ups, downs
        for path, (down, up) in layers.items():
            downs[path][: len(down)] = down
            ups[path][:, : len(down)] = up
        self._remember_basis()

    def begin_residual(self) -> None:
        """Freezes basis and coefficients and adds a zero residual to every layer (Stage II's start).

        Raises:
            PipelineError: a basis is zero everywhere, so its residual could never learn.
        """
        dead = [path for path, basis in self._basis.items() if not torch.count_nonzero(basis)]
        if dead:
            raise PipelineError(
                f"Stage II needs a trained basis, but {len(dead)} of {len(self._basis)} are zero (first: {dead[0]}): "
                "the residual's gradient passes through the basis; train Stage I first"
            )
        self.freeze()
        for path, mix in self._mixes.items():
            mix.residual = nn.Parameter(torch.zeros_like(self._coefficients[path]))

    def freeze(self) -> None:
        """Lets neither basis nor coefficients learn."""
        for factor in (*self._basis.values(), *self._coefficients.values()):
            factor.requires_grad_(False)

    def compute_in(self, dtype: torch.dtype) -> None:
        """Makes the layers multiply in another dtype than float32; what is stored, and its gradients, stay float32.

        Args:
            dtype: see :func:`pipeline_lib.models.coefficients.products_dtype`.
        """
        if dtype == torch.float32:
            return
        for path, layer in self._layers().items():
            self._mixes[path].dtype = dtype
            basis = self._basis_linear(layer)
            parametrize.register_parametrization(basis, "weight", InDtype(dtype), unsafe=True)  # the dtype changes
            self._basis[path] = basis.parametrizations.weight.original  # type: ignore[union-attr, assignment]

    def factors(self, kind: Literal["basis", "coefficients", "residual"]) -> dict[str, nn.Parameter]:
        """Live parameters of one kind, by module path; empty where there is no residual."""
        if kind == "residual":
            return {path: mix.residual for path, mix in self._mixes.items() if mix.residual is not None}
        return dict(self._basis if kind == "basis" else self._coefficients)

    def set_masks(self, kind: Literal["coefficients", "residual"], masks: Mapping[str, Tensor] | None) -> None:
        """Multiplies a factor by a mask of its shape until told otherwise; None removes the masks."""
        for path, mix in self._mixes.items():
            mask = None if masks is None else masks[path]
            if kind == "residual":
                mix.residual_mask = mask
            else:
                mix.coefficient_mask = mask

    def set_strengths(self, identity: float, motion: float) -> None:
        """Strengths of the coefficients (s1) and of the residual (s2)."""
        for mix in self._mixes.values():
            mix.identity, mix.motion = identity, motion

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """No masks inside: dropout never reaches evaluation or samples."""
        kept = {path: (mix.coefficient_mask, mix.residual_mask) for path, mix in self._mixes.items()}
        self.set_masks("coefficients", None)
        self.set_masks("residual", None)
        try:
            yield
        finally:
            for path, mix in self._mixes.items():
                mix.coefficient_mask, mix.residual_mask = kept[path]

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base model inside."""
        for denoiser in self._denoisers.values():
            denoiser.disable_adapters()
        try:
            yield
        finally:
            for denoiser in self._denoisers.values():
                denoiser.enable_adapters()

    def basis_change(self) -> float:
        """Mean over layers of ‖A − A⁰‖ / ‖A‖, with A⁰ the basis as it was put on; 0 where the basis is zero."""
        changes = []
        for path, first in self._first_basis.items():
            now = _copied(self._basis[path])
            norm = float(now.norm())
            changes.append(float((now - first).norm()) / norm if norm else 0.0)
        return sum(changes) / len(changes)

    def triple(self) -> LoraTriple:
        """A copy of what is stored, float32 on the CPU; masks and strengths are no part of it."""
        residuals = self.factors("residual")
        layers = {
            path: LayerFactors(
                _copied(self._basis[path]),
                _copied(self._coefficients[path]),
                _copied(residuals[path]) if path in residuals else None,
            )
            for path in self._basis
        }
        return LoraTriple(layers, self.settings.basis, self.settings.rank)

    def detach(self) -> None:
        """Takes the adapter off; the denoisers are the base again."""
        for layer in self._layers().values():
            for linear in (self._coefficient_linear(layer), self._basis_linear(layer)):
                if parametrize.is_parametrized(linear, "weight"):
                    parametrize.remove_parametrizations(linear, "weight", leave_parametrized=False)
        for denoiser in self._denoisers.values():
            _delete_peft_layers(denoiser)

    def _layers(self) -> dict[str, Any]:
        return {
            prefix + name: module
            for prefix, denoiser in self._denoisers.items()
            for name, module in denoiser.named_modules()
            if ADAPTER_NAME in getattr(module, "lora_A", {})
        }

    def _coefficient_linear(self, layer: Any) -> nn.Linear:
        side = layer.lora_A if self.settings.basis == "output" else layer.lora_B
        return side[ADAPTER_NAME]

    def _basis_linear(self, layer: Any) -> nn.Linear:
        side = layer.lora_B if self.settings.basis == "output" else layer.lora_A
        return side[ADAPTER_NAME]

    def _wrap(self) -> None:
        for path, layer in self._layers().items():
            basis = self._basis_linear(layer)
            linear = self._coefficient_linear(layer)
            mix = Coefficients()
            parametrize.register_parametrization(linear, "weight", mix)
            self._basis[path] = basis.weight  # type: ignore[assignment]
            self._coefficients[path] = linear.parametrizations.weight.original  # type: ignore[union-attr, assignment]
            self._mixes[path] = mix

    def _remember_basis(self) -> None:
        self._first_basis = {path: _copied(basis) for path, basis in self._basis.items()}

    @torch.no_grad()
    def _initialise(self, seed: int) -> None:
        zero, random = self._basis, self._coefficients
        if self.settings.zero_factor == "coefficients":
            zero, random = random, zero
        for index, path in enumerate(self._basis):
            zero[path].zero_()
            bound = 1 / math.sqrt(random[path].shape[1])  # PEFT's own: Kaiming uniform over the fan-in
            draw = torch.rand(random[path].shape, generator=generator(seed, "adapter", index))
            random[path].copy_((2 * draw - 1) * bound)

    @torch.no_grad()
    def _load(self, triple: LoraTriple) -> None:
        if set(triple.layers) != set(self._basis):
            raise InputError(
                "the concept was trained on other layers than this base has",
                got=f"{len(set(triple.layers) - set(self._basis))} unknown layers",
                fix="use the base that concept.json names",
            )
        for path, factors in triple.layers.items():
            for stored, live in ((factors.basis, self._basis[path]), (factors.coefficients, self._coefficients[path])):
                if stored.shape != live.shape:
                    raise InputError(f"the shape of {path} differs", got=str(stored.shape), expected=str(live.shape))
                live.copy_(stored)
            if factors.residual is not None:
                residual = factors.residual.to(self._coefficients[path].device, copy=True)
                self._mixes[path].residual = nn.Parameter(residual)


def _by_prefix(denoisers: Denoisers) -> dict[str, Any]:  # diffusers' PeftAdapterMixin is not part of nn.Module's type
    live = [denoisers] if isinstance(denoisers, nn.Module) else list(denoisers)
    assert 1 <= len(live) <= 2, "a base has one denoiser or two experts"
    return dict(zip(("", SECOND_EXPERT), live, strict=False))


def _add_to_all(live: Mapping[str, Any], rank: int, targets: Mapping[str, Sequence[str]]) -> None:
    """On all or, where one does not fit, on none."""
    done: list[Any] = []
    try:
        for prefix, denoiser in live.items():
            _add_peft_layers(denoiser, rank, targets[prefix])
            done.append(denoiser)
    except InputError:
        for denoiser in done:
            _delete_peft_layers(denoiser)
        raise


def _delete_peft_layers(denoiser: Any) -> None:
    denoiser.delete_adapters(ADAPTER_NAME)
    if not getattr(denoiser, "peft_config", None):
        denoiser.unload_lora()  # puts the plain layers back in the place of PEFT's wrappers


def _add_peft_layers(denoiser: Any, rank: int, targets: Sequence[str]) -> None:
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets))
    try:
        denoiser.add_adapter(config, adapter_name=ADAPTER_NAME)
    except ValueError as error:
        if not hasattr(denoiser, "peft_config"):
            denoiser._hf_peft_config_loaded = False  # set before the layers were looked for; a next try would trip
        raise InputError("the adapter does not fit this base", got=str(error)) from error
    # PEFT puts the factors beside the weights, which are on the host where blocks are swapped; there, and in half
    # precision, they could not be trained.
    device = compute_device(denoiser)
    for name, parameter in denoiser.named_parameters():
        parameter.requires_grad_(f".{ADAPTER_NAME}." in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.to(device, torch.float32)


def _copied(factor: Tensor) -> Tensor:
    return factor.detach().to("cpu", torch.float32, copy=True)
