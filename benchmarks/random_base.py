"""Bases of the real size with random weights, opened through the families' own classes.

A folder is written with the real networks' configs and a tiny folder's tokenizers and scheduler. What a base would read
from weight files is made from the configs instead, on the device, or on "meta", where it takes no memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.family_sizes import FamilySize
from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.economy import Economy
from pipeline_lib.models.families import family_of
from pipeline_lib.models.folder import PipelineFolder


class RandomFolder(PipelineFolder):
    """A diffusers folder whose networks are made at random where a stock folder would have weight files.

    Encoders are made on the device and stay there, as usual trainers have them, until a base frees them.

    Args:
        path: of the folder.
        device: where networks are made.
        on_host: whether denoisers are brought to the host then, as from files.
    """

    def __init__(self, path: Path, device: torch.device, *, on_host: bool) -> None:
        super().__init__(path)
        self._device, self._on_host = device, on_host

    def load(self, part: str, **options: Any) -> Any:
        """A network of its config's size; tokenizers and schedulers are read."""
        if not issubclass(self.class_of(part), nn.Module):
            return super().load(part, **options)
        dtype = options.get("torch_dtype", options.get("dtype", torch.float32))
        with self._device, _default_dtype(dtype):
            module = self.unread(part, dtype)
        return module.to("cpu") if self._on_host and part.startswith("transformer") else module


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def write_folder(
    size: FamilySize, path: Path, *, experts: bool = True, transformer: Mapping[str, Any] | None = None
) -> Path:
    """Writes a folder of the real networks' configs, without weights.

    Args:
        size: of which checkpoint.
        path: made.
        experts: whether a second expert is written; without it the folder is of the first one alone.
        transformer: what is other in the denoiser's config than in the checkpoint's.

    Returns:
        The folder.
    """
    size.tiny(path)
    for file in path.rglob("*.safetensors"):
        file.unlink()
    parts = {**size.parts, "transformer": {**size.parts["transformer"], **(transformer or {})}}
    for part, config in parts.items():
        stated = path / part / "config.json"
        small = json.loads(stated.read_text())
        # A config of transformers has its tokens' ids beside its sizes; those go with the tokenizer.
        kept = {"_class_name": small["_class_name"]} if "_class_name" in small else small
        stated.write_text(json.dumps({**kept, **config}))
    if not experts:
        _change(path / "model_index.json", transformer_2=[None, None], boundary_ratio=None)
    frames, height, width = size.video
    _change(path / "mannerism.json", num_frames=frames, height=height, width=width)
    return path


def _change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def open_base(path: Path, device: torch.device, dtype: torch.dtype, economy: Economy | None = None) -> BaseModel:
    """Opens a folder as its family's base, with random weights.

    Args:
        path: of :func:`write_folder`, or any diffusers folder, whose weights are then not read.
        device: where it computes; "meta" computes nothing.
        dtype: of the denoiser and the text encoders.
        economy: how the denoiser is kept; None: whole, on the device, as it is.

    Returns:
        The base; networks are made when they are first used.
    """
    economy = economy or Economy()
    folder = RandomFolder(path, device, on_host=economy.storage != "full" or bool(economy.swapped_blocks))
    base = family_of(folder).open(folder, path.name, device, dtype)
    base.economy = economy
    return base
