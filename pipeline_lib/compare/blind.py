"""Blind pairs: which of two videos people like better, drawn by a seed, and the count of what they said."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from pipeline_lib.compare.cells import Cell, run_record
from pipeline_lib.errors import InputError
from pipeline_lib.metrics.aggregate import Key
from pipeline_lib.metrics.over_concepts import ConceptMean, mean_over_concepts
from pipeline_lib.metrics.wins import QUESTIONS
from pipeline_lib.records import Record, SampleRecord
from pipeline_lib.report.blind import BlindPair, write_blind_page
from pipeline_lib.run_config import digest
from pipeline_lib.seeding import derived_seed
from pipeline_lib.steps.layout import SAMPLES_FILE
from pipeline_lib.steps.prepare import view_files
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.storage import write_atomic

MOST_PAIRS, MOST_BYTES = 60, 30_000_000
"""Pairs on a page, and bytes of the videos in it: what a person answers in half an hour, and a browser holds well."""
ANSWERS = ("left", "right", "even")
"""What may be said of a pair."""


class Asked(Record):
    """Who stood where in one pair."""

    concept: str
    prompt: str
    seed: int
    left: str
    right: str


class BlindKey(Record):
    """`blind_key.json`: what the page does not say."""

    comparison: str
    pairs: dict[str, Asked]


class Preference(Record):
    """What people said of two entries in one question.

    `share` is that of `row` among those who saw a difference, as of the truth's wins: mean over concepts, whose answers
    belong together; None where nobody did.
    """

    row: str
    against: str
    question: str
    won: int
    even: int
    lost: int
    share: ConceptMean | None


Videos = dict[tuple[str, str, int], Path]
"""Files of one entry's samples of edit prompts by concept, prompt and seed."""


def write_blind(state: StateFolder, cells: Sequence[Cell], page: Path, key: Path, comparison: str) -> int:
    """Writes the page of pairs of the first entry against each of the others, and its key.

    Args:
        state: where runs live.
        cells: of a comparison, the first entry's among them.
        page: of the page.
        key: of the key.
        comparison: its id; pairs and sides are drawn by it.

    Returns:
        How many pairs there are; with none, as with fewer than two entries, there is no page afterwards.
    """
    entries = list(dict.fromkeys(cell.entry for cell in cells))
    videos = {entry: _videos(state, [cell for cell in cells if cell.entry == entry]) for entry in entries}
    clips = {cell.concept: found for cell in cells if (found := _clip(state, cell))}
    draws = np.random.default_rng(derived_seed(0, f"blind {comparison}"))
    asked, files = dict[str, Asked](), dict[str, Path]()
    pairs, size, numbers = list[BlindPair](), 0, dict[Path, str]()
    for one in _drawn(entries, videos, draws):
        at = one.concept, one.prompt, one.seed
        places = [clips.get(one.concept), videos[one.left][at], videos[one.right][at]]
        sources = [path for path in places if path is not None]
        more = sum(path.stat().st_size for path in set(sources) - numbers.keys())
        if size + more > MOST_BYTES:
            break
        size += more
        keys = [path and numbers.setdefault(path, f"video-{len(numbers)}") for path in places]
        files |= {numbers[path]: path for path in sources}
        name = digest([comparison, one.model_dump()])[:12]
        asked[name] = one
        pairs.append(BlindPair(name, one.prompt, *(key or "" for key in keys)))
    if not pairs:
        page.unlink(missing_ok=True)  # its videos may be gone; its key stays: answers that were saved still count
    else:
        write_blind_page(page, comparison, pairs, files)
        # Answers to a page that was written before count too: a cell that was repaired since draws other pairs.
        write_atomic(key, BlindKey(comparison=comparison, pairs={**_former(key), **asked}).model_dump_json(indent=1))
    return len(pairs)


def _former(key: Path) -> dict[str, Asked]:
    try:
        return BlindKey.model_validate_json(key.read_bytes()).pairs
    except (OSError, ValidationError):
        return {}


def tally(files: Sequence[Path], keys: Mapping[str, Path]) -> list[Preference]:
    """Counts what people said.

    Args:
        files: answers, as the page saves them, of one person each.
        keys: file of the key by comparison.

    Returns:
        A line for each pair of entries and question.

    Raises:
        InputError: a file that cannot be read, of no comparison known here, or with answers to what was not asked.
    """
    told: dict[tuple[str, str, str], dict[Key, str]] = defaultdict(dict)
    for path in dict.fromkeys(files):
        key, answers = _answers(path, keys)
        for name, said in answers.items():
            one = key.pairs.get(name)
            if one is None or not isinstance(said, dict):
                raise InputError(f"{path} answers a pair that was not asked", got=name[:40])
            for question, answer in said.items():
                if question not in QUESTIONS or answer not in ANSWERS:
                    raise InputError(f"{path} holds an answer that cannot be", got=f"{question}: {answer}"[:80])
                row, against = sorted((one.left, one.right))
                liked = {"left": one.left, "right": one.right}.get(str(answer), "")
                told[row, against, question][one.concept, f"{name} {path}", one.seed] = liked
    return [_preference(*asked, said) for asked, said in sorted(told.items(), key=_in_order)]


def _in_order(item: tuple[tuple[str, str, str], Mapping[Key, str]]) -> tuple[str, str, int]:
    row, against, question = item[0]
    return row, against, list(QUESTIONS).index(question)  # type: ignore[arg-type]


def _preference(row: str, against: str, question: str, said: Mapping[Key, str]) -> Preference:
    counts = Counter(said.values())
    return Preference(
        row=row,
        against=against,
        question=question,
        won=counts[row],
        even=counts[""],
        lost=counts[against],
        share=mean_over_concepts({key: float(liked == row) for key, liked in said.items() if liked}),
    )


def _answers(path: Path, keys: Mapping[str, Path]) -> tuple[BlindKey, dict[str, Any]]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
        comparison, answers = loaded["comparison"], dict(loaded["answers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no answers", got=str(error)[:120], fix="save them from the blind page"
        ) from error
    if not isinstance(comparison, str) or comparison not in keys:
        raise InputError(f"{path} is of a comparison that is not here", got=str(comparison)[:60])
    try:
        return BlindKey.model_validate_json(keys[comparison].read_bytes()), answers
    except (OSError, ValidationError) as error:
        raise InputError(f"{keys[comparison]} cannot be read", got=str(error)[:120]) from error


def _drawn(entries: Sequence[str], videos: Mapping[str, Videos], draws: np.random.Generator) -> Iterator[Asked]:
    """Pairs in the order in which they are asked: each other entry in turn, left and right by chance."""
    first, *others = entries or [""]
    orders = []
    for other in others:
        both = sorted(videos[first].keys() & videos[other].keys())
        orders.append([(other, both[index]) for index in draws.permutation(len(both))])
    longest = max(map(len, orders), default=0)
    turns = [order[index] for index in range(longest) for order in orders if index < len(order)][:MOST_PAIRS]
    for index in draws.permutation(len(turns)):
        other, (concept, prompt, seed) = turns[index]
        left, right = (first, other) if draws.integers(2) else (other, first)
        yield Asked(concept=concept, prompt=prompt, seed=seed, left=left, right=right)


def _videos(state: StateFolder, cells: Sequence[Cell]) -> Videos:
    found: Videos = {}
    for cell in cells:
        record = run_record(state, cell.run_id) if cell.status == "done" else None
        if record is None:
            continue
        folder = state.store.folder(record.steps["generate-personalised"].ref)
        for item in json.loads((folder / SAMPLES_FILE).read_text(encoding="utf-8")):
            sample = SampleRecord.model_validate(item)
            if sample.prompt.kind != "reconstruction":
                text = sample.prompt.text.replace("{subject}", cell.concept)
                found[cell.concept, text, sample.seed] = folder / sample.file
    return found


def _clip(state: StateFolder, cell: Cell) -> Path | None:
    """What a cell learned from; None where that was pictures alone."""
    record = run_record(state, cell.run_id) if cell.status == "done" else None
    if record is None:
        return None
    views = view_files(state.store.folder(record.steps["prepare"].ref) / "0")
    return next((path for path in views if path.suffix == ".mp4"), None)
