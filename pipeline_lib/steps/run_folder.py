"""The run folder: what a person opens; copies of artifacts, and `run.json`, which tells how all came to be.

Two runs of the same config on the same files share a folder. It is a view: deleting it loses nothing
that the artifact store does not still have.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import Field, ValidationError

from pipeline_lib.errors import ArtifactError, InputError, PipelineError, ResourceError, StopRequested
from pipeline_lib.models.lora_file import used_loras
from pipeline_lib.records import ConceptRecord
from pipeline_lib.registry import BASES, truth_weights
from pipeline_lib.run_config import RunConfig, config_text, digest
from pipeline_lib.sections import ENCODERS
from pipeline_lib.steps.layout import CONCEPT_FILE, PREVIEWS, REPORT_FILE, SCORES_FILE, SHEET_FILE, SUMMARY_FILE
from pipeline_lib.steps.plan import RunPlan
from pipeline_lib.steps.prepare import collect_inputs
from pipeline_lib.steps.run_scores import RunScores, run_scores
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.steps.step import StepResult
from pipeline_lib.storage import ArtifactStore, disk_errors, write_atomic
from pipeline_lib.storage.files import CHECKSUMS

RECORD_FILE, CONFIG_FILE, LOCK_FILE = "run.json", "config.yaml", "run.lock"
LIBRARY = Path(__file__).parents[1]
OUTPUTS = ("generate-base", "generate-personalised", "evaluate", "concept", "report")
_NO_EFFECT = (
    "checkpoint_every", "micro_batch", "gradient_checkpointing", "swapped_blocks", "compile", "processes", "sharded",
    "keep_attention", "max_stage_hours",
)  # fmt: skip


class RunRecord(RunScores):
    """`run.json`.

    `fingerprint` covers all that could make a further run of the config differ: library code, base files.
    """

    schema_version: int = 1
    run_id: str
    concept: str
    status: Literal["running", "done", "stopped", "failed"]
    fingerprint: str
    config: RunConfig
    plan: RunPlan | None = None
    steps: dict[str, StepResult] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    started: str = ""
    finished: str = ""
    error: str = ""
    tracking: dict[str, str] = Field(default_factory=dict)
    version: str = Field(default_factory=lambda: installed("mannerism"))


class RunResult(RunScores):
    """What a run hands back: paths, seconds of each stage (0 where it was found), scores by model."""

    run_id: str
    run_dir: str
    report: str
    lora: str
    concept: str
    found: bool
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    tracking: dict[str, str] = Field(default_factory=dict)


def run_identity(config: RunConfig) -> str:
    """`<concept>-<8 digits>`: equal settings on equal files give an equal name.

    Args:
        config: what has no effect on the result, such as the tracking, does not count.

    Returns:
        The run's name.

    Raises:
        MediaError: an input is not there, or holds no media.
        InputError: a LoRA is not there, or is no LoRA file.
    """
    values = config.model_dump(mode="json", exclude={"tracking": True, "training": set(_NO_EFFECT)})
    media = collect_inputs(config)
    values["concept"]["inputs"] = [[path.name, CHECKSUMS.of(path)] for path in (*media.clips, *media.images)]
    loras = {"base": ("loras", config.base.loras), "method": ("start", config.method.start)}
    for section, (key, uses) in loras.items():
        values[section] |= {key: [lora.fact.identity for lora in used_loras(uses)]}
        if not uses:  # runs of versions that knew no such key have their names without it
            del values[section][key]
    if config.evaluation.identity_encoder == "auto":  # likewise
        del values["evaluation"]["identity_encoder"]
    prompts = Path(config.samples.prompts_file)
    if config.samples.prompts_file and prompts.is_file():
        values["samples"]["prompts_file"] = CHECKSUMS.of(prompts)
    return f"{config.concept_name}-{digest(values)[:8]}"


def fingerprint(config: RunConfig) -> str:
    """Covers the library's code, page templates and judge, by content, and the base's files, by time and size."""
    sources = sorted([*LIBRARY.rglob("*.py"), *(LIBRARY / "report" / "templates").iterdir()])
    code = [[path.relative_to(LIBRARY).as_posix(), CHECKSUMS.of(path)] for path in sources]
    named = BASES.get(config.base.source)
    models = [getattr(named, part) for part in (*ENCODERS, "captioner", "segmenter")] if named else []
    models += [path.parent for path in named.loras] if named else []
    folders = [named.folder if named else Path(config.base.source).expanduser(), *models]
    files = [
        [str(path), path.stat().st_size, path.stat().st_mtime_ns]
        for folder in folders
        if folder is not None and folder.is_dir()
        for path in sorted(folder.rglob("*"))
    ]
    return digest([code, files, [CHECKSUMS.of(path) for path in truth_weights(config)]])


class RunFolder:
    """One run's folder.

    Args:
        state: where runs live.
        run_id: from :func:`run_identity`.
    """

    def __init__(self, state: StateFolder, run_id: str) -> None:
        self.run_id, self._state = run_id, state
        self.path = state.runs / run_id

    @property
    def log(self) -> Path:
        """Where the worker writes and tracebacks go."""
        return self.path / "run.log"

    @property
    def previews(self) -> Path:
        """Videos made while stages train: outside of every artifact, one folder a stage."""
        return self.path / PREVIEWS

    def lock(self) -> FileLock:
        """Held by the one process that makes the run; from any thread."""
        self._state.make()
        with disk_errors(self.path, "the run folder"):
            self.path.mkdir(exist_ok=True)
        return FileLock(self.path / LOCK_FILE, thread_local=False)

    def record(self) -> RunRecord | None:
        """The last thing written about the run; None where there is nothing readable."""
        try:
            return RunRecord.model_validate_json((self.path / RECORD_FILE).read_bytes())
        except (OSError, ValidationError):
            return None

    def begin(self, config: RunConfig) -> RunRecord:
        """Notes that the run has started; keeps its config for `resume`."""
        self._state.make()
        with disk_errors(self.path, "the run folder"):
            self.path.mkdir(exist_ok=True)
        record = RunRecord(
            run_id=self.run_id,
            concept=config.concept_name,
            status="running",
            fingerprint=fingerprint(config),
            config=config,
            started=now(),
        )
        try:
            write_atomic(self.path / CONFIG_FILE, config_text(config))
            self.write(record)
        except ResourceError:
            if self.record() is None:
                shutil.rmtree(self.path)  # half a run folder
            raise
        return record

    def write(self, record: RunRecord) -> None:
        """Replaces `run.json`."""
        write_atomic(self.path / RECORD_FILE, record.model_dump_json(indent=1))

    def collect(
        self, record: RunRecord, plan: RunPlan, steps: Mapping[str, StepResult], store: ArtifactStore
    ) -> RunRecord:
        """Copies what a person wants to open out of the artifacts: report, concept, videos.

        Args:
            record: of the run.
            plan: of the run.
            steps: all results, by step.
            store: holds the artifacts.

        Returns:
            The record with the run's results; not yet written, nor done.
        """
        with disk_errors(self.path, "the run folder"):
            for name, step in steps.items():
                for source, target in _wanted(store.folder(step.ref), name):
                    _copy(source, self.path / target)
            self._sign(self.path / "concept" / CONCEPT_FILE)
        notes = dict.fromkeys(note for step in steps.values() for note in step.notes)
        results = {"plan": plan, "steps": dict(steps), "notes": (*plan.notes, *notes)}
        return record.model_copy(update={**results, **run_scores(store, steps["evaluate"].ref).model_dump()})

    def fail(self, record: RunRecord, error: BaseException) -> None:
        """Notes that a run ended early: "stopped" where that was asked for, else "failed".

        Args:
            record: of the run.
            error: that ended it.
        """
        asked = isinstance(error, StopRequested) or not isinstance(error, Exception)
        status: Literal["stopped", "failed"] = "stopped" if asked else "failed"
        with suppress(PipelineError):  # a full disk is likely what failed
            self.write(record.model_copy(update={"status": status, "error": str(error)}))

    def _sign(self, path: Path) -> None:
        """Writes the run's name into its copy of the concept; the artifact is shared by runs, so it has none."""
        concept = ConceptRecord.model_validate_json(path.read_bytes())
        write_atomic(path, concept.model_copy(update={"run_id": self.run_id}).model_dump_json(indent=2) + "\n")

    def finish(self, record: RunRecord) -> RunRecord:
        """Notes that the run is done; the last thing that a run writes."""
        done = record.model_copy(update={"status": "done", "finished": now()})
        self.write(done)
        return done

    def result(self, record: RunRecord) -> RunResult:
        """What the run hands back."""
        return RunResult(
            run_id=record.run_id,
            run_dir=str(self.path),
            report=str(self.path / REPORT_FILE),
            lora=str(min((self.path / "concept").glob("lora*.safetensors"))),  # of two experts, the high-noise one's
            concept=str(self.path / "concept"),
            found=all(step.found for step in record.steps.values()),
            seconds={name: step.seconds for name, step in record.steps.items()},
            notes=record.notes,
            tracking=record.tracking,
            **{name: getattr(record, name) for name in RunScores.model_fields},
        )

    def finished(self, config: RunConfig, store: ArtifactStore) -> RunRecord | None:
        """The record of this run where nothing is left to do: all outputs stand, in the store and here.

        What was made only on the way to them, such as latents, may have been pruned.
        """
        record = self.record()
        if record is None or record.status != "done" or record.fingerprint != fingerprint(config):
            return None
        result = self.result(record)
        if not all(Path(path).exists() for path in (result.report, result.lora)):
            return None
        try:
            for step in _outputs(record.steps):
                store.get(step.ref)
        except ArtifactError:
            return None
        found = {name: step.model_copy(update={"found": True, "seconds": 0.0}) for name, step in record.steps.items()}
        return record.model_copy(update={"steps": found})


def all_runs(state: StateFolder) -> Iterator[RunRecord]:
    """All runs that can be read, oldest first."""
    records = [RunFolder(state, name).record() for name in state.run_names()]
    yield from sorted((record for record in records if record), key=lambda record: record.started)


def find_run(state: StateFolder, name: str) -> RunFolder:
    """A run by its name, a unique beginning of it, or its folder.

    Args:
        state: the state folder.
        name: as the person gave it.

    Returns:
        The run's folder.

    Raises:
        InputError: none, or several.
    """
    name = Path(name).name
    names = state.run_names()
    found = [name] if name in names else [other for other in names if other.startswith(name)]
    if len(found) != 1:
        near = ", ".join(found or names[-5:])
        raise InputError(
            f"there {'are several runs' if found else 'is no run'} named {name!r} in {state.root}",
            expected=f"one of {near}" if near else "",
            fix="" if near else "there are no runs there yet; make one, or name another state folder with --state",
        )
    return RunFolder(state, found[0])


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _outputs(steps: Mapping[str, StepResult]) -> list[StepResult]:
    """What a run is for; the rest was made on the way."""
    trained = [name for name in steps if name.startswith("train-")]
    return [steps[name] for name in (*OUTPUTS, *trained[-1:]) if name in steps]


def _wanted(folder: Path, step: str) -> Iterator[tuple[Path, str]]:
    if step == "evaluate":
        yield from ((folder / name, name) for name in (SCORES_FILE, SUMMARY_FILE))
    elif step == "report":
        yield from ((folder / name, name) for name in (REPORT_FILE, SHEET_FILE))
    elif step == "concept":
        yield from ((path, f"concept/{path.name}") for path in folder.iterdir() if path.name != "manifest.json")
    elif step.startswith("generate-"):
        yield from ((path, f"samples/{step[9:]}/{path.name}") for path in folder.glob("*.mp4"))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)
