"""Where the pocket models lie."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from pipeline_lib.errors import InputError

PARTS = ("base", "clip", "image", "identity", "segmenter", "captioner")


def zoo_root() -> Path:
    """The folder that holds every part of the zoo, the sibling's LoRA and the judge among them."""
    return Path(str(files("pipeline_lib.pocket"))) / "zoo"


def zoo_folder(part: str) -> Path:
    """Folder of one part of the zoo, ready for ``from_pretrained``.

    Args:
        part: ``"base"`` (a ``WanPipeline`` folder), ``"clip"`` (``CLIPModel`` and processor), ``"image"``
            (``ViTModel`` and image processor), ``"identity"`` (an identity encoder), ``"segmenter"``
            (``CLIPSegForImageSegmentation`` and processor) or ``"captioner"`` (``Qwen2VLForConditionalGeneration`` and
            processor).

    Returns:
        The folder.

    Raises:
        InputError: when there is no such part, or it has not been trained yet.
    """
    if part not in PARTS:
        raise InputError("unknown part of the zoo", got=repr(part), expected=f"one of {PARTS}")
    folder = zoo_root() / part
    if not folder.exists():
        raise InputError(f"the zoo holds no {part!r} yet", got=str(folder), fix="train it: make pocket")
    return folder
