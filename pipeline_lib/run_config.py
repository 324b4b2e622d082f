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
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator

from pipeline_lib.errors import ConfigError
from pipeline_lib.records import Caption, LoraUse

# What pydantic says in words of Python.
_PLAIN_WORDS = {
    "tuple_type": "a list is needed, e.g. [1, 2]",
    "model_type": "a section of `key: value` is needed",
    "dict_type": "a section of `key: value` is needed",
}
# A line of text in Prefect's form, which shows two levels of models: a config's section is one already.
LoraText = Annotated[LoraUse, WithJsonSchema({"type": "string", "title": "FILE:STRENGTH"})]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}$"


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ConceptSection(Section):
    """What is to be learned, and from what."""

    name: str = Field(default="", description="name of the concept; empty: taken from the first input's file name")
    inputs: tuple[str, ...] = Field(default=(), description="clips, images or folders of them; relative to this file")
    subject: str = Field(
        default="", description="what the subject is, in a few words: 'grey wolf', 'plush bear with a bow'"
    )
    class_noun: str = Field(
        default="",
        description="its class in one noun: 'wolf'; empty: the last word of `subject` before 'with', 'in', 'of', …",
    )
    shot: int = Field(default=0, ge=0, description="which shot of a clip with cuts, from 1; 0: the longest one")
    captioner: str = Field(
        default="auto",
        description="auto (the base's own, else template), template (measures), or a folder of a vision-language model",
    )


class BaseSection(Section):
    """The video model that learns."""

    source: str = Field(default="pocket", min_length=1, description="'pocket', a diffusers folder, or a hub id")
    revision: str = Field(default="", description="revision of a hub id; empty: the default branch")
    loras: tuple[LoraText, ...] = Field(
        default=(),
        description="LoRA files of others that stay on the base all the while: [style.safetensors:0.8]; of two experts "
        "[high=a.safetensors, low=b.safetensors]",
    )


class MethodSection(Section):
    """How the subject is taught."""

    name: str = Field(default="set_and_sequence", min_length=1, description="set_and_sequence, or lora (the baseline)")
    preset: str = Field(default="", description="paper, portable, pocket or demo; empty: what suits the base")
    settings: dict[str, Any] = Field(default_factory=dict, description="overrides of the preset, e.g. {rank: 16}")
    start: tuple[LoraText, ...] = Field(
        default=(), description="LoRA files that the first stage starts from, not from zero; written as base.loras are"
    )


class TrainingSection(Section):
    """Where and how training runs; only storage in fewer bits changes what is learned beyond rounding."""

    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="dtype of the frozen base; auto: bfloat16 on CUDA, float32 on the CPU"
    )
    micro_batch: int = Field(default=0, ge=0, description="samples per forward pass; 0: the whole batch at once")
    gradient_checkpointing: bool = Field(default=False, description="recompute activations to save memory")
    storage: Literal["full", "fp8", "nf4"] = Field(
        default="full",
        description="of the frozen denoiser's weights; fp8: a half of bfloat16's memory, slower steps; nf4: a quarter, "
        "needs the extra `quantised`",
    )
    swapped_blocks: int = Field(
        default=0, ge=0, description="blocks of the denoiser that stay in host memory and visit the device in turn"
    )
    compile: bool = Field(default=False, description="compile the denoiser's blocks: a slow start, faster steps")
    processes: int = Field(
        default=1, ge=1, le=64, description="processes that share each step's samples, on CUDA one for each GPU"
    )
    checkpoint_every: int = Field(default=50, gt=0, description="optimizer steps between checkpoints")
    preview_every: int = Field(default=0, ge=0, description="optimizer steps between preview videos; 0: none")

    @model_validator(mode="after")
    def _saves_memory(self) -> TrainingSection:
        # Without recomputation the backward pass holds on to every block's full-width copy until it is reached.
        if (self.storage != "full" or self.swapped_blocks) and not self.gradient_checkpointing:
            raise ValueError("storage and swapped_blocks save nothing without gradient_checkpointing: true")
        return self

    @model_validator(mode="after")
    def _goes_with_processes(self) -> TrainingSection:
        if self.processes > 1 and ":" in self.device:
            raise ValueError(f"{self.processes} processes take one GPU each, but device names one: {self.device}")
        if self.processes > 1 and (self.swapped_blocks or self.compile):
            raise ValueError("several processes do not go with swapped_blocks or compile: nobody has tried it")
        return self


class SamplesSection(Section):
    """The videos made before and after training, with the same prompts and seeds."""

    prompts: tuple[str, ...] = Field(
        default=(),
        description="with {subject} in the subject's place; the caption itself goes first; empty: edits of it",
    )
    prompts_file: str = Field(default="", description="a file of prompts: one a line, or a YAML/JSON list")
    negative_prompt: str = Field(default="", description="empty: the base's own")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1, description="one video for each prompt and seed")
    num_inference_steps: int = Field(default=0, ge=0, description="denoising steps; 0: the base's own")
    guidance_scale: float = Field(default=0.0, ge=0, description="classifier-free guidance; 0: the base's own; 1: none")
    identity_strength: float = Field(default=1.0, ge=0, le=4, description="strength of the learned appearance")
    motion_strength: float = Field(default=1.0, ge=0, le=4, description="strength of the learned motion")


class MaskSection(Section):
    """Whether training looks at the subject alone."""

    segmenter: str = Field(
        default="none",
        min_length=1,
        description="none, auto (the base's own), a folder of a CLIPSeg model, or your own masks: a video or images",
    )
    subject: str = Field(default="", description="what the segmenter looks for; empty: the class noun")


class EvaluationSection(Section):
    """How the samples are scored."""

    encoder: str = Field(
        default="auto",
        description="image-text encoder: auto (the base's own, if any), none, or a local folder of a CLIP model",
    )
    image_encoder: str = Field(
        default="auto",
        description="image encoder, DINO's role: auto (the base's own, if any), none, or a local folder of a ViT",
    )
    truth: str = Field(
        default="", description="what is known to be true of the subject: 'gizmo:4' of the pocket world; empty: nothing"
    )


class TrackingSection(Section):
    """What is logged to MLflow; runs from Python log nothing."""

    mlflow: bool = Field(default=True, description="log the run")
    experiment: str = Field(default="mannerism", pattern=_NAME, description="MLflow experiment")
    register_model: bool = Field(default=True, description="register the final LoRA under the concept's name")


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
    valid = _keys_beside(location[:-1])
    near = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.55)
    elsewhere = [path for path in _all_keys() if path.rpartition(".")[2] == location[-1]]
    hint = elsewhere[0] if elsewhere else ".".join([*location[:-1], near[0]]) if near else ""
    fix = f"did you mean `{hint}`?" if hint else f"valid keys here: {', '.join(valid)}"
    return ConfigError(f"{origin}: unknown key `{key}`", fix=fix)


def _keys_beside(parents: Sequence[str]) -> list[str]:
    model: type[BaseModel] = RunConfig
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
    encoders = {name: path_or_name(getattr(evaluation, name)) for name in ("encoder", "image_encoder")}

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
