"""A comparison as written down: `compare.json`, a page with the same numbers, every score, and the blind pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from pydantic import Field

from pipeline_lib.compare.blind import write_blind
from pipeline_lib.compare.cells import Cell, compared_samples, models_used
from pipeline_lib.compare.concepts import PAIR
from pipeline_lib.compare.entries import MAIN, Entry, entry_config
from pipeline_lib.compare.grids import grids
from pipeline_lib.compare.notes import counted_by_members, other_look, uneven
from pipeline_lib.compare.paper import ORDERINGS, PAPER, PAPER_METRICS, RATERS
from pipeline_lib.compare.scores_file import write_scores
from pipeline_lib.compare.slices import TWO, outside, slices
from pipeline_lib.metrics.comparison import ComparedScores, compared
from pipeline_lib.records import Record
from pipeline_lib.registry import choose_settings
from pipeline_lib.report.compare import CellLine, ComparePage, MethodLine
from pipeline_lib.report.compare_tables import PaperColumn, PaperLine
from pipeline_lib.report.wording import counted
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.run_folder import now
from pipeline_lib.steps.several_runs import SeveralRunsFolder, how_it_went, report_address
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.storage import disk_errors

BLIND_FILE, KEY_FILE, SCORES_FILE = "blind.html", "blind_key.json", "scores.csv"
SHOWN_SETTINGS = (
    "rank",
    "steps",
    "identity_steps",
    "motion_steps",
    "batch",
    "optimizer.learning_rate",
    "word_optimizer.learning_rate",
    "cross_attention",
    "crops",
    "prior_weight",
    "identity_dropout",
    "motion_dropout",
    "token_drop",
)
"""Settings that the page tells of every method that has them: what methods were tuned in, or presets differ in."""
MOST_NAMED = 5
"""Cells without a result that the page's first sentence names."""


class Compared(Record):
    """What is compared, on what, with what.

    Attributes:
        entries: in the order of the tables; the first is held against the others.
        concepts: how each moves, by its name; empty where that is not known.
        template: of all runs.
        notes: on what was left out.
    """

    entries: tuple[Entry, ...]
    concepts: dict[str, str]
    template: RunConfig
    notes: tuple[str, ...] = ()


class Method(Record):
    """An entry as it was run: its preset, and all settings of its method."""

    entry: Entry
    preset: str
    settings: dict[str, object]


class CompareRecord(Record):
    """`compare.json`.

    Attributes:
        compare_id: name of its folder.
        started: when.
        seconds: how long it took.
        starts: how often it was started.
        base: of all runs.
        seeds: of the samples.
        seed: of the training.
        guidance_scale: of the samples; 0: the base's own.
        methods: in the order of the tables.
        concepts: how each moves, by its name; empty where that is not known.
        cells: all runs.
        scores: the numbers.
        models: digests of what they rest on.
        notes: worth knowing.
        num_blind_pairs: on the page for people.
    """

    schema_version: int = 2
    compare_id: str
    started: str
    seconds: float
    starts: int = 1
    base: str
    seeds: tuple[int, ...]
    seed: int
    guidance_scale: float = 0.0
    methods: tuple[Method, ...]
    concepts: dict[str, str]
    cells: tuple[Cell, ...]
    scores: ComparedScores
    models: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    num_blind_pairs: int = 0

    @property
    def missing(self) -> tuple[Cell, ...]:
        """Cells without a result."""
        return tuple(cell for cell in self.cells if cell.status != "done")

    @property
    def threads(self) -> tuple[int, ...]:
        """Numbers of threads that cells were trained with; empty where that is not known of all that are done."""
        done = [cell.threads for cell in self.cells if cell.status == "done"]
        return tuple(sorted({count for counts in done for count in counts})) if all(done) else ()

    @property
    def told(self) -> str:
        """How it went, in one sentence."""
        found = sum(cell.found for cell in self.cells if cell.status == "done")
        failed = [f"{cell.entry} on {cell.concept}" for cell in self.missing]
        size = f"{counted(len(self.methods), 'method')} on {counted(len(self.concepts), 'concept')}"
        return f"{size}: {how_it_went('cells', len(self.cells), found, failed, MOST_NAMED)}"


class CompareFolder(SeveralRunsFolder[CompareRecord]):
    """Where a comparison is written down, with its blind pairs and their key.

    Args:
        state: where runs live.
        runs: what identifies each cell's run: equal runs give an equal folder.
    """

    kind = "compare"
    record_type = CompareRecord

    def __init__(self, state: StateFolder, runs: Sequence[str]) -> None:
        super().__init__(state, state.comparisons, self.kind, runs)

    @property
    def blind(self) -> Path:
        """Pairs for people; not there where nothing can be paired."""
        return self.path / BLIND_FILE

    @property
    def scores_file(self) -> Path:
        """Every sample's scores as they count, for other programs."""
        return self.path / SCORES_FILE

    def write(self, cells: Sequence[Cell], what: Compared, started: str, seconds: float) -> CompareRecord:
        """Reads all cells' scores, and writes record, page and blind pairs.

        Args:
            cells: by entry, then by concept.
            what: entries, concepts and settings.
            started: when, as :func:`~pipeline_lib.steps.run_folder.now` tells it.
            seconds: how long the comparison took.

        Returns:
            The record.

        Raises:
            InputError: scores of one metric come from different encoders.
        """
        samples = compared_samples(self.state, cells)
        template, former = what.template, self.record()
        labels = [entry.label for entry in what.entries]
        alike = slices(what.concepts)
        scores = compared(samples, labels, ORDERINGS, alike, outside(alike))
        with disk_errors(self.path, "the comparison's folder"):
            self.path.mkdir(parents=True, exist_ok=True)
            record = CompareRecord(
                compare_id=self.identity,
                started=started,
                seconds=round(seconds, 3),
                starts=former.starts + 1 if former else 1,
                base=template.base.source,
                seeds=template.samples.seeds,
                seed=template.seed,
                guidance_scale=template.samples.guidance_scale,
                methods=tuple(_method(entry, template) for entry in what.entries),
                concepts=dict(what.concepts),
                cells=tuple(cells),
                scores=scores,
                models=models_used(self.state, cells, samples),
                notes=(*what.notes, *uneven(cells), *other_look(template, scores), *counted_by_members(outside(alike))),
                num_blind_pairs=write_blind(self.state, cells, self.blind, self.path / KEY_FILE, self.identity),
            )
            write_scores(samples, self.scores_file)
            self.put(record, self._page(record))
        return record

    def _page(self, record: CompareRecord) -> ComparePage:
        about = {name: TWO if kind == PAIR else f"{kind} motion" for name, kind in record.concepts.items() if kind}
        return ComparePage(
            title="Methods compared",
            created=datetime.fromisoformat(now()),
            seconds=record.seconds,
            verdict=record.told,
            facts=_facts(record),
            scores=record.scores,
            methods=tuple(_method_line(method, record.cells) for method in record.methods),
            paper=tuple(PaperLine(row.method, row.entry, tuple(row[2:])) for row in PAPER),
            columns=tuple(PaperColumn(*column) for column in PAPER_METRICS),
            raters=tuple(RATERS.items()) if record.methods[0].entry.label == MAIN else (),
            grids=grids(self.state, record.cells, about),
            cells=tuple(_cell_line(cell) for cell in record.cells),
            notes=record.notes,
            provenance=(("comparison", record.compare_id), *record.models.items()),
            blind=BLIND_FILE if record.num_blind_pairs else "",
            every_score=SCORES_FILE,
        )


def all_keys(state: StateFolder) -> dict[str, Path]:
    """The keys of all blind pages, by comparison."""
    return {path.parent.name: path for path in sorted(state.comparisons.glob(f"*/{KEY_FILE}"))}


def _method(entry: Entry, template: RunConfig) -> Method:
    preset, settings = choose_settings(entry_config(entry, template))
    return Method(entry=entry, preset=preset, settings=settings.model_dump(mode="json"))


def _method_line(method: Method, cells: Sequence[Cell]) -> MethodLine:
    own = [cell for cell in cells if cell.entry == method.entry.label and cell.status == "done"]
    times = [cell.trained_seconds for cell in own if cell.trained_seconds]
    shown = (*SHOWN_SETTINGS, *(key for key in method.entry.settings if key not in SHOWN_SETTINGS))
    settings = {key: value for key in shown if (value := _inside(method.settings, key)) is not None}
    words = ", ".join(f"{key}={value}" for key, value in settings.items())
    return MethodLine(
        label=method.entry.label,
        about=method.entry.about,
        settings=f"{method.entry.method}, preset {method.preset}: {words}",
        seconds=sum(times) / len(times) if times else 0.0,
        done=len(own),
    )


def _inside(settings: Mapping[str, object], key: str) -> object:
    """A setting, of a section too; None where the method has no such setting."""
    section, _, rest = key.partition(".")
    value = settings.get(section)
    return _inside(value, rest) if rest and isinstance(value, Mapping) else None if rest else value


def _cell_line(cell: Cell) -> CellLine:
    return CellLine(
        method=cell.entry,
        concept=cell.concept,
        status=cell.status,
        run_id=cell.run_id,
        report=report_address(cell.run_id, cell.report) if cell.report else "",
        reason=cell.reason,
    )


def _facts(record: CompareRecord) -> tuple[tuple[str, str], ...]:
    presets = dict.fromkeys(method.preset for method in record.methods)
    return (
        ("Methods", str(len(record.methods))),
        ("Concepts", str(len(record.concepts))),
        ("Cells", f"{len(record.cells) - len(record.missing)} of {len(record.cells)}"),
        ("Preset", ", ".join(presets)),
        ("Seeds of samples", ", ".join(map(str, record.seeds))),
        ("Training seed", str(record.seed)),
        ("Guidance", f"{record.guidance_scale:g}" if record.guidance_scale else "the base's own"),
        ("Base", Path(record.base).name),
        *((("Threads of a training", ", ".join(map(str, record.threads))),) if record.threads else ()),
    )


def figures(scores: ComparedScores) -> Mapping[str, float]:
    """All means as flat figures, e.g. `lora-8/edits/edit_accuracy`."""
    return {
        f"{row}/{group}/{metric}": mean.mean
        for group, cells in scores.tables.items()
        for row, means in cells.items()
        for metric, mean in means.items()
    }
