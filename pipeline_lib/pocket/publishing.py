"""Writing a part of the zoo: half precision, under a temporary name, then renamed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from pipeline_lib.models.folder import BaseCard


def replace_folder(temporary: Path, target: Path) -> None:
    """Put a complete folder in the place of an older one.

    Args:
        temporary: the complete folder, next to the target.
        target: its final name.
    """
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(old)
    temporary.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _forget_origin(folder: Path) -> None:
    """Takes out of configs where a part was loaded from: diffusers writes down the path on this machine."""
    for path in folder.rglob("config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        if "_name_or_path" in config:
            del config["_name_or_path"]
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def publish_model(model: Any, target: Path, card: BaseCard | None = None) -> None:
    """Save a model's weights as fp16 safetensors; the model itself stays fp32.

    Args:
        model: anything with ``save_pretrained`` (a diffusers or transformers model).
        target: the folder to write.
        card: frame rules and defaults of a base, written beside the weights.
    """
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    model.to(torch.float16).save_pretrained(temporary, safe_serialization=True)
    model.to(torch.float32)
    _forget_origin(temporary)
    if card is not None:
        card.save(temporary)
    replace_folder(temporary, target)
