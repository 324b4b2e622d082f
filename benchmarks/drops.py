"""Many drops at once: whether all end, one training at a time, in the order in which they came.

    python -m benchmarks.drops [--count N] [--minutes M] [--json]
    python -m benchmarks.drops --clip PATH [--subject WORDS] [--drop-config FILE] [--minutes M] [--json]

`mannerism up` runs in a temporary folder on a tiny random base. Clips of the pocket world are put into its inbox all at
once, each asks for the cheapest run that is one (plain LoRA, one step, one sample). What came of them is read from
Prefect, the watcher's ledger, the artifact store and the run folders. Where time runs out, the same is told of those
that have ended. A folder that is dropped again in between must bring no further run.

With `--clip` one real clip is put into the inbox of an `up` as it is by default (pocket base and preset; others
by `--drop-config`), and nobody touches anything any more: run, registered model, champion, report, seconds to the end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from benchmarks.live import ENDED, Live
from flows.ingest import LEDGER_FILE
from pipeline_lib.drops.concept_file import FILE_NAME
from pipeline_lib.drops.drop import REASON_FILE
from pipeline_lib.drops.ledger import Ledger
from pipeline_lib.media.write import write_video
from pipeline_lib.models.tiny import tiny_wan
from pipeline_lib.run_config import RunConfig, config_text, parse_config
from pipeline_lib.sections import ENCODERS
from pipeline_lib.steps.gate import GATE_TAG, REASON_TAG
from pipeline_lib.steps.layout import REPORT_FILE
from pipeline_lib.steps.run_folder import all_runs
from pipeline_lib.tracking.concept_registry import CHAMPION, ConceptRegistry
from pipeline_lib.world.render import render
from pipeline_lib.world.sampling import sample_scene
from pipeline_lib.world.vocabulary import FRAMES_PER_SECOND

SEED = 11
LOOK_SECONDS = 2.0
_PAGE = 200


@dataclass(frozen=True)
class Result:
    """What came of the drops.

    Attributes:
        dropped: how many.
        runs: flow runs that there are of them.
        completed: of them.
        done: drops that have left for `done`, the repeated one aside.
        concepts: run folders that are done, with a LoRA.
        stages: training stages in the artifact store.
        overlaps: pairs of trainings, one after the other, that overlap.
        in_order: whether runs started in the order of the ledger, and that of the drops.
        again: ends of the folder that was dropped twice.
        last_submitted: seconds from the drop to the last submit; 0 where not all were.
        seconds: from the drop to the last look.
        each: median seconds from one run's end to the next one's.
        wrong: what is not as it should be.
    """

    dropped: int
    runs: int
    completed: int
    done: int
    concepts: int
    stages: int
    overlaps: int
    in_order: bool
    again: int
    last_submitted: float
    seconds: float
    each: float
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class ClipResult:
    """What came of one clip.

    Attributes:
        concept: name that its LoRA has.
        drop: where it has ended, or why it was rejected.
        run: state of its flow run.
        version: that is registered in MLflow.
        gate: whether that version passed, and why.
        champion: whether the alias is on it.
        report_bytes: size of the report.
        seconds: from the drop to its end.
        wrong: what is not as it should be.
    """

    concept: str
    drop: str
    run: str
    version: str
    gate: str
    champion: bool
    report_bytes: int
    seconds: float
    wrong: tuple[str, ...]


def template(base: Path) -> RunConfig:
    """The cheapest run that trains, samples, scores and registers."""
    return parse_config({
        "base": {"source": str(base)},
        "method": {"name": "lora", "settings": {"steps": 1, "batch": 1, "rank": 1, "prior_weight": 0.0}},
        "samples": {"prompts": ["{subject} on the beach"], "num_inference_steps": 1},
        "evaluation": dict.fromkeys(ENCODERS, "none"),
    })  # fmt: skip


def make_drops(folder: Path, count: int) -> list[Path]:
    """Folders with a clip each, the oldest first."""
    made = []
    for index in range(count):
        drop = folder / f"drop-{index:03d}"
        drop.mkdir(parents=True)
        write_video(render(sample_scene(SEED, index)).frames, drop / "clip.mp4", FRAMES_PER_SECOND)
        (drop / "concept.yaml").write_text("subject: creature\n")
        made.append(drop)
    return made


class Watched:
    """Drops in the inbox of an `up`.

    Args:
        live: it.
        drops: put into the inbox by a rename each, the ready mark in them.
    """

    def __init__(self, live: Live, drops: Sequence[Path]) -> None:
        self._live, self._root = live, live.state.drops
        self._again = live.root / "again"
        shutil.copytree(drops[0], self._again)
        self._names = [drop.name for drop in drops]
        self._started = time.monotonic()
        self._last_submitted = 0.0
        for drop in drops:
            (drop / "_READY").touch()
            drop.rename(self._root / "inbox" / drop.name)

    def wait(self, minutes: float) -> None:
        """Until all have left for `done` or `rejected`, or time is over."""
        while time.monotonic() - self._started < 60 * minutes:
            states = Counter(entry.state for entry in self._ledger())
            ended, seen = states["done"] + states["rejected"], len(self._names) - states["claimed"]
            if not self._last_submitted and sum(states.values()) == len(self._names) == seen:
                self._last_submitted = time.monotonic() - self._started
                (self._again / "_READY").touch()
                self._again.rename(self._root / "inbox" / "the-first-again")
            if ended == len(self._names):
                time.sleep(2 * LOOK_SECONDS)  # a repeated drop that came last
                return
            time.sleep(LOOK_SECONDS)

    def result(self) -> Result:
        """What Prefect, ledger, store and run folders say."""
        seconds, ledger = time.monotonic() - self._started, self._ledger()
        runs = self._all("flow_runs")
        completed = [run for run in runs if run["state_type"] == "COMPLETED"]
        begun = sorted((run for run in runs if run["start_time"]), key=lambda run: _when(run["start_time"]))
        order = [entry.name for entry in ledger if entry.run in {run["id"] for run in begun}]
        names = {entry.run: entry.name for entry in ledger}
        ends = sorted(_when(run["end_time"]) for run in completed)
        between = sorted(later - earlier for earlier, later in pairwise(ends))
        told = list(all_runs(self._live.state))
        drops = list((self._root / "done").glob("drop-*"))
        again = list((self._root / "done").glob("the-first-again*"))
        return self._judged({
            "dropped": len(self._names),
            "runs": len(runs),
            "completed": len(completed),
            "done": len(drops),
            "concepts": sum(run.status == "done" and self._has_lora(run.run_id) for run in told),
            "stages": len(list(self._live.state.store.root.glob("artifacts/stage/*/manifest.json"))),
            "overlaps": self._overlaps(),
            "in_order": [names.get(run["id"], "") for run in begun] == order == sorted(order),
            "again": len(again),
            "last_submitted": round(self._last_submitted, 1),
            "seconds": round(seconds, 1),
            "each": round(between[len(between) // 2], 1) if between else 0.0,
        }, [run for run in runs if run["state_type"] in ENDED and run not in completed])  # fmt: skip

    def _judged(self, facts: dict[str, Any], failed: Sequence[dict[str, Any]]) -> Result:
        count = facts["dropped"]
        wrong = [f"{run['name']}: {run['state_type']}: {(run['state'] or {}).get('message')}" for run in failed]
        wrong += [f"{facts[key]} {key} of {count}" for key in ("runs", "completed", "done") if facts[key] != count]
        # Two clips that look the same on a tiny base share an artifact; a run folder is each drop's own.
        wrong += [f"{facts['concepts']} concepts of {facts['completed']} runs"] * (
            facts["concepts"] < facts["completed"]
        )
        wrong += [f"{facts['overlaps']} trainings overlap"] * bool(facts["overlaps"])
        wrong += ["the order of starts is another one"] * (not facts["in_order"])
        return Result(**facts, wrong=tuple(wrong))

    def _overlaps(self) -> int:
        trainings = [task for task in self._all("task_runs") if task["name"].startswith("train-")]
        spans = sorted((_when(task["start_time"]), task["end_time"]) for task in trainings if task["start_time"])
        return sum(end is None or later < _when(end) for (_, end), (later, _) in pairwise(spans))

    def _has_lora(self, run_id: str) -> bool:
        return any((self._live.state.runs / run_id / "concept").glob("lora*.safetensors"))

    def _ledger(self) -> Any:
        return Ledger(self._root / LEDGER_FILE).entries()

    def _all(self, kind: str) -> list[dict[str, Any]]:
        """All of a kind, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            asked = {"limit": _PAGE, "offset": len(found), "sort": "ID_DESC"}
            reply = httpx.post(f"{self._live.ports.prefect_api}/{kind}/filter", json=asked, timeout=60)
            page = reply.raise_for_status().json()
            found += page
            if len(page) < _PAGE:
                return found


def measure(count: int, minutes: float) -> Result:
    """Drops so many clips at once and waits.

    Args:
        count: of drops.
        minutes: how long to wait at most.

    Returns:
        What came of them.
    """
    with tempfile.TemporaryDirectory(prefix="mannerism-drops-", ignore_cleanup_errors=True) as name:
        root = Path(name)
        config = root / "drops.yaml"
        config.write_text(config_text(template(tiny_wan(root / "base"))))
        drops = make_drops(root / "making", count)
        with _served(root, str(config)) as live:
            watched = Watched(live, drops)
            watched.wait(minutes)
            return watched.result()


def measure_clip(clip: Path, subject: str, config: str, minutes: float) -> ClipResult:
    """Drops one clip and waits.

    Args:
        clip: a file.
        subject: what it shows; empty: a drop that says nothing of itself.
        config: of the service; empty: the defaults.
        minutes: how long to wait at most.

    Returns:
        What came of it.
    """
    with tempfile.TemporaryDirectory(prefix="mannerism-drops-", ignore_cleanup_errors=True) as name:
        root = Path(name)
        drop = root / "making" / (clip.stem if subject else clip.name)
        drop.parent.mkdir()
        if subject:
            drop.mkdir()
            (drop / FILE_NAME).write_text(json.dumps({"subject": subject}))
        shutil.copyfile(clip, drop / clip.name if subject else drop)
        with _served(root, config) as live:
            drop.rename(live.state.drops / "inbox" / drop.name)
            return _clip_result(live, parse_config({"concept": {"name": clip.stem}}).concept_name, minutes)


def _clip_result(live: Live, concept: str, minutes: float) -> ClipResult:
    started, ledger = time.monotonic(), Ledger(live.state.drops / LEDGER_FILE)
    entry, reason = None, ""
    while not reason and (entry is None or entry.state != "done") and time.monotonic() - started < 60 * minutes:
        time.sleep(LOOK_SECONDS)
        entry = next(iter(ledger.entries()), None)
        for path in live.state.drops.glob(f"rejected/*/{REASON_FILE}"):
            reason = json.loads(path.read_text())["reason"]
    seconds = time.monotonic() - started
    version = next(iter(ConceptRegistry(live.ports.mlflow_url).versions(concept)[::-1]), None)
    tags = version.tags if version else {}
    champion = version is not None and CHAMPION in version.aliases
    reports = [live.state.runs / run.run_id / REPORT_FILE for run in all_runs(live.state) if run.status == "done"]
    facts: dict[str, Any] = {
        "concept": concept,
        "drop": reason or (entry.state if entry else "waits"),
        "run": live.state_of(entry.run) if entry and entry.run else "",
        "version": str(version or ""),
        "gate": f"{tags.get(GATE_TAG, '')} {tags.get(REASON_TAG, '')}".strip(),
        "champion": champion,
        "report_bytes": sum(path.stat().st_size for path in reports if path.is_file()),
        "seconds": round(seconds, 1),
    }
    right = {
        "drop": facts["drop"] == "done",
        "run": facts["run"] == "COMPLETED",
        "version": version is not None,
        "gate": GATE_TAG in tags,
        "champion": champion == (tags.get(GATE_TAG) == "passed"),
        "report_bytes": facts["report_bytes"] > 0,
    }
    return ClipResult(**facts, wrong=tuple(f"{key}: {facts[key] or 'none'}" for key, well in right.items() if not well))


@contextmanager
def _served(root: Path, config: str) -> Iterator[Live]:
    """`up` in a folder, with a config for drops where one is named."""
    live = Live(root, *(("--drop-config", config) if config else ()))
    try:
        live.wait()
        yield live
    finally:
        live.end()


def _when(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--subject", default="")
    parser.add_argument("--drop-config", default="")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result: Result | ClipResult
    if arguments.clip:
        result = measure_clip(arguments.clip, arguments.subject, arguments.drop_config, arguments.minutes)
    else:
        result = measure(arguments.count, arguments.minutes)
    if arguments.json:
        print(json.dumps(asdict(result)))
    else:
        for key, value in asdict(result).items():
            print(f"{key:>16}  {value}")
    sys.exit(1 if result.wrong else 0)


if __name__ == "__main__":
    main()
