"""What a drop may say of itself: `concept.yaml`, its schema, and the run that comes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline_lib.errors import ConfigError
from pipeline_lib.records import Caption
from pipeline_lib.run_config import RunConfig, keys_beside, parse_config, plain_words

FILE_NAME = "concept.yaml"
READY_MARK = "_READY"
MEDIA = "media"
MOST_PROMPTS, MOST_SEEDS = 50, 8  # a stranger's drop must not hold the service's GPU for days
_MOST_BYTES = 32 * 2**10
_MOST_MISTAKES = 10  # that are told


class ConceptFile(BaseModel):
    """What whoever drops a concept may say of it; base, hardware and training are for whoever runs the service.

    Nothing in it is a path: a drop's files are its own media alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="", description="name of the concept; empty: the drop's own name")
    subject: str = Field(default="", description="what the subject is: 'grey wolf'; empty: the drop's name as words")
    class_noun: str = Field(default="", description="its class in one noun; empty: the subject's last word")
    shot: int = Field(default=0, ge=0, description="which shot of a clip with cuts, from 1; 0: the longest one")
    captions: tuple[Caption, ...] = Field(default=(), description="own captions, one for each clip, or one for all")
    prompts: tuple[str, ...] = Field(
        default=(), max_length=MOST_PROMPTS, description="with {subject}; empty: edits of the caption"
    )
    negative_prompt: str = Field(default="", description="empty: the base's own")
    sample_seeds: tuple[int, ...] = Field(
        default=(), max_length=MOST_SEEDS, description="one video for each prompt and seed; empty: as usual"
    )
    mask: bool | None = Field(default=None, description="only the subject counts in the loss; empty: as usual")
    preset: str = Field(default="", description="of the method; empty: as usual")
    seed: int | None = Field(default=None, ge=0, description="of everything random; empty: as usual")


def schema() -> str:
    """The JSON schema of `concept.yaml`, for editors and for those who make drops by program."""
    return json.dumps(ConceptFile.model_json_schema(), indent=2) + "\n"


def drop_config(folder: Path, name: str, template: RunConfig, place: Path) -> RunConfig:
    """The run that a drop asks for.

    Args:
        folder: of the drop, as it lies now.
        name: of the drop, as it came: gives name and subject where the file says none.
        template: base, method and training of the service.
        place: where the drop's folder will lie when the run reads it.

    Returns:
        The config; its input is the folder itself.

    Raises:
        ConfigError: `concept.yaml` cannot be read, or says something that it may not.
    """
    said = _read(folder / FILE_NAME)
    words = " ".join(Path(name).stem.replace("_", " ").replace("-", " ").split())
    given: dict[str, Mapping[str, Any]] = {
        "concept": {
            "name": said.name or Path(name).stem,
            "inputs": (str(place),),
            "subject": said.subject or words,
            "class_noun": said.class_noun,
            "shot": said.shot,
        },
        "method": {"preset": said.preset},
        "samples": {"prompts": said.prompts, "negative_prompt": said.negative_prompt, "seeds": said.sample_seeds},
        "mask": {"segmenter": "" if said.mask is None else "auto" if said.mask else "none"},
    }
    values = template.model_dump()
    for section, inner in given.items():
        values[section] |= {key: value for key, value in inner.items() if value not in ("", ())}
    values |= {"captions": said.captions or template.captions}
    values |= {"seed": template.seed if said.seed is None else said.seed}
    return parse_config(values, origin=f"{name}/{FILE_NAME}")


def _read(path: Path) -> ConceptFile:
    if not path.exists():
        return ConceptFile()
    if path.stat().st_size > _MOST_BYTES:
        raise ConfigError(f"{path.name} is too large", expected=f"at most {_MOST_BYTES // 2**10} KiB")
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):  # a few lines can hold gigabytes
            raise yaml.YAMLError("aliases are not taken")
        loaded = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: dates and numbers too
        raise ConfigError(f"{path.name} cannot be read as YAML", got=" ".join(str(error).split())[:200]) from error
    if loaded is None:
        return ConceptFile()
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path.name} holds no settings", expected="lines such as `subject: grey wolf`")
    try:
        return ConceptFile.model_validate(loaded)
    except ValidationError as error:
        raise _explained(error, path.name) from error


def _explained(error: ValidationError, name: str) -> ConfigError:
    """All mistakes in one error, with the keys that would be right where one is not."""
    mistakes = error.errors()
    told, valid = [], {}
    for mistake in mistakes[:_MOST_MISTAKES]:
        location = [str(part) for part in mistake["loc"]]
        key, section = ".".join(location), ".".join(part for part in location[:-1] if not part.isdigit())
        if mistake["type"] == "extra_forbidden":
            told.append(f"unknown key `{key}`")
            valid[section] = ", ".join(keys_beside(location[:-1], ConceptFile))
        else:
            got = json.dumps(mistake.get("input"), default=str)[:120]
            told.append(f"`{key}`: {plain_words(mistake['type'], mistake['msg'])}, got {got}")
    if more := len(mistakes) - len(told):
        told.append(f"and {more} more")
    keys = [f"valid keys{f' of `{section}`' if section else ''}: {known}" for section, known in valid.items()]
    return ConfigError(f"{name}: {'; '.join(told)}", fix="; ".join(keys))
