"""The watcher as a process, a real Prefect server, deaths in between; an S3 server over HTTP. Run by make test-system.

No worker runs here: what becomes of a run is said to the server by the test. `up` whole is in test_up.py, many drops in
`benchmarks.drops`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pytest

from flows.ingest import EVENT, LEDGER_FILE
from flows.services import Ports, prefect_server
from pipeline_lib.drops.heartbeat import last_beat
from pipeline_lib.drops.intake import MOST_RETRIES
from pipeline_lib.drops.ledger import Ledger
from pipeline_lib.drops.places import drops_home
from pipeline_lib.processes.supervisor import Supervisor
from pipeline_lib.run_config import config_text
from pipeline_lib.steps.state import StateFolder
from tests.steps.tiny import small_clip, small_images, tiny_config

pytestmark = [pytest.mark.system, pytest.mark.timeout(2400)]
PATIENCE = 600.0  # seconds; a loaded machine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(reached: Any, seconds: float, what: str) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := reached():
            return value
        time.sleep(0.5)
    raise AssertionError(f"not in {seconds:.0f} s: {what}")


class Server:
    """A Prefect server that can be away for a while."""

    def __init__(self, root: Path, base: Path) -> None:
        self.root, self.state, self.ports = root, StateFolder.open(root / "state"), Ports(prefect=free_port())
        self.template = root / "drops.yaml"
        self.template.write_text(config_text(tiny_config(base, [])))
        self._supervisor: Supervisor | None = None

    def environment(self, **more: str) -> dict[str, str]:
        own = {"MANNERISM_STATE": str(self.state.root), "PREFECT_API_URL": self.ports.prefect_api}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "AWS_"))}
        return {**kept, **own, "OMP_NUM_THREADS": "1", **more}

    def start(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PREFECT_HOME", str(self.state.prefect_home))
            patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
            self._supervisor = Supervisor(self.state.logs, print)
            self._supervisor.start(replace(prefect_server(self.ports), ready_seconds=900))

    def stop(self) -> None:
        if self._supervisor is not None:
            self._supervisor.close()
            self._supervisor = None

    def deploy(self) -> None:
        command = [sys.executable, "-m", "deployments.apply"]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=False, timeout=900)
        assert done.returncode == 0, done.stderr

    def asked(self, path: str, body: Any) -> Any:
        reply = httpx.post(f"{self.ports.prefect_api}/{path}", json=body, timeout=60)
        return reply.raise_for_status().json()

    def runs(self) -> dict[str, str]:
        """Flow runs by id, with their names: those of the drops' concepts."""
        return {run["id"]: run["parameters"]["config"]["concept"]["name"] for run in self.asked("flow_runs/filter", {})}

    def end_all(self) -> None:
        """What a worker would say when the runs have ended well."""
        for run in self.runs():
            self.say(run, "COMPLETED")

    def say(self, run: str, kind: str) -> None:
        """Sets a run's state, as a worker or a person would."""
        self.asked(f"flow_runs/{run}/set_state", {"state": {"type": kind}, "force": True})

    def state_of(self, run: str) -> str:
        reply = httpx.get(f"{self.ports.prefect_api}/flow_runs/{run}", timeout=60)
        return str(reply.raise_for_status().json()["state_name"])

    def events(self) -> list[dict[str, Any]]:
        found = self.asked("events/filter", {"filter": {"event": {"name": [EVENT]}}})
        events: list[dict[str, Any]] = found["events"]
        return events


class Watcher:
    """`mannerism watch` in a process of its own."""

    def __init__(self, server: Server, place: str, **environment: str) -> None:
        self.home, self._log = drops_home(place, server.state), server.root / f"watcher-{time.monotonic_ns()}.log"
        since = time.time()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli.main", "watch", place, "--config", str(server.template)],
                env=server.environment(**environment),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_for(lambda: (beat := last_beat(self.home)) and beat.time >= since, PATIENCE, "a heartbeat")
        except BaseException:
            self.kill()
            raise

    def said(self) -> str:
        return self._log.read_text()

    def states(self) -> list[str]:
        return [entry.state for entry in Ledger(self.home / LEDGER_FILE).entries()]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"), tiny_folder)
    made.state.make()
    try:
        made.start()
        made.deploy()
        yield made
    finally:
        made.stop()


@pytest.fixture
def watch(server: Server) -> Iterator[Callable[..., Watcher]]:
    """Starts watchers; none outlives the test."""
    started: list[Watcher] = []

    def start(place: str, **environment: str) -> Watcher:
        started.append(Watcher(server, place, **environment))
        return started[-1]

    yield start
    for watcher in started:
        watcher.kill()


def test_killed_between_claim_and_submit_while_the_server_is_down_for_a_minute(
    server: Server, watch: Callable[..., Watcher], tmp_path: Path
) -> None:
    place = tmp_path / "drops"
    server.stop()
    stopped = time.monotonic()
    first = watch(str(place))
    for name, frames in (("wolf.mp4", 8), ("bear.mp4", 24)):
        small_clip(place / "inbox" / f".{name}", num_frames=frames).rename(place / "inbox" / name)
    wait_for(lambda: first.states() == ["claimed", "claimed"], PATIENCE, "both claims")
    wait_for(lambda: "drops wait" in first.said(), PATIENCE, "word that the server is away")
    assert not list((place / "inbox").iterdir())
    first.kill()

    second = watch(str(place))
    wait_for(lambda: time.monotonic() - stopped > 60, 120, "a minute without a server")
    server.start()
    wait_for(lambda: second.states() == ["submitted", "submitted"], PATIENCE, "both submits")
    second.kill()
    assert sorted(server.runs().values()) == ["bear", "wolf"]
    third = watch(str(place))
    small_clip(place / "inbox" / ".again.mp4").rename(place / "inbox" / "wolf.mp4")
    wait_for(lambda: list((place / "done").glob("wolf.mp4-again*")), PATIENCE, "the second of its kind")
    server.end_all()
    wait_for(lambda: third.states() == ["done", "done"], PATIENCE, "the drops' end")
    assert len(server.runs()) == 2
    payloads = wait_for(server.events, PATIENCE, "the events")
    assert {event["payload"]["run"] for event in payloads} == set(server.runs())
    third.end()
    assert last_beat(place) is None


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An S3 server in a process of its own, and the environment by which clients find it; started by the test."""
    address = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in address.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").clear_instance_cache()
        yield address
        fsspec.filesystem("s3").clear_instance_cache()


@pytest.fixture
def started_bucket(bucket: dict[str, str], tmp_path: Path) -> Iterator[Any]:
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> Any:
        port = bucket["AWS_ENDPOINT_URL"].rpartition(":")[2]
        with (tmp_path / "s3.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port], stdout=log, stderr=log
                )
            )

        def answers() -> bool:
            try:
                return httpx.get(bucket["AWS_ENDPOINT_URL"], timeout=5).status_code < 500
            except httpx.HTTPError:
                return False

        wait_for(answers, PATIENCE, "the S3 server")
        files = fsspec.filesystem("s3", use_listings_cache=False)
        files.mkdir("bucket")
        return files

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_drops_in_a_store_over_http(
    server: Server, watch: Callable[..., Watcher], bucket: dict[str, str], started_bucket: Any, tmp_path: Path
) -> None:
    url, root = "s3://bucket/team/drops", "bucket/team/drops"
    before = set(server.runs())
    watcher = watch(url, **bucket)
    wait_for(lambda: "drops wait: s3://bucket/team/drops" in watcher.said(), PATIENCE, "word that the store is away")
    files = started_bucket()
    clip, pictures = small_clip(tmp_path / "clip.mp4", num_frames=16), small_images(tmp_path / "pictures")
    whole = clip.read_bytes()
    files.pipe_file(f"{root}/inbox/fox/clip.mp4", whole[: len(whole) // 2])  # half of it
    files.put(str(clip), f"{root}/inbox/bad/clip.mp4")
    files.pipe_file(f"{root}/inbox/bad/concept.yaml", b"sed: 1")
    files.pipe_file(f"{root}/inbox/bad/_READY", b"")
    (reason,) = wait_for(lambda: files.glob(f"{root}/rejected/bad-*/reason.json"), PATIENCE, "the rejection")
    assert "unknown key `sed`" in json.loads(files.cat_file(reason))["reason"]
    assert set(server.runs()) == before
    watcher.kill()

    files.pipe_file(f"{root}/inbox/fox/clip.mp4", whole)
    for picture in sorted(pictures.iterdir()):
        files.put(str(picture), f"{root}/inbox/hare/{picture.name}")
    watcher = watch(url, **bucket)
    wait_for(lambda: sorted(watcher.states()) == ["rejected", "submitted", "submitted"], PATIENCE, "the submits")
    fresh = {run: name for run, name in server.runs().items() if run not in before}
    assert sorted(fresh.values()) == ["fox", "hare"]
    server.end_all()
    wait_for(lambda: not files.find(f"{root}/inbox"), PATIENCE, "an empty inbox")
    done = {path.partition("/done/")[2]: files.cat_file(path) for path in files.find(f"{root}/done")}
    assert sorted(key.rpartition("/")[2] for key in done) == ["0.png", "1.png", "2.png", "clip.mp4"]
    assert whole in done.values()
    assert len(server.runs()) == len(before) + 2
    assert "secret" not in " ".join(watcher.process.args)  # type: ignore[arg-type]


def test_a_crashed_run_is_tried_again_and_one_that_a_person_tries_again_leaves_the_rejected(
    server: Server, watch: Callable[..., Watcher], tmp_path: Path
) -> None:
    place = tmp_path / "drops"
    watcher = watch(str(place))
    small_clip(place / "inbox" / ".wolf.mp4", num_frames=12).rename(place / "inbox" / "wolf.mp4")
    wait_for(lambda: watcher.states() == ["submitted"], PATIENCE, "the submit")
    (entry,) = Ledger(place / LEDGER_FILE).entries()
    for number in range(1, MOST_RETRIES + 1):
        server.say(entry.run, "CRASHED")
        wait_for(lambda: server.state_of(entry.run) == "AwaitingRetry", PATIENCE, "the watcher's retry")
        wait_for(lambda: f"retry {number} of {MOST_RETRIES}" in watcher.said(), PATIENCE, "word of it")  # noqa: B023
        watcher.kill()
        watcher = watch(str(place))
    server.say(entry.run, "CRASHED")
    wait_for(lambda: "wolf.mp4 waits for a person" in watcher.said(), PATIENCE, "word that nobody tries it again")
    assert server.state_of(entry.run) == "Crashed"

    server.say(entry.run, "CANCELLED")
    wait_for(lambda: watcher.states() == ["rejected"], PATIENCE, "the rejection")
    server.say(entry.run, "SCHEDULED")
    server.say(entry.run, "COMPLETED")
    wait_for(lambda: watcher.states() == ["done"], PATIENCE, "the end after all")
    assert not list((place / "rejected").iterdir())
    assert (place / "done" / f"wolf-{entry.digest[:12]}" / "media" / "wolf.mp4").is_file()
