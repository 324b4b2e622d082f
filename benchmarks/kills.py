"""Kill -9 of whatever takes part in a run, at random moments: nothing is left behind and the same bits come out.

    python -m benchmarks.kills [--kills N] [--seed N] [--victims worker-child,…] [--json]

`mannerism up` runs in a temporary folder. A small personalisation is run once undisturbed, then once for each kill, on
an empty store. Each time one of four is killed, at a moment drawn from the time that it lived in the undisturbed run:
the worker child (all model work), the flow process, the Prefect worker, the Prefect server. After that only what a
person would do is done: nothing while things go on by themselves, "Retry" where the run has Failed or Crashed. A round
is good when the flow run completes, no process is left of the run or out of `up`'s sight, no lock is held, no MLflow
run is open, and all artifacts but the report, which tells times, have the bits of the undisturbed run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from benchmarks.live import ENDED, LOOK_SECONDS, Live, is_held, live_folder, wait_for
from benchmarks.small_run import small_run
from deployments.apply import POOL
from pipeline_lib.run_config import RunConfig, with_settings
from pipeline_lib.steps.run_folder import RunFolder, run_identity

LONGEST = 1800.0
"""Seconds that a run may take, kill and recovery included."""
HUMAN_SECONDS = 10.0
"""From a run's Failed or Crashed to a person's Retry; the worker says Crashed twice, some moments apart."""
MOST_RETRIES = 3
PATIENCE = 180.0
"""Seconds that processes of an ended run may take to leave."""


class Victim(NamedTuple):
    """Whom to kill: words of its command line, and whether it belongs to one flow run."""

    words: tuple[str, ...]
    of_run: bool


VICTIMS = {
    "worker-child": Victim(("pipeline_lib.worker",), of_run=True),
    "flow-process": Victim(("prefect.engine",), of_run=True),
    "prefect-worker": Victim(("prefect", "worker", "start", POOL), of_run=False),
    "prefect-server": Victim(("prefect", "server", "start"), of_run=False),
}


@dataclass
class Round:
    """One kill and what came of it.

    Attributes:
        victim: of :data:`VICTIMS`.
        at: seconds from the victim's first sight in this run to the kill.
        during: the artifacts that were there, as a measure of how far the run was.
        noticed: seconds from the kill to the run's Failed or Crashed; 0 where the run went on by itself.
        back: seconds from the kill to another process of the kind; 0 where none was needed any more.
        whole: seconds from the kill to the completed run.
        lost: seconds by which the whole run took longer than the undisturbed one.
        retries: how often "Retry" was needed.
        wrong: what was not as it should be.
    """

    victim: str
    at: float = 0.0
    during: int = 0
    noticed: float = 0.0
    back: float = 0.0
    whole: float = 0.0
    lost: float = 0.0
    retries: int = 0
    wrong: list[str] = field(default_factory=list)


class Reference(NamedTuple):
    """The undisturbed run: seconds in all, the seconds each victim lived in it, and the bits."""

    seconds: float
    lives: dict[str, float]
    bits: dict[str, str]


class Kills:
    """The rounds on one `up`.

    Args:
        live: it.
        config: of all runs.
        seed: of the moments.
    """

    def __init__(self, live: Live, config: RunConfig, seed: int) -> None:
        self._live, self._config, self._random = live, config, random.Random(seed)

    def undisturbed(self) -> Reference:
        """The run that others are held against."""
        started = time.monotonic()
        run = self._live.submit(self._of("undisturbed"))
        born: dict[str, float] = {}
        last: dict[str, float] = {}
        while (state := self._live.state_of(run)) not in ENDED and time.monotonic() - started < LONGEST:
            now = time.monotonic()
            for name in VICTIMS:
                if self._find(name, run) is not None:
                    born.setdefault(name, now)
                    last[name] = now
            time.sleep(LOOK_SECONDS)
        if state != "COMPLETED":
            raise RuntimeError(f"the undisturbed run is {state or 'not known'}: {self._live.states_of(run)[-1]}")
        lives = {name: last[name] - born[name] for name in VICTIMS}
        return Reference(time.monotonic() - started, lives, self._bits())

    def round(self, victim: str, reference: Reference) -> Round:
        """Kills once; again on another run where the run was over before the moment came."""
        while True:
            self._empty()
            name = f"{victim}-{self._random.getrandbits(32):08x}"
            started = time.monotonic()
            run = self._live.submit(self._of(name))
            record = Round(victim, at=round(self._random.uniform(0, reference.lives[victim]), 2))
            if self._kill(record, run):
                break
        killed = time.monotonic()
        self._recover(record, run, killed)
        record.whole = round(time.monotonic() - killed, 2)
        record.lost = round(time.monotonic() - started - reference.seconds, 2)
        record.wrong = [*record.wrong, *self._left(run, name), *self._other_bits(reference)]
        return record

    def _kill(self, record: Round, run: str) -> bool:
        def there() -> psutil.Process | None:
            return self._find(record.victim, run)

        with suppress(TimeoutError):
            wait_for(there, LONGEST, f"{record.victim} of the run")
            time.sleep(record.at)
        process = there()
        if process is None or self._live.state_of(run) in ENDED:
            return False
        record.during = len(list(self._live.state.store.root.glob("artifacts/*/*/manifest.json")))
        process.kill()
        with suppress(psutil.TimeoutExpired):
            process.wait(10)  # a parent that waits for it is not us
        return True

    def _recover(self, record: Round, run: str, killed: float) -> None:
        """Does what a person would until the run is complete."""
        ended = 0.0
        while (state := self._live.state_of(run)) != "COMPLETED":
            time.sleep(LOOK_SECONDS)
            since = time.monotonic() - killed
            if since > LONGEST:
                record.wrong.append(f"{state or 'no server'} after {LONGEST:.0f} s")
                return
            if not record.back and self._find(record.victim, run) is not None:
                record.back = round(since, 2)
            if state not in ENDED:
                ended = 0.0
                continue
            ended = ended or since
            record.noticed = record.noticed or round(since, 2)
            if since - ended < HUMAN_SECONDS:
                continue
            if record.retries == MOST_RETRIES:
                record.wrong.append(f"{state} after {MOST_RETRIES} retries: {self._live.states_of(run)[-1]['message']}")
                return
            with suppress(httpx.HTTPError):
                self._live.retry(run)
                record.retries, ended = record.retries + 1, 0.0

    def _left(self, run: str, experiment: str) -> Iterator[str]:
        """What a finished run should not leave."""
        strangers: list[str] = []

        def gone() -> bool:
            strangers[:] = self._strangers(run)
            return not strangers

        try:
            wait_for(gone, PATIENCE, "all processes gone")
        except TimeoutError:
            yield f"processes left: {strangers}"
        held = [str(path) for path in self._locks() if is_held(path)]
        if held:
            yield f"locks held: {held}"
        tracked = self._live.tracked(experiment)
        if set(tracked.values()) != {"FINISHED"}:
            yield f"MLflow runs: {tracked}"

    def _strangers(self, run: str) -> list[str]:
        """Processes of the run, and those that `up` has lost sight of."""
        family = {process.pid for process in psutil.Process(self._live.pid).children(recursive=True)}
        found = []
        for process, environment in self._live.processes():
            with suppress(psutil.Error):
                if run in environment.values() or process.pid not in family:
                    found.append(" ".join(process.cmdline())[:200])
        return found

    def _locks(self) -> Iterator[Path]:
        yield from self._live.locks.glob("*.lock")
        yield from self._live.state.store.root.glob("locks/**/*.lock")

    def _other_bits(self, reference: Reference) -> Iterator[str]:
        bits = self._bits()
        other = sorted(name for name in reference.bits if bits.get(name) != reference.bits[name])
        if other:
            yield f"other bits: {other}"

    def _bits(self) -> dict[str, str]:
        """The content of every artifact of the finished run, and of the LoRA that a person takes away."""
        folder = RunFolder(self._live.state, run_identity(self._config))
        record = folder.record()
        if record is None or record.status != "done":
            return {}
        files = {path.name: _sha256(path) for path in sorted((folder.path / "concept").glob("lora*.safetensors"))}
        return files | {name: step.ref.digest for name, step in record.steps.items() if name != "report"}

    def _find(self, victim: str, run: str) -> psutil.Process | None:
        words, of_run = VICTIMS[victim]
        return self._live.started(*words, run=run if of_run else "")

    def _of(self, experiment: str) -> RunConfig:
        """The same run, on a page of its own."""
        return with_settings(self._config, [f"tracking.experiment={experiment}"])

    def _empty(self) -> None:
        for folder in (self._live.state.store.root, self._live.state.runs):
            shutil.rmtree(folder, ignore_errors=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(kills: int, seed: int, victims: Sequence[str]) -> dict[str, object]:
    """All rounds, the victims in turn.

    Args:
        kills: how many.
        seed: of the moments.
        victims: of :data:`VICTIMS`.

    Returns:
        The undisturbed run's seconds, each round, how many rounds were good.
    """
    with live_folder() as live:
        rounds = Kills(live, small_run(live.root), seed)
        reference = rounds.undisturbed()
        print(f"undisturbed: {reference.seconds:.1f} s, {reference.lives}", file=sys.stderr)
        records = []
        for number in range(kills):
            records.append(rounds.round(victims[number % len(victims)], reference))
            print(f"{number + 1}/{kills}: {records[-1]}", file=sys.stderr, flush=True)
    good = [record for record in records if not record.wrong]
    return {
        "undisturbed_seconds": round(reference.seconds, 1),
        "kills": len(records),
        "good": len(good),
        "by_victim": Counter(record.victim for record in good),
        "rounds": [asdict(record) for record in records],
    }


def main() -> None:
    """Prints one table, or one JSON object; exit code 1 where a round was not good."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--victims", default=",".join(VICTIMS), help="taken in turn")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    victims = arguments.victims.split(",")
    if unknown := [name for name in victims if name not in VICTIMS]:
        parser.error(f"--victims {unknown[0]}: there are {', '.join(VICTIMS)}")
    done = run(arguments.kills, arguments.seed, victims)
    if arguments.json:
        print(json.dumps(done))
    else:
        _table(done)
    sys.exit(0 if done["good"] == done["kills"] else 1)


def _table(done: dict[str, object]) -> None:
    rounds = done["rounds"]
    assert isinstance(rounds, list)
    for record in rounds:
        print("  ".join(f"{name} {value}" for name, value in record.items() if value))
    print(f"{done['good']} of {done['kills']} good; undisturbed {done['undisturbed_seconds']} s")


if __name__ == "__main__":
    main()
