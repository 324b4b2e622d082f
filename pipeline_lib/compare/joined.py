"""Comparisons of different methods as one: their cells may have been made in other folders, on other days."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from pipeline_lib.compare.entries import CORE
from pipeline_lib.compare.folder import SCORES_FILE, CompareFolder, CompareRecord
from pipeline_lib.compare.paper import ORDERINGS
from pipeline_lib.compare.scores_file import read_scores, write_scores
from pipeline_lib.compare.slices import outside, slices
from pipeline_lib.errors import InputError
from pipeline_lib.metrics.aggregate import ScoredSample
from pipeline_lib.metrics.comparison import BESIDE, compared
from pipeline_lib.storage import write_atomic

ALIKE = ("base", "seeds", "seed", "guidance_scale", "concepts", "models")
"""What of two records must be equal, or their numbers do not stand beside each other."""
RECORD_FILE = f"{CompareFolder.kind}.json"
_ORDER = {entry.label: place for place, entry in enumerate(CORE)}


def joined(folders: Sequence[Path]) -> tuple[CompareRecord, list[ScoredSample]]:
    """One comparison from the folders of several, its numbers computed anew from every sample's scores.

    Args:
        folders: each with `compare.json` and `scores.csv`; no method in two of them. Base, ceiling and chance are
            taken from the first.

    Returns:
        The record, and all samples. Of one folder they are as they are. Else methods are in the order of the core and
        then as they come; `seconds` and `starts` are sums, and there are no blind pairs.

    Raises:
        InputError: a folder without these files, an equal method in two, or comparisons that differ in more than
            their methods.
    """
    records, samples = [_record(folder) for folder in folders], _samples(folders)
    first, *others = records
    if not others:
        return first, samples
    for record, folder in zip(others, folders[1:], strict=True):
        _check(first, record, folder)
    methods = sorted(
        (method for record in records for method in record.methods),
        key=lambda method: _ORDER.get(method.entry.label, len(_ORDER)),
    )
    labels = [method.entry.label for method in methods]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError("a method was compared twice", got=", ".join(twice), fix="leave one of the folders out")
    alike = slices(first.concepts)
    place = {label: number for number, label in enumerate(labels)}
    record = first.model_copy(
        update={
            "compare_id": " + ".join(record.compare_id for record in records),
            "started": min(record.started for record in records),
            "seconds": sum(record.seconds for record in records),
            "starts": sum(record.starts for record in records),
            "methods": tuple(methods),
            "cells": tuple(
                sorted((cell for record in records for cell in record.cells), key=lambda cell: place[cell.entry])
            ),
            "scores": compared(samples, labels, ORDERINGS, alike, outside(alike)),
            "notes": tuple(dict.fromkeys(note for record in records for note in record.notes)),
            "num_blind_pairs": 0,
        }
    )
    return record, samples


def keep(record: CompareRecord, samples: Sequence[ScoredSample], folder: Path) -> None:
    """Writes what :func:`joined` reads, for other machines too: without addresses of reports.

    Args:
        record: of a comparison.
        samples: its scored samples.
        folder: made when missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cells = tuple(cell.model_copy(update={"report": ""}) for cell in record.cells)
    write_scores(samples, folder / SCORES_FILE)
    write_atomic(folder / RECORD_FILE, record.model_copy(update={"cells": cells}).model_dump_json())


def _record(folder: Path) -> CompareRecord:
    try:
        return CompareRecord.model_validate_json((folder / RECORD_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"{folder} holds no comparison", got=str(error).splitlines()[0]) from error


def _check(first: CompareRecord, other: CompareRecord, folder: Path) -> None:
    mine, theirs = first.model_dump(include=set(ALIKE)), other.model_dump(include=set(ALIKE))
    differing = {key: (mine[key], theirs[key]) for key in ALIKE if mine[key] != theirs[key]}
    if differing:
        told = "; ".join(f"{key} {there} after {here}" for key, (here, there) in differing.items())
        raise InputError(f"{folder} does not stand beside the first comparison", got=told)


def _samples(folders: Sequence[Path]) -> list[ScoredSample]:
    """All samples; what stands beside the methods comes once for each concept, as in one comparison."""
    samples: list[ScoredSample] = []
    for folder in folders:
        there = {sample.concept for sample in samples if sample.row in BESIDE}
        own = read_scores(folder / SCORES_FILE)
        samples += [sample for sample in own if sample.row not in BESIDE or sample.concept not in there]
    return samples
