"""What a batch is made of: concepts in a folder or a list, each with the run that it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.drops.concept_file import FILE_NAME, drop_config
from pipeline_lib.errors import ConfigError, InputError
from pipeline_lib.media.collect import CLIP_SUFFIXES
from pipeline_lib.run_config import RunConfig


@dataclass(frozen=True)
class Chosen:
    """One concept of a batch.

    Attributes:
        name: for people.
        config: its run; None where there is none to be had.
        problem: why not.
    """

    name: str
    config: RunConfig | None
    problem: str = ""


def chosen_concepts(paths: Sequence[Path], template: RunConfig) -> list[Chosen]:
    """The runs of a list of concepts.

    Args:
        paths: clips, folders of clips or images; a folder may hold a `concept.yaml`, as a data drop may.
        template: base, method and training of every run.

    Returns:
        One for each path, in order; a path given twice counts once.

    Raises:
        ConfigError: the template has inputs of its own.
    """
    if template.concept.inputs:
        raise ConfigError("`concept.inputs` is set", fix="leave it out: the inputs are the batch's concepts")
    places = dict.fromkeys(path.expanduser().absolute() for path in paths)
    return [_chosen(path, template) for path in places]


def concepts_in(folder: Path) -> list[Path]:
    """The concepts directly in a folder: its clips and its folders, by name; hidden ones are left out.

    Args:
        folder: a folder of concepts; one that holds a `concept.yaml` is itself the only one.

    Returns:
        Their paths.

    Raises:
        InputError: it is no folder, or there is none in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder", fix="name a folder of clips and folders, or the concepts themselves")
    if (folder / FILE_NAME).is_file():
        return [folder]
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    found = [path for path in inside if path.is_dir() or path.suffix.lower() in CLIP_SUFFIXES]
    if not found:
        raise InputError(f"{folder} holds no concepts", expected="clips, or folders of clips or images")
    return found


def _chosen(path: Path, template: RunConfig) -> Chosen:
    try:
        config = drop_config(path, path.name, template, path)
    except InputError as error:
        return Chosen(path.name, None, str(error))
    return Chosen(config.concept_name, config)
