"""Names to implementations: the only module that knows them all.

Outsiders add their own through entry points: group `mannerism.methods` (an object that follows
:class:`pipeline_lib.methods.method.Method`) and `mannerism.captioners` (a callable without arguments
that returns a :class:`pipeline_lib.captions.captioner.Captioner`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from pipeline_lib.errors import ConfigError
from pipeline_lib.pocket.zoo import zoo_root
from pipeline_lib.run_config import RunConfig

if TYPE_CHECKING:
    from pipeline_lib.captions.captioner import Captioner
    from pipeline_lib.features.encoders import ImageTextEncoder
    from pipeline_lib.methods.method import Method
    from pipeline_lib.models.base import BaseModel

_METHODS = {
    "set_and_sequence": "pipeline_lib.methods.set_and_sequence.method:SetAndSequence",
    "lora": "pipeline_lib.methods.baselines.lora:PlainLora",
}
_CAPTIONERS = {"template": "pipeline_lib.captions.template:TemplateCaptioner"}


class NamedBase(NamedTuple):
    """A base that has a name of its own: its folder, the preset that suits it, the encoder of its world."""

    folder: Path
    preset: str
    encoder: Path | None


BASES: dict[str, NamedBase] = {"pocket": NamedBase(zoo_root() / "base", "pocket", zoo_root() / "clip")}


@dataclass(frozen=True)
class MethodChoice:
    """A method with its settings, checked.

    Attributes:
        method: the implementation.
        preset: name of the preset that was the ground.
        settings: the method's own settings record.
    """

    method: Method
    preset: str
    settings: Any


def method_names() -> list[str]:
    """Names of all methods, built in and installed."""
    return [*_METHODS, *(point.name for point in entry_points(group="mannerism.methods"))]


def choose_method(config: RunConfig) -> MethodChoice:
    """The method of a run, its preset and its settings.

    Raises:
        ConfigError: no such method, preset or setting, or a bad value.
    """
    method = _method(config.method.name)
    preset = config.method.preset or default_preset(config.base.source)
    if preset not in method.presets:
        raise _unknown("method.preset", preset, method.presets)
    try:
        settings = method.settings_type.model_validate(_over(method.presets[preset], config.method.settings))
    except ValidationError as error:
        raise _bad_setting(method, error) from error
    return MethodChoice(method, preset, settings)


def default_preset(source: str) -> str:
    """The preset that suits a base: its own where it has a name, else "portable"."""
    return BASES[source].preset if source in BASES else "portable"


def open_base(config: RunConfig, device: str, dtype: str) -> BaseModel:
    """The base of a run; its weights are read when first used.

    Args:
        config: of the run.
        device: "cpu", "cuda" or "cuda:N".
        dtype: "float32" or "bfloat16".

    Raises:
        InputError: nothing usable there.
    """
    import torch

    from pipeline_lib.models.load import load_base

    source = config.base.source
    folder = BASES[source].folder if source in BASES else None
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"the base {source!r} is not part of this installation", fix="name a diffusers folder")
    if folder is None and "/" not in source and not Path(source).exists():
        raise _unknown("base.source", source, BASES, "or a diffusers folder, or a hub id like org/name")
    return load_base(
        str(folder or source), device=device, dtype=getattr(torch, dtype), revision=config.base.revision or None
    )


def open_captioner(config: RunConfig) -> Captioner:
    """The captioner of a run.

    Raises:
        ConfigError: neither a known name nor a model folder.
    """
    name = config.concept.captioner
    if name in _CAPTIONERS:
        captioner: Captioner = _load(_CAPTIONERS[name])()
        return captioner
    for point in entry_points(group="mannerism.captioners", name=name):
        made: Captioner = point.load()()
        return made
    if not Path(name).expanduser().is_dir():
        raise _unknown("concept.captioner", name, _CAPTIONERS, "or a folder of a vision-language model")
    from pipeline_lib.captions.vlm import VLMCaptioner

    fallback: Captioner = _load(_CAPTIONERS["template"])()
    return VLMCaptioner(Path(name).expanduser(), fallback)


def encoder_folder(config: RunConfig) -> Path | None:
    """Folder of the image-text encoder that scores a run's samples; None where there is none.

    Raises:
        ConfigError: a folder was named and is not there.
    """
    name = config.evaluation.encoder
    if name == "none":
        return None
    if name == "auto":
        named = BASES.get(config.base.source)
        return named.encoder if named and named.encoder and (named.encoder / "config.json").is_file() else None
    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        raise ConfigError(f"evaluation.encoder: no CLIP model in {name}", fix="give the folder of one, or none")
    return folder


def open_encoder(folder: Path, device: str) -> ImageTextEncoder:
    """The encoder in a folder that :func:`encoder_folder` told."""
    from pipeline_lib.features.image_text import ClipEncoder

    return ClipEncoder(folder, device=device)


def _method(name: str) -> Method:
    if name in _METHODS:
        method: Method = _load(_METHODS[name])()
        return method
    for point in entry_points(group="mannerism.methods", name=name):
        other: Method = point.load()()
        return other
    raise _unknown("method.name", name, method_names())


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def _over(ground: Any, values: Any) -> dict[str, Any]:
    """A preset's values under a person's own, section by section."""
    merged = dict(ground)
    for key, value in values.items():
        inner = merged.get(key)
        merged[key] = _over(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _unknown(key: str, got: str, known: Iterable[str], also: str = "") -> ConfigError:
    names = list(known)
    near = difflib.get_close_matches(got, names, n=1)
    expected = ", ".join(names) + (f", {also}" if also else "")
    return ConfigError(f"unknown {key} {got!r}", expected=expected, fix=f"did you mean {near[0]!r}?" if near else "")


def _bad_setting(method: Method, error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(["method.settings", *path])
    if first["type"] != "extra_forbidden":
        return ConfigError(f"{key}: {first['msg']}", got=str(first.get("input"))[:120])
    names = list(method.settings_type.model_fields) if len(path) == 1 else []
    near = difflib.get_close_matches(path[-1], names, n=1)
    fix = f"did you mean `method.settings.{near[0]}`?" if near else ""
    return ConfigError(f"method {method.name} has no setting `{key}`", expected=", ".join(names), fix=fix)
