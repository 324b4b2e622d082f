"""The closed formula for a LoRA's training step, written from the architectures' papers, to check the counter by.

One matrix product of (rows, inner) by (inner, outer) has `2 · rows · inner · outer` FLOPs. In the backward pass a
frozen layer needs one more, for its input's gradient, where its input has one; a LoRA factor needs two. Attention of q
queries and k keys over a width d has `4 · q · k · d` forward and twice that backward. Norms, activations and rotations
are counted by neither side: the two agree to the last FLOP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """What a denoiser sees: tokens of the video, rows of text, and channels of one latent position."""

    video: int
    text: int
    channels: int


@dataclass(frozen=True)
class Linear:
    """One frozen layer; `adapted`: with a LoRA; `reached`: a gradient flows to its input."""

    rows: int
    inner: int
    outer: int
    adapted: bool = True
    reached: bool = True

    def flops(self, rank: int) -> tuple[int, int]:
        """Of the forward pass and of the whole step."""
        own = 2 * self.rows * self.inner * self.outer
        down, up = 2 * self.rows * self.inner * rank, 2 * self.rows * rank * self.outer
        lora = down + up if self.adapted else 0
        backward = own * self.reached + (down * (1 + self.reached) + 2 * up if self.adapted else 0)
        return own + lora, own + lora + backward


@dataclass(frozen=True)
class Attention:
    """Queries, keys and width, all heads together; `reached` as of :class:`Linear`."""

    queries: int
    keys: int
    width: int
    reached: bool = True

    def flops(self, _rank: int) -> tuple[int, int]:
        """Of the forward pass and of the whole step."""
        own = 4 * self.queries * self.keys * self.width
        return own, own * (3 if self.reached else 1)


Layer = Linear | Attention


def step_flops(family: str, config: Mapping[str, Any], shape: Shape, rank: int) -> tuple[int, int]:
    """FLOPs of one sample by the formula.

    Args:
        family: registry name.
        config: of the denoiser, all of it.
        shape: what it sees.
        rank: of the LoRA on attention and feed-forward layers.

    Returns:
        Of the forward pass and of the whole step.
    """
    layers = list(_LAYERS[family](config, shape))
    pairs = [layer.flops(rank) for layer in layers]
    return sum(forward for forward, _ in pairs), sum(step for _, step in pairs)


def _frozen(*sizes: tuple[int, int, int]) -> Iterator[Linear]:
    """Layers before the first adapter or beside the stream, which only the forward pass sees."""
    for rows, inner, outer in sizes:
        yield Linear(rows, inner, outer, adapted=False, reached=False)


def _width(config: Mapping[str, Any]) -> int:
    return int(config["num_attention_heads"] * config["attention_head_dim"])


def _cross_attending(blocks: int, width: int, feed_forward: int, shape: Shape) -> Iterator[Layer]:
    """Blocks of self-attention, cross-attention on text, and a feed-forward network."""
    video, text = shape.video, shape.text
    for block in range(blocks):
        yield from [Linear(video, width, width, reached=block > 0)] * 3  # q, k, v
        yield Attention(video, video, width)
        yield from [Linear(video, width, width)] * 3  # out, and the cross-attention's q and out
        yield from [Linear(text, width, width, reached=False)] * 2  # its k and v, of text
        yield Attention(video, text, width)
        yield Linear(video, width, feed_forward)
        yield Linear(video, feed_forward, width)


def _wan(config: Mapping[str, Any], shape: Shape) -> Iterator[Layer]:
    width, out = _width(config), 4 * shape.channels
    yield from _frozen(
        (shape.video, out, width),
        (shape.text, config["text_dim"], width),
        (shape.text, width, width),
        (1, config["freq_dim"], width),
        (1, width, width),
        (1, width, 6 * width),
    )
    yield from _cross_attending(config["num_layers"], width, config["ffn_dim"], shape)
    yield Linear(shape.video, width, out, adapted=False)


def _ltx(config: Mapping[str, Any], shape: Shape) -> Iterator[Layer]:
    width = _width(config)
    yield from _frozen(
        (shape.video, shape.channels, width),
        (shape.text, config["caption_channels"], width),
        (shape.text, width, width),
        (1, 256, width),
        (1, width, width),
        (1, width, 6 * width),
    )
    yield from _cross_attending(config["num_layers"], width, 4 * width, shape)
    yield Linear(shape.video, width, shape.channels, adapted=False)


def _cogvideox(config: Mapping[str, Any], shape: Shape) -> Iterator[Layer]:
    width, time, out = _width(config), config["time_embed_dim"], 4 * shape.channels
    rows = shape.video + shape.text
    yield from _frozen(
        (shape.video, out, width), (shape.text, config["text_embed_dim"], width), (1, width, time), (1, time, time)
    )
    for block in range(config["num_layers"]):
        yield from _frozen((1, time, 6 * width), (1, time, 6 * width))
        yield from [Linear(rows, width, width, reached=block > 0)] * 3
        yield Attention(rows, rows, width)
        yield Linear(rows, width, width)
        yield Linear(rows, width, 4 * width)
        yield Linear(rows, 4 * width, width)
    yield from _frozen((1, time, 2 * width))
    yield Linear(shape.video, width, out, adapted=False)


def _hunyuan(config: Mapping[str, Any], shape: Shape) -> Iterator[Layer]:
    width, out = _width(config), 4 * shape.channels
    rows, hidden = shape.video + shape.text, int(width * config["mlp_ratio"])
    yield from _frozen((shape.video, out, width), *[(1, 256, width), (1, width, width)] * 3)
    yield from _frozen((1, config["pooled_projection_dim"], width), (1, width, width))
    yield from _refiner(config, shape.text)
    for block in range(config["num_layers"]):
        yield from _frozen((1, width, 6 * width), (1, width, 6 * width))
        for stream in (shape.video, shape.text):
            yield from [Linear(stream, width, width, reached=block > 0)] * 3
            yield Linear(stream, width, width)
            yield Linear(stream, width, hidden)
            yield Linear(stream, hidden, width)
        yield Attention(rows, rows, width)
    for _ in range(config["num_single_layers"]):
        yield from _frozen((1, width, 3 * width))
        yield from [Linear(rows, width, width)] * 3
        yield Attention(rows, rows, width)
        yield Linear(rows, width, hidden)
        yield Linear(rows, width + hidden, width)
    yield from _frozen((1, width, 2 * width))
    yield Linear(shape.video, width, out, adapted=False)


def _refiner(config: Mapping[str, Any], text: int) -> Iterator[Layer]:
    """Of text, before the blocks; no adapter reaches it. Its feed-forward is four times as wide at any `mlp_ratio`."""
    width = _width(config)
    hidden = 4 * width
    yield from _frozen((text, config["text_embed_dim"], width), (1, config["text_embed_dim"], width), (1, width, width))
    for _ in range(config["num_refiner_layers"]):
        yield Attention(text, text, width, reached=False)
        yield from _frozen(*[(text, width, width)] * 4, (text, width, hidden), (text, hidden, width))
        yield from _frozen((1, width, 2 * width))


_LAYERS = {"wan": _wan, "ltx": _ltx, "cogvideox": _cogvideox, "hunyuan": _hunyuan}
