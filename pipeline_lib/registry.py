"""Names to implementations: with :mod:`pipeline_lib.observers` the only module that knows them all.

Outsiders add methods of their own through the entry points `mannerism.methods`: a class that follows
:class:`pipeline_lib.methods.method.Method`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from pipeline_lib.errors import ConfigError
from pipeline_lib.methods.settings import Configurable, MethodSettings, settings_from
from pipeline_lib.pocket.zoo import zoo_root
from pipeline_lib.records import LoraUse
from pipeline_lib.run_config import RunConfig

if TYPE_CHECKING:
    from pipeline_lib.features.encoders import FrameEncoder, IdentityEncoder, ImageTextEncoder
    from pipeline_lib.features.truth import TruthReader
    from pipeline_lib.methods.method import Method
    from pipeline_lib.models.base import BaseModel

_METHOD_GROUP = "mannerism.methods"
_METHODS = {
    "set_and_sequence": "pipeline_lib.methods.set_and_sequence.method:SetAndSequence",
    "two_stage": "pipeline_lib.methods.baselines.two_stage:TwoStage",
    "lora": "pipeline_lib.methods.baselines.lora:PlainLora",
    "textual_inversion": "pipeline_lib.methods.baselines.textual_inversion:TextualInversion",
    "dreammix": "pipeline_lib.methods.baselines.dreammix:DreamMix",
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SETTINGS = {
    "set_and_sequence": "pipeline_lib.methods.set_and_sequence.settings:SETTINGS",
    "two_stage": "pipeline_lib.methods.baselines.settings:TWO_STAGE",
    "lora": "pipeline_lib.methods.baselines.settings:LORA",
    "textual_inversion": "pipeline_lib.methods.baselines.settings:TEXTUAL_INVERSION",
    "dreammix": "pipeline_lib.methods.baselines.settings:DREAMMIX",
}


class NamedBase(NamedTuple):
    """A base that has a name of its own: its folder, the preset that suits it, the models of its world.

    `loras` are what makes it out of the folder's weights, where it is a sibling of another base.
    """

    folder: Path
    preset: str
    encoder: Path | None
    image_encoder: Path | None
    identity_encoder: Path | None = None
    captioner: Path | None = None
    segmenter: Path | None = None
    loras: tuple[Path, ...] = ()


_POCKET = NamedBase(
    folder=zoo_root() / "base",
    preset="pocket",
    encoder=zoo_root() / "clip",
    image_encoder=zoo_root() / "image",
    identity_encoder=zoo_root() / "identity",
    captioner=zoo_root() / "captioner",
    segmenter=zoo_root() / "segmenter",
)
BASES: dict[str, NamedBase] = {
    "pocket": _POCKET,
    "pocket-outline": _POCKET._replace(loras=(zoo_root() / "outline" / "lora.safetensors",)),
}


class NamedTruth(NamedTuple):
    """A world whose truth is known: who reads it, `module:class`, and the files of the reader's weights.

    `concept` gives what it knows by number, `module:function`.
    """

    reader: str
    concept: str
    weights: tuple[Path, ...]


_JUDGE = tuple(zoo_root() / "judge" / name for name in ("first.safetensors", "first_gallery.safetensors"))
TRUTHS: dict[str, NamedTruth] = {
    "gizmo": NamedTruth("pipeline_lib.pocket.truth_reader:GizmoTruth", "pipeline_lib.world.gizmos:gizmo", _JUDGE),
    "pair": NamedTruth("pipeline_lib.pocket.truth_reader:PairTruth", "pipeline_lib.world.pairs:pair", _JUDGE),
}


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
    return names_of(_METHODS, _METHOD_GROUP)


def choose_method(config: RunConfig) -> MethodChoice:
    """The method of a run, its preset and its settings.

    Args:
        config: its `method` section, and its base for the default preset.

    Returns:
        The method and its validated settings: the preset's, overridden by the config's.

    Raises:
        ConfigError: no such method, preset or setting, or a bad value.
    """
    preset, settings = choose_settings(config)
    method: Method = made(config.method.name, _METHODS, _METHOD_GROUP)
    if config.method.start and not getattr(method, "starts_from_loras", False):
        raise ConfigError(f"method.start: the method {method.name} starts from nothing", fix="leave it out")
    return MethodChoice(method, preset, settings)


def choose_settings(config: RunConfig) -> tuple[str, Any]:
    """Preset and settings of a run's method; of a built-in one known without its code, and so without torch.

    Args:
        config: as for :func:`choose_method`.

    Returns:
        The preset's name, and the method's own settings record.

    Raises:
        ConfigError: no such method, preset or setting, or a bad value.
    """
    method = _method_settings(config.method.name)
    preset = config.method.preset or default_preset(config.base.source)
    if preset not in method.presets:
        raise unknown_name("method.preset", preset, method.presets)
    try:
        return preset, settings_from(method, preset, config.method.settings)
    except ValidationError as error:
        raise _bad_setting(method, error) from error


def default_preset(source: str) -> str:
    """The preset that suits a base: its own where it has a name, else "portable"."""
    return BASES[source].preset if source in BASES else "portable"


def loras_on_base(config: RunConfig) -> tuple[LoraUse, ...]:
    """The LoRAs that are merged into a run's base: those that its name stands for, then the config's own."""
    named = BASES.get(config.base.source)
    return (*(LoraUse(path=str(path)) for path in (named.loras if named else ())), *config.base.loras)


def base_source(config: RunConfig) -> str:
    """What :func:`pipeline_lib.models.load.load_base` takes: the folder behind a name, a folder, or a hub id.

    Args:
        config: its `base.source`.

    Returns:
        The source; what is in it is not looked at.

    Raises:
        ConfigError: no such name or folder, or a name whose models are not installed.
    """
    source = config.base.source
    if source in BASES:
        folder = BASES[source].folder
        if not all(path.is_file() for path in (folder / "model_index.json", *BASES[source].loras)):
            raise ConfigError(f"the base {source!r} is not part of this installation", fix="name a diffusers folder")
        return str(folder)
    if not Path(source).expanduser().exists() and not _HUB_ID.fullmatch(source):
        raise unknown_name("base.source", source, BASES, "or a diffusers folder, or a hub id like org/name")
    return source


def check_base(config: RunConfig) -> None:
    """Looks at a base without loading anything.

    Args:
        config: its `base.source`; of a hub id only the form is looked at.

    Raises:
        InputError: no such name, a folder that is no base of a known family, or one that could not be used: a part is
            missing, a variant that is not supported, sizes or lengths that its networks cannot make.
    """
    from pipeline_lib.models.families import family_of
    from pipeline_lib.models.folder import PipelineFolder

    folder = Path(base_source(config)).expanduser()
    if folder.exists():
        opened = PipelineFolder(folder)
        family_of(opened).frame_rules(opened)


def open_base(config: RunConfig, device: str, dtype: str) -> BaseModel:
    """The base of a run; its weights are read when first used.

    Args:
        config: of the run.
        device: "cpu", "cuda" or "cuda:N".
        dtype: "float32" or "bfloat16".

    Returns:
        The base, with the LoRAs of :func:`loras_on_base` on it.

    Raises:
        InputError: nothing usable there, or a LoRA that does not fit it.
    """
    import torch

    from pipeline_lib.models.economy import Economy
    from pipeline_lib.models.load import load_base
    from pipeline_lib.models.lora_file import used_loras
    from pipeline_lib.models.lora_use import check_loras

    revision = config.base.revision or None
    training = config.training
    economy = Economy(storage=training.storage, swapped_blocks=training.swapped_blocks, compiled=training.compile)
    base = load_base(
        base_source(config), device=device, dtype=getattr(torch, dtype), revision=revision, economy=economy
    )
    base.loras = used_loras(loras_on_base(config))
    check_loras(base, used_loras(config.method.start))
    return base


def encoder_folder(config: RunConfig, role: str = "encoder") -> Path | None:
    """Folder of an encoder that scores a run's samples; None where there is none.

    Args:
        config: its `evaluation`: "none", "auto" for the one that comes with the base, or a folder.
        role: one of `ENCODERS`: a CLIP model, a vision transformer (DINO's role), or an identity encoder.

    Returns:
        The folder of the model, or None.

    Raises:
        ConfigError: a folder was named and is not there.
    """
    name, named = getattr(config.evaluation, role), BASES.get(config.base.source)
    if name == "none":
        return None
    if name == "auto":
        own: Path | None = getattr(named, role, None)
        return own if own and (own / "config.json").is_file() else None
    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        raise ConfigError(f"evaluation.{role}: no model in {name}", fix="give the folder of one, or none")
    return folder


def open_encoder(folder: Path, device: str) -> ImageTextEncoder:
    """The image-text encoder in a folder that :func:`encoder_folder` told."""
    from pipeline_lib.features.image_text import ClipEncoder

    return ClipEncoder(folder, device=device)


def open_image_encoder(folder: Path, device: str) -> FrameEncoder:
    """The image encoder in a folder that :func:`encoder_folder` told."""
    from pipeline_lib.features.vit import VitEncoder

    return VitEncoder(folder, device=device)


def open_identity_encoder(folder: Path, device: str) -> IdentityEncoder:
    """The identity encoder in a folder that :func:`encoder_folder` told."""
    from pipeline_lib.features.identity import CropIdentityEncoder

    return CropIdentityEncoder(folder, device=device)


def truth_weights(config: RunConfig) -> list[Path]:
    """Files of the weights that read a run's samples against the truth; none where no truth is known.

    Args:
        config: its `evaluation.truth`: empty, or a world and a number in it, e.g. "gizmo:4".

    Returns:
        The files, all there.

    Raises:
        InputError: no such world, nothing of that number in it, or a reader that is not installed.
    """
    if not config.evaluation.truth:
        return []
    named, _ = _named_truth(config)
    absent = [path.name for path in named.weights if not path.is_file()]
    if absent:
        raise ConfigError("evaluation.truth: its judge is not part of this installation", got=f"no {', '.join(absent)}")
    return list(named.weights)


def open_truth(config: RunConfig) -> TruthReader | None:
    """Who reads a run's samples against the truth; None where no truth is known.

    Args:
        config: as for :func:`truth_weights`.

    Returns:
        The reader; its weights are read when first used.

    Raises:
        InputError: as :func:`truth_weights` raises it.
    """
    weights = truth_weights(config)
    if not weights:
        return None
    named, number = _named_truth(config)
    reader: TruthReader = _attribute(named.reader)(number, *weights)
    return reader


def _named_truth(config: RunConfig) -> tuple[NamedTruth, int]:
    name, _, number = config.evaluation.truth.partition(":")
    if name not in TRUTHS or not number.isdecimal():
        raise unknown_name("evaluation.truth", config.evaluation.truth, [f"{known}:NUMBER" for known in TRUTHS])
    _attribute(TRUTHS[name].concept)(int(number))
    return TRUTHS[name], int(number)


def _attribute(where: str) -> Any:
    """What `module:name` names; imported when needed."""
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)


def _method_settings(name: str) -> Configurable:
    if name not in method_names():
        raise unknown_name("method.name", name, method_names())
    if name in _SETTINGS:
        settings: MethodSettings = _attribute(_SETTINGS[name])
        return settings
    method: Method = made(name, _METHODS, _METHOD_GROUP)
    return method


def names_of(built_in: Mapping[str, str], group: str) -> list[str]:
    """Names of a kind, built in and installed."""
    return [*built_in, *(point.name for point in entry_points(group=group))]


def made(name: str, built_in: Mapping[str, str], group: str) -> Any:
    """What a name stands for, built in or installed; None where it stands for nothing."""
    if name in built_in:
        return _attribute(built_in[name])()
    for point in entry_points(group=group, name=name):
        return point.load()()
    return None


def unknown_name(key: str, got: str, known: Iterable[str], also: str = "") -> ConfigError:
    """The error for a name that stands for nothing; the nearest known one is named."""
    names = list(known)
    near = difflib.get_close_matches(got, names, n=1)
    expected = ", ".join(names) + (f", {also}" if also else "")
    return ConfigError(f"unknown {key} {got!r}", expected=expected, fix=f"did you mean {near[0]!r}?" if near else "")


def _bad_setting(method: Configurable, error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(["method.settings", *path])
    if first["type"] != "extra_forbidden":
        return ConfigError(f"{key}: {first['msg']}", got=str(first.get("input"))[:120])
    fields = method.settings_type.model_fields
    for name in path[:-1]:
        fields = getattr(fields[name].annotation, "model_fields", {}) if name in fields else {}
    names = list(fields)
    near = difflib.get_close_matches(path[-1], names, n=1)
    fix = f"did you mean `{'.'.join(['method.settings', *path[:-1], near[0]])}`?" if near else ""
    return ConfigError(f"method {method.name} has no setting `{key}`", expected=", ".join(names), fix=fix)
