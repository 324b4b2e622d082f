"""Equal tensors, equal bytes: safetensors writes its header's metadata in an order that varies by process."""

from __future__ import annotations

import json
from pathlib import Path


def sort_safetensors_headers(folder: Path) -> None:
    """Puts the metadata of every safetensors file below a folder in order, in place; lengths do not change."""
    for path in sorted(folder.rglob("*.safetensors")):
        _sort_header(path)


def _sort_header(path: Path) -> None:
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            return
        file.seek(8)
        file.write(text.ljust(length))
