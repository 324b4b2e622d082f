"""Networks on torch's meta device, shapes without values: what a pass through one would take is counted."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from pipeline_lib.models.folder import PipelineFolder

_META = torch.device("meta")
SECOND_EXPERT_PART = "transformer_2"
_NO_WORK = {"view", "_unsafe_view", "t", "transpose", "permute", "expand", "detach", "slice", "select", "unsqueeze",
            "squeeze", "split", "unbind", "alias", "empty", "empty_like", "as_strided"}  # fmt: skip
_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_attention_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class WeightlessFolder(PipelineFolder):
    """A diffusers folder whose networks are made from their configs, on the meta device; no weight is read.

    Two experts are alike, and a sample goes through one of them: the first stands for both.

    Args:
        path: the folder that holds `model_index.json`.
        depth: how many blocks of a list of blocks to keep, by the list's name in the denoiser; others are whole.

    Raises:
        InputError: as :class:`~pipeline_lib.models.folder.PipelineFolder`.
    """

    def __init__(self, path: Path, depth: Mapping[str, int] | None = None) -> None:
        super().__init__(path)
        self._depth = depth or {}
        self.index = {k: v for k, v in self.index.items() if k not in (SECOND_EXPERT_PART, "boundary_ratio")}
        self.networks: dict[str, Any] = {}

    def load(self, part: str, **options: Any) -> Any:
        """A network in the dtype asked for; tokenizers and schedulers are read."""
        if not issubclass(self.class_of(part), nn.Module):
            with torch._C.DisableTorchFunction():  # a scheduler's tables have values, also inside `without_values`
                return super().load(part, **options)
        with torch.device("meta"):
            network = self.unread(part, options.get("torch_dtype") or options["dtype"])
        for name, count in self._depth.items() if part.startswith("transformer") else ():
            del network.get_submodule(name)[count:]
        self.networks[part] = network
        return network


def stored_bytes(network: nn.Module) -> int:
    """Bytes of a network's parameters and buffers."""
    return sum(value.nbytes for value in chain(network.parameters(), network.buffers()))


class Tally(TorchDispatchMode):
    """Counts what runs inside: bytes alive, FLOPs, and bytes that work other than matrix products moves.

    Args:
        resident: tensors that are there already; they do not count, unless they go.

    Attributes:
        peak: most bytes that were alive at once, beyond what was there.
        flops: by the formulas of `torch.utils.flop_counter`.
        moved: bytes read and written by all other work.
    """

    def __init__(self, resident: Iterable[Tensor]) -> None:
        super().__init__()
        self.flops = self.moved = self.live = 0
        self._known: dict[int, Any] = {}
        for value in resident:
            self._see(value)
        self._start = self._highest = self.live

    @property
    def peak(self) -> int:
        """See the class."""
        return self._highest - self._start

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs one operation and counts it."""
        named = dict(kwargs or {})
        out = func(*args, **named)
        made = [value for value in tree_leaves(out) if isinstance(value, Tensor)]
        packet = func._overloadpacket
        flops = _flops(packet, args, named, out)
        if flops:
            self.flops += flops
        elif packet.__name__ not in _NO_WORK:
            used = [value for value in tree_leaves((args, named)) if isinstance(value, Tensor)]
            self.moved += sum(value.nbytes for value in (*used, *made))
        for value in made:
            self._see(value)
        return out

    def _see(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def gone(_: object) -> None:
            self.live -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)
        self.live += size
        self._highest = max(getattr(self, "_highest", 0), self.live)


def _flops(packet: Any, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> int:
    if packet is _attention:
        return int(sdpa_flop_count(*(value.shape for value in args[:3])))
    if packet is _attention_backward:
        return int(sdpa_backward_flop_count(*(value.shape for value in args[:4])))
    formula = flop_registry.get(packet)
    return int(formula(*args, **named, out_val=out)) if formula else 0


class _Unvalued(TorchFunctionMode):
    """What asks for a value, or for another device, is answered on the meta device."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func is torch.Tensor.cpu:
            return args[0]
        if func is torch.count_nonzero:
            return args[0].numel()  # a trained factor, not one that is zero
        if func is torch.Tensor.to:
            args = [_META if _is_place(value) else value for value in args]
            named |= {"device": _META} if "device" in named else {}
        if "generator" in named:
            named["generator"] = None  # of the CPU; nothing is drawn
        return func(*args, **named)


def _is_place(value: Any) -> bool:
    return isinstance(value, torch.device) or (isinstance(value, str) and value in ("cpu", "meta"))


def _fused_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *settings: Any, **named: Any
) -> Tensor:
    """Attention without a matrix of scores, as CPU and CUDA kernels do it; the meta device's own would make one.

    Other settings change neither shapes nor arithmetic; a causal mask's saving is left out.
    """
    del settings, named
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        attn_mask = torch.empty_like(attn_mask, dtype=query.dtype)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    out: Tensor = _attention(query, key, value, attn_mask=attn_mask)[0]
    return out


@contextmanager
def without_values() -> Iterator[None]:
    """Inside, new tensors are on the meta device, and code that would read one back goes on without its value."""
    attention = nn.functional.scaled_dot_product_attention
    # Not one more answer of the mode: recomputation runs in the backward pass, where such modes are off.
    nn.functional.scaled_dot_product_attention = _fused_attention
    try:
        with torch.device("meta"), _Unvalued():
            yield
    finally:
        nn.functional.scaled_dot_product_attention = attention
