"""Everything a person may say about a run, each setting once, with its unit and its default.

A run config is YAML (:func:`load_config`), a chain of `--set key=value` (:func:`with_settings`) or
plain Python. It is frozen, and an unknown key is an error that names the nearest valid one. Words that
name implementations (base, method, captioner) are resolved by :mod:`pipeline_lib.registry`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError

from pipeline_lib.errors import ConfigError
from pipeline_lib.records import Caption, LoraUse
from pipeline_lib.sections import (
    ENCODERS,
    BaseSection,
    ConceptSection,
    EvaluationSection,
    MaskSection,
    MethodSection,
    SamplesSection,
    Section,
    TrackingSection,
    TrainingSection,
)

# What pydantic says in words of Python.
_PLAIN_WORDS = {
    "tuple_type": "a list is needed, e.g. [1, 2]",
    "model_type": "a section of `key: value` is needed",
    "dict_type": "a section of `key: value` is needed",
}


class RunConfig(Section):
    """One run: a concept, a base, a method, and what to make with the result."""

    concept: ConceptSection = Field(default_factory=ConceptSection)
    base: BaseSection = Field(default_factory=BaseSection)
    method: MethodSection = Field(default_factory=MethodSection)
    captions: tuple[Caption, ...] = Field(
        default=(),
        description="your own captions, one for each clip, or one for all: {class_noun: …, static: …, motion: …}",
    )
    mask: MaskSection = Field(default_factory=MaskSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    samples: SamplesSection = Field(default_factory=SamplesSection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)
    tracking: TrackingSection = Field(default_factory=TrackingSection)
    seed: int = Field(default=0, ge=0, description="of everything random; same seed, same bits")

    @property
    def concept_name(self) -> str:
        """The concept's name, safe as a path: given, or from the first input's file name."""
        raw = self.concept.name or (Path(self.concept.inputs[0]).stem if self.concept.inputs else "concept")
        return re.sub(r"[^a-z0-9]+", "-", raw.lower()).strip("-")[:48] or "concept"


def load_config(path: Path) -> RunConfig:
    """Reads a YAML config; relative paths in it are relative to the file.

    Args:
        path: of the file.

    Returns:
        The config, its paths absolute.

    Raises:
        ConfigError: not readable, not YAML, or a key or value that is not valid; names file and key.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read", got=str(error)) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}, line {line}, is not valid YAML", got=str(error.problem)) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML", got=" ".join(str(error).split())) from error
    if not isinstance(loaded, dict):
        raise ConfigError(
            f"{path} holds no settings", expected="sections such as `concept:`", fix="see `mannerism init`"
        )
    return anchored(parse_config(loaded, origin=str(path)), path.resolve().parent)


def parse_config(values: Mapping[str, Any], origin: str = "the config") -> RunConfig:
    """A config from plain values.

    Args:
        values: sections and their keys, as in YAML.
        origin: what the error message calls the source.

    Returns:
        The validated config.

    Raises:
        ConfigError: an unknown key (the nearest valid one is named) or a value that is not valid.
    """
    try:
        return RunConfig.model_validate(dict(values))
    except ValidationError as error:
        raise _explained(error, origin) from error


def with_settings(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    """The config with `key=value` overrides; keys are dotted, values are YAML.

    Args:
        config: left as it is.
        settings: e.g. `method.settings.rank=4`; a later one wins.

    Returns:
        A new config.

    Raises:
        ConfigError: not of the form `key=value`, an unknown key, or a value that is not valid.
    """
    values = config.model_dump()
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {setting}", expected="key=value, e.g. method.settings.rank=4")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {key}: the value is not valid YAML", got=text) from error
        _put(values, key.strip().split("."), "" if value is None else value, key)
    return parse_config(values, origin="--set")


def _put(values: dict[str, Any], path: Sequence[str], value: Any, key: str) -> None:
    *parents, last = path
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {key}: `{parent}` is a value, not a section")
        values = inner
    values[last] = value


def plain_words(kind: str, message: str) -> str:
    """What pydantic says of a value, without words of Python."""
    return _PLAIN_WORDS.get(kind, message)


def _explained(error: ValidationError, origin: str) -> ConfigError:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    if first["type"] != "extra_forbidden":
        if first["type"] == "value_error":  # of a whole section: our own words, and its values would not help
            return ConfigError(f"{origin}: `{key}`: {first['msg'].removeprefix('Value error, ')}")
        got = json.dumps(first.get("input"), default=str)[:120]
        return ConfigError(f"{origin}: `{key}`: {plain_words(first['type'], first['msg'])}", got=got)
    valid = keys_beside(location[:-1])
    near = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.55)
    elsewhere = [path for path in _all_keys() if path.rpartition(".")[2] == location[-1]]
    hint = elsewhere[0] if elsewhere else ".".join([*location[:-1], near[0]]) if near else ""
    fix = f"did you mean `{hint}`?" if hint else f"valid keys here: {', '.join(valid)}"
    return ConfigError(f"{origin}: unknown key `{key}`", fix=fix)


def keys_beside(parents: Sequence[str], model: type[BaseModel] = RunConfig) -> list[str]:
    """All keys that may stand at a place; it is given by the keys above, and by places in lists."""
    for name in parents:
        if name.isdigit():
            continue
        found = model.model_fields[name].annotation  # a section, or a tuple of records
        parts = (found, *get_args(found), *(part for item in get_args(found) for part in get_args(item)))
        kinds = (kind for kind in parts if isinstance(kind, type))
        model = next(kind for kind in kinds if issubclass(kind, BaseModel))
    return list(model.model_fields)


def _all_keys() -> list[str]:
    sections = {name: field.annotation for name, field in RunConfig.model_fields.items()}
    return [
        f"{name}.{key}"
        for name, model in sections.items()
        if isinstance(model, type) and issubclass(model, Section)
        for key in model.model_fields
    ]


def anchored(config: RunConfig, folder: Path) -> RunConfig:
    """The config with its relative paths made absolute.

    Args:
        config: inputs, LoRAs and prompt file are paths; base, captioner and encoder may be, and are when they
            look like one and are there: a bare word is a name, never a folder that happens to be near.
        folder: what the paths are relative to.

    Returns:
        The same config, to be run from anywhere.
    """

    def path(text: str) -> str:
        return str(folder.absolute() / Path(text).expanduser())

    def path_or_name(text: str) -> str:
        return path(text) if "/" in text and Path(path(text)).is_dir() else text

    concept, samples, evaluation = config.concept, config.samples, config.evaluation
    inputs = tuple(path(text) for text in concept.inputs)
    prompts = path(samples.prompts_file) if samples.prompts_file else ""
    captioner = path_or_name(concept.captioner)
    named, masks = config.mask.segmenter, path(config.mask.segmenter)
    segmenter = masks if named not in ("none", "auto") and Path(masks).exists() else named
    encoders = {name: path_or_name(getattr(evaluation, name)) for name in ENCODERS}

    def files(loras: Sequence[LoraUse]) -> tuple[LoraUse, ...]:
        return tuple(lora.model_copy(update={"path": path(lora.path)}) for lora in loras)

    base, start = config.base, files(config.method.start)
    based = {"source": path_or_name(base.source), "loras": files(base.loras)}
    return config.model_copy(
        update={
            "concept": concept.model_copy(update={"inputs": inputs, "captioner": captioner}),
            "mask": config.mask.model_copy(update={"segmenter": segmenter}),
            "samples": samples.model_copy(update={"prompts_file": prompts}),
            "base": base.model_copy(update=based),
            "method": config.method.model_copy(update={"start": start}),
            "evaluation": evaluation.model_copy(update=encoders),
        }
    )


def config_text(config: RunConfig) -> str:
    """The config as commented YAML: every key with what it means; loads to an equal config."""
    lines = ["# Mannerism run. Every key is optional but concept.inputs; `mannerism run THIS_FILE` runs it."]
    for name, field in RunConfig.model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Section):
            about = (type(value).__doc__ or "").strip().splitlines()[0]
            lines += ["", f"{name}:  # {about}"]
            for key, inner in type(value).model_fields.items():
                lines.append(f"  {key}: {_flow_style(getattr(value, key))}  # {inner.description}")
        else:
            lines += ["", f"{name}: {_flow_style(value)}  # {field.description}"]
    return "\n".join(lines) + "\n"


def _flow_style(value: Any) -> str:
    plain = (
        [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
        if isinstance(value, tuple)
        else value
    )
    return json.dumps(plain, ensure_ascii=False)


def digest(values: Any) -> str:
    """SHA-256 over the canonical JSON of plain values."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
