"""LoRA files of a run as files: which they are and what they hold, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

from pipeline_lib.errors import InputError
from pipeline_lib.media.identity import clean_name
from pipeline_lib.records import LoraFact, LoraUse
from pipeline_lib.storage.files import CHECKSUMS

METADATA = "lora_adapter_metadata"
"""Header key under which diffusers keeps PEFT's settings (`loaders/lora_base.py`, `LORA_ADAPTER_METADATA_KEY`)."""
_PICKLES = (".pt", ".pth", ".ckpt", ".bin")
_MAX_BYTES = 8 * 2**30


@dataclass(frozen=True)
class UsedLora:
    """A LoRA file and how it is used; `fact` tells what was in it when the run began."""

    path: Path
    fact: LoraFact

    def serves(self, prefix: str) -> bool:
        """Whether it goes on the denoiser whose layers have this prefix."""
        return self.fact.expert in ("both", "low" if prefix else "high")


def used_loras(uses: Sequence[LoraUse]) -> tuple[UsedLora, ...]:
    """LoRA files with the digests of what they hold; no torch is needed for that.

    Args:
        uses: as a person wrote them.

    Returns:
        The same, in that order.

    Raises:
        InputError: a file is missing, a folder, a pickle, too large, or unreadable.
    """
    return tuple(_used(Path(use.path).expanduser(), use) for use in uses)


def lora_digest(path: Path) -> str:
    """SHA-256 of what a LoRA file says, with the settings beside it where PEFT keeps its scale there.

    Args:
        path: a `.safetensors` file.

    Returns:
        Hexadecimal digits; the same wherever the file lies.

    Raises:
        InputError: see :func:`used_loras`.
    """
    check_lora_path(path)
    real = path.resolve()  # what a link points to may change while the link does not
    content = CHECKSUMS.of(real)
    beside = _settings_beside(path, content)
    return f"{content}+{CHECKSUMS.of(beside.resolve())}" if beside is not None and beside.is_file() else content


def check_lora_path(path: Path) -> None:
    """Refuses what cannot be a LoRA file, before it is read.

    Args:
        path: of the file.

    Raises:
        InputError: a pickle, a folder, no such file, too large, or none of this format.
    """
    if path.suffix in _PICKLES:
        raise InputError(f"{path} is a pickle, which can run code when opened", fix="convert it to .safetensors")
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a LoRA file", fix="name the .safetensors file in it")
    if path.suffix != ".safetensors" or not path.is_file():
        raise InputError(f"there is no LoRA file at {path}", expected="a .safetensors file")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path} is too large for a LoRA", got=f"{path.stat().st_size} bytes")


def peft_settings(path: Path) -> Path | None:
    """The file beside a LoRA in PEFT's own names that holds its scale; None where the LoRA says all itself.

    Args:
        path: a `.safetensors` file.

    Returns:
        The file that :func:`pipeline_lib.models.lora_import.import_lora` reads besides, there or not.

    Raises:
        InputError: the LoRA cannot be read.
    """
    try:
        with safe_open(path, framework="np") as file:
            needed = METADATA not in (file.metadata() or {}) and any(map(in_peft_names, file.keys()))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as safetensors", got=str(error)) from error
    return path.parent / "adapter_config.json" if needed else None


def in_peft_names(key: str) -> bool:
    """Whether a key is as `PeftModel.save_pretrained` writes it."""
    return key.startswith("base_model.model.")


def _used(path: Path, use: LoraUse) -> UsedLora:
    fact = LoraFact(name=clean_name(path), digest=lora_digest(path), strength=use.strength, expert=use.expert)
    return UsedLora(path, fact)


@lru_cache(maxsize=64)
def _settings_beside(path: Path, content: str) -> Path | None:  # noqa: ARG001 - part of the cache key
    return peft_settings(path)
