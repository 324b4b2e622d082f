"""Comparisons of different methods as one: their cells may have been made in other folders, on other days."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from pipeline_lib.compare.entries import CORE
from pipeline_lib.compare.folder import SCORES_FILE, CompareFolder, CompareRecord
from pipeline_lib.compare.notes import uneven
from pipeline_lib.compare.paper import ORDERINGS
from pipeline_lib.compare.scores_file import read_scores, write_scores
from pipeline_lib.compare.slices import outside, slices
from pipeline_lib.errors import InputError
from pipeline_lib.metrics.aggregate import ScoredSample
from pipeline_lib.metrics.comparison import BESIDE, compared
from pipeline_lib.storage import write_atomic

ALIKE = ("seeds", "seed", "guidance_scale", "concepts", "models")
"""What of two records must be equal, or their numbers do not stand beside each other. Prompts, sampling steps and the
judge's gallery, which no record tells, are known by the scores of base, ceiling and chance, as far as two folders have
the same of them: what came first had ceiling of edits and chance by the truth alone."""
RECORD_FILE = f"{CompareFolder.kind}.json"
_ORDER = {entry.label: place for place, entry in enumerate(CORE)}
_NEAR = 1e-4
"""Processors of other kinds round otherwise."""


class _Which(NamedTuple):
    """Samples of what stands beside the methods: windows of one name, or a prompt that was asked twice, are several."""

    concept: str
    row: str
    kind: str
    prompt: str
    negative: str
    seed: int


def joined(folders: Sequence[Path]) -> tuple[CompareRecord, list[ScoredSample]]:
    """One comparison from the folders of several, its numbers computed anew from every sample's scores.

    Args:
        folders: each with `compare.json` and `scores.csv`; no method in two of them. Of base, ceiling and chance of a
            concept the first folder counts that has most scores of it.

    Returns:
        The record, and all samples. Of one folder they are as they are. Else methods are in the order of the core and
        then as they come; `seconds` and `starts` are sums, and there are no blind pairs.

    Raises:
        InputError: a folder without these files, an equal method in two, or comparisons that differ in more than
            their methods.
    """
    records = [read_record(folder / RECORD_FILE) for folder in folders]
    samples = [_own_samples(record, folder) for record, folder in zip(records, folders, strict=True)]
    first, *others = records
    if not others:
        return first, samples[0]
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
    together, alike = _beside_once(samples, folders), slices(first.concepts)
    cells = sorted((cell for record in records for cell in record.cells), key=lambda cell: labels.index(cell.entry))
    notes = [note for record in records for note in record.notes if note not in uneven(record.cells)]
    whole = first.model_copy(
        update={
            "compare_id": " + ".join(record.compare_id for record in records),
            "started": min(record.started for record in records),
            "seconds": sum(record.seconds for record in records),
            "starts": sum(record.starts for record in records),
            "methods": tuple(methods),
            "cells": tuple(cells),
            "scores": compared(together, labels, ORDERINGS, alike, outside(alike)),
            "notes": (*dict.fromkeys(notes), *uneven(cells)),
            "num_blind_pairs": 0,
        }
    )
    return whole, together


def keep(record: CompareRecord, samples: Sequence[ScoredSample], folder: Path) -> None:
    """Writes what :func:`joined` reads, and nothing of the machine that made it: neither reports nor reasons.

    Args:
        record: of a comparison.
        samples: its scored samples.
        folder: made when missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cells = tuple(cell.model_copy(update={"report": "", "reason": ""}) for cell in record.cells)
    own = record.model_copy(
        update={"cells": cells, "base": Path(record.base).name, "models": _models(record), "num_blind_pairs": 0}
    )
    write_scores(samples, folder / SCORES_FILE)
    write_atomic(folder / RECORD_FILE, own.model_dump_json(indent=1))


def read_record(path: Path) -> CompareRecord:
    """Reads a comparison's record.

    Args:
        path: of `compare.json`.

    Returns:
        The record.

    Raises:
        InputError: no such file, or one of another version.
    """
    try:
        return CompareRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read", got=str(error)) from error
    except ValidationError as error:
        raise InputError(
            f"{path} is no record of a comparison, or another version's",
            got=f"{error.error_count()} fields that are not as expected",
            fix="start that comparison again: it finds its cells",
        ) from error


def _check(first: CompareRecord, other: CompareRecord, folder: Path) -> None:
    mine, theirs = (record.model_dump(include=set(ALIKE)) | {"models": _models(record)} for record in (first, other))
    differing = {key: (mine[key], theirs[key]) for key in ALIKE if mine[key] != theirs[key]}
    if differing:
        told = "; ".join(f"{key} {there} after {here}" for key, (here, there) in differing.items())
        raise InputError(f"{folder} does not stand beside the first comparison", got=told)


def _models(record: CompareRecord) -> dict[str, str]:
    """Digests by what they are of; a base is called by its folder's name, wherever that folder is."""
    bases = [base.rpartition(" ") for base in record.models.get("base", "").split(", ") if base]
    named = ", ".join(f"{Path(source).name} {digest}" for source, _, digest in bases)
    return {**record.models, **({"base": named} if named else {})}


def _own_samples(record: CompareRecord, folder: Path) -> list[ScoredSample]:
    samples = read_scores(folder / SCORES_FILE)
    rows = {sample.row for sample in samples} - set(BESIDE)
    done = {cell.entry for cell in record.cells if cell.status == "done"}
    if rows != done:
        raise InputError(
            f"{folder / SCORES_FILE} is not of the comparison beside it",
            got=", ".join(sorted(rows)) or "no method",
            expected=", ".join(sorted(done)) or "no method",
        )
    return samples


def _beside_once(parts: Sequence[list[ScoredSample]], folders: Sequence[Path]) -> list[ScoredSample]:
    """All samples; what stands beside the methods comes once for each concept, and must be the same in all folders."""
    known: dict[_Which, list[ScoredSample]] = {}
    for own, folder in zip(parts, folders, strict=True):
        beside: dict[_Which, list[ScoredSample]] = {}
        for sample in (sample for sample in own if sample.row in BESIDE):
            beside.setdefault(_which(sample), []).append(sample)
        _check_beside(beside, known, folder)
        known |= {which: max(known.get(which, members), members, key=_fullness) for which, members in beside.items()}
    samples: list[ScoredSample] = []
    for sample in (sample for own in parts for sample in own):
        samples += known.pop(_which(sample), []) if sample.row in BESIDE else [sample]
    return samples


def _check_beside(
    here: dict[_Which, list[ScoredSample]], known: dict[_Which, list[ScoredSample]], folder: Path
) -> None:
    shared = {which.concept for which in here} & {which.concept for which in known}
    mine, theirs = ({which: found for which, found in of.items() if which.concept in shared} for of in (here, known))
    told = _told(mine) & _told(theirs)
    differing = sorted(mine.keys() ^ theirs.keys()) or sorted(
        which for which in mine if not _near(_values(mine[which], told), _values(theirs[which], told))
    )
    if differing:
        which = differing[0]
        raise InputError(
            f"{folder} does not stand beside the first comparison",
            got=f"{which.row} of {which.concept} scores otherwise, or was not asked, at {which.prompt!r}",
            fix="compare with equal prompts, sampling and judge",
        )


def _told(groups: Mapping[_Which, Sequence[ScoredSample]]) -> set[tuple[str, str, str]]:
    """In which metrics a row has values at all, for each kind of prompt."""
    return {
        (which.row, which.kind, score.metric)
        for which, members in groups.items()
        for sample in members
        for score in sample.scores
        if score.value is not None
    }


def _near(one: list[dict[str, float]], other: list[dict[str, float]]) -> bool:
    return len(one) == len(other) and all(
        mine.keys() == theirs.keys()
        and all(math.isclose(mine[name], theirs[name], rel_tol=_NEAR, abs_tol=_NEAR) for name in mine)
        for mine, theirs in zip(one, other, strict=True)
    )


def _fullness(samples: Sequence[ScoredSample]) -> int:
    return sum(len(sample.scores) for sample in samples)


def _which(sample: ScoredSample) -> _Which:
    return _Which(sample.concept, sample.row, sample.kind, sample.prompt, sample.negative, sample.seed)


def _values(samples: Sequence[ScoredSample], told: Collection[tuple[str, str, str]]) -> list[dict[str, float]]:
    return [
        {
            score.metric: score.value
            for score in sample.scores
            if score.value is not None and (sample.row, sample.kind, score.metric) in told
        }
        for sample in samples
    ]
