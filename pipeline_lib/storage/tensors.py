"""Safetensors files whose bytes depend on their content alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.storage.files import write_atomic

ALIGNMENT = 8  # the format wants the data to start at a multiple of this


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors atomically.

    The library writes the metadata of a header in the order of a hash map that differs from process to
    process; here it is sorted, so that the same content is the same file, and the same digest.

    Args:
        path: of the file.
        tensors: by name; made contiguous where they are not.
        metadata: strings for the header.
    """
    raw = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=dict(metadata or {}) or None)
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    text = json.dumps(dict(sorted(header.items())), separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    write_atomic(path, len(text).to_bytes(8, "little") + text + raw[8 + size :])


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a safetensors file.

    Args:
        path: of the file.

    Returns:
        Tensors by name, on the CPU, and the strings of the header.

    Raises:
        InputError: no file, or none of this format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as safetensors", got=str(error)) from error
