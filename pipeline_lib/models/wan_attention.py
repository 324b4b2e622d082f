"""Cross-attention over real text rows and a few padding rows, equal to attention over all 512.

Wan pads every prompt to 512 rows of zeros and attends to all of them. After the text projection the
zero rows are one and the same key and value, repeated; and softmax over n equal keys is softmax over
one key whose logit is raised by log n. So a few rows with that bias stand for all, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline_lib.models.recompute import recomputing

# Padding rows that stand for the rest: each takes up what rounding of the bias before it left over.
# One is enough in float32; in bfloat16 a lone log(500) would be off by half a percent.
STAND_INS = 3
_ROW_MULTIPLE = 8


def rows_needed(longest: int, total: int) -> int:
    """Rows to keep for prompts of at most `longest` tokens out of `total` padded rows."""
    rounded = -(-(longest + STAND_INS) // _ROW_MULTIPLE) * _ROW_MULTIPLE
    return min(rounded, total)


def collapse_padding(
    text: Tensor, lengths: Tensor, total: int, rows: int | None = None, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor | None]:
    """Cuts padded text down to its real rows and a few padding rows.

    Args:
        text: (batch, r, d), all rows from `lengths` on are zero; r may already be below `total`.
        lengths: (batch,), real rows of each prompt.
        total: rows that the stock pipeline pads to.
        rows: how many to keep, by default what the longest prompt needs (reads `lengths` back from
            the device).
        dtype: that attention computes in, by default that of `text`, or the autocast's where one is on.

    Returns:
        The cut text (batch, rows, d), and the bias (batch, 1, 1, rows) that is added to the attention
        logits, or None where nothing was cut away.
    """
    rows = rows or rows_needed(int(lengths.max()), total)
    if rows >= total:
        return text, None
    return text[:, :rows], padding_bias(lengths, rows, total, dtype or _attention_dtype(text))


def _attention_dtype(text: Tensor) -> torch.dtype:
    device = text.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else text.dtype


def real_rows(text: Tensor) -> Tensor:
    """Rows of each prompt up to the last that is not zero, shape (batch,)."""
    counted = torch.arange(1, text.shape[1] + 1, device=text.device)
    return ((text != 0).any(dim=-1) * counted).amax(dim=1)


def padding_bias(lengths: Tensor, rows: int, total: int, dtype: torch.dtype) -> Tensor:
    """The bias under which `rows` keys count as `total`.

    Args:
        lengths: (batch,), real rows of each prompt, at most `rows - STAND_INS`.
        rows: keys that attention sees.
        total: keys that it stands for.
        dtype: of the result; what rounding to it loses is made up by the following row.

    Returns:
        Shape (batch, 1, 1, rows): 0 on real rows, -inf on padding rows that are not needed.
    """
    order = torch.arange(rows, device=lengths.device) - lengths[:, None]
    bias = torch.zeros(order.shape, dtype=dtype, device=lengths.device)
    bias = bias.masked_fill(order >= STAND_INS, float("-inf"))
    remaining = (total - lengths).double()
    for stand_in in range(STAND_INS):
        value = remaining.log().to(dtype)
        if stand_in < STAND_INS - 1:
            value = torch.where(value.double() > remaining.log(), _next_below(value), value)
        bias = torch.where(order == stand_in, value[:, None], bias)
        remaining = (remaining - value.double().exp()).clamp_min(1e-12)
    return bias[:, None, None, :]


def _next_below(value: Tensor) -> Tensor:
    return torch.nextafter(value, torch.full_like(value, float("-inf")))


class _Bias:
    """The bias of the forward pass in progress, shared by the cross-attentions of one transformer."""

    def __init__(self) -> None:
        self.current: Tensor | None = None

    @contextmanager
    def use(self, bias: Tensor | None) -> Iterator[None]:
        previous, self.current = self.current, bias
        try:
            yield
        finally:
            self.current = previous

    def add(self, _attention: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Forward pre-hook of a cross-attention, which has neither mask nor rotation of its own."""
        return None if self.current is None else (inputs[:2], {**named, "attention_mask": self.current})


class CollapsedPadding:
    """Makes a Wan transformer skip padding, whoever calls it.

    Args:
        transformer: a text-to-video `WanTransformer3DModel`; its cross-attentions get a hook that does
            nothing unless a bias is in force.
        total: rows of text with which the stock pipeline calls it.
        enabled: whether calls with `total` rows are collapsed.

    Attributes:
        enabled: may be changed at any time; when false the transformer is the stock model, bit for bit.
    """

    def __init__(self, transformer: Any, total: int, *, enabled: bool) -> None:
        self.transformer, self.total, self.enabled = transformer, total, enabled
        self._bias = _Bias()
        for block in transformer.blocks:
            block.attn2.register_forward_pre_hook(self._bias.add, with_kwargs=True)
        transformer.register_forward_pre_hook(self._collapse, with_kwargs=True)
        transformer.register_forward_hook(self._clear, always_call=True)

    def velocity(self, noisy: Tensor, timestep: Tensor, text: Tensor, lengths: Tensor) -> Tensor:
        """The transformer's output, shape of `noisy`.

        Args:
            noisy: (batch, c, t, h, w).
            timestep: (batch,).
            text: (batch, rows, d); zero rows up to `total` may have been left out.
            lengths: (batch,), real rows of each prompt.

        Returns:
            Same shape as `noisy`.
        """
        rows = text.shape[1]
        if rows < self.total:
            if self.enabled:
                text, self._bias.current = collapse_padding(text, lengths, self.total, rows=rows)
            else:
                text = nn.functional.pad(text, (0, 0, 0, self.total - rows))
        return self.transformer(hidden_states=noisy, timestep=timestep, encoder_hidden_states=text, return_dict=False)[
            0
        ]

    def set_gradient_checkpointing(self, enabled: bool, *, keep_attention: bool = False) -> None:
        """Recomputes each block in the backward pass, under the bias that its forward pass had."""
        if enabled:
            call = recomputing(keep_attention=keep_attention)
            self.transformer.enable_gradient_checkpointing(partial(self._checkpoint, call))
        else:
            self.transformer.disable_gradient_checkpointing()

    def _collapse(self, _module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        text = named.get("encoder_hidden_states")
        if self.enabled and self._bias.current is None and text is not None and text.shape[1] == self.total:
            text, self._bias.current = collapse_padding(text, real_rows(text), self.total)
            named = {**named, "encoder_hidden_states": text}
        return inputs, named

    def _clear(self, *_call: Any) -> None:
        self._bias.current = None

    def _checkpoint(self, call: Callable[..., Any], block: nn.Module, *inputs: Any) -> Any:
        # Several forward passes may come before one backward pass, so the bias is kept with the block.
        bias = self._bias.current

        def run(*again: Any) -> Any:
            with self._bias.use(bias):
                return block(*again)

        return call(run, *inputs)
