"""`mannerism up` in a process of its own, for benchmarks: its processes, its flow runs, its pages in MLflow."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
from filelock import FileLock, Timeout

from flows.environment import UP_FILE
from flows.guard import MARK
from flows.services import HOST, Ports
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.state import StateFolder

DEPLOYMENT = "personalize/set-and-sequence-pocket"
FLOW_RUN = "PREFECT__FLOW_RUN_ID"
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
LOOK_SECONDS = 0.4
"""Between two looks: each costs a look at all processes, or a request."""
T = TypeVar("T")


def wait_for(reached: Callable[[], T], seconds: float, what: str) -> T:
    """Asks until the answer is something.

    Args:
        reached: asked.
        seconds: how long at most.
        what: for the message.

    Returns:
        The answer.

    Raises:
        TimeoutError: it never came.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := reached():
            return value
        time.sleep(LOOK_SECONDS)
    raise TimeoutError(f"not in {seconds:.0f} s: {what}")


def is_held(lock: Path) -> bool:
    """Whether some process holds a lock file."""
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


class Live:
    """Everything that `mannerism up` runs, on free ports, in a folder of its own.

    Args:
        root: holds the state folder, temporary files (device locks among them) and what `up` says.
        *options: of `up`, beside its ports.

    Attributes:
        root: see above.
        state: the state folder.
        ports: of the servers.
        locks: device locks.
        said: what `up` says.
    """

    def __init__(self, root: Path, *options: str) -> None:
        self.root, self.state = root, StateFolder.open(root / "state")
        self.ports = Ports(prefect=_free_port(), mlflow=_free_port())
        (root / "tmp").mkdir(parents=True, exist_ok=True)
        own = {"MANNERISM_STATE": str(self.state.root), "TMPDIR": str(root / "tmp"), "HF_HUB_OFFLINE": "1"}
        others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        environment = {"OMP_NUM_THREADS": "1", **others, **own}
        self.locks = root / "tmp" / self.state.locks.relative_to(self.state.locks.parents[1])
        self.said = root / "up.log"
        self._client = httpx.Client(timeout=60)
        where = ("--port", str(self.ports.prefect), "--mlflow-port", str(self.ports.mlflow))
        with self.said.open("wb") as said:
            self._up = subprocess.Popen(
                [sys.executable, "-m", "flows.cli.main", "up", *where, *options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of `up` itself."""
        return self._up.pid

    def wait(self, seconds: float = 1800) -> None:
        """Until all is up."""

        def there() -> bool:
            if self._up.poll() is not None:
                raise RuntimeError(self.said.read_text())
            return (self.state.root / UP_FILE).is_file()

        wait_for(there, seconds, "up")

    def end(self) -> None:
        """Ctrl-C, and the last resort."""
        if self._up.poll() is None:
            self._up.send_signal(signal.SIGINT)
        try:
            self._up.wait(120)
        except subprocess.TimeoutExpired:
            self._up.kill()  # the guard ends the rest
            self._up.wait()

    def processes(self) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
        """All that `up` has started, whoever their parent is now, with their environment."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                environment = process.environ()
                if environment.get(MARK) == str(self.pid) and process.status() != psutil.STATUS_ZOMBIE:
                    yield process, environment

    def cpu_seconds(self) -> float:
        """Processor time so far, user and system, of `up` and all below it, those that have ended included."""
        spent = 0.0
        up = psutil.Process(self.pid)
        for process in (up, *up.children(recursive=True)):
            with suppress(psutil.Error):
                spent += sum(process.cpu_times()[:4])  # its own, and that of children it has waited for
        return spent

    def started(self, *words: str, run: str = "") -> psutil.Process | None:
        """A process with these words in its command line; of a flow run, where one is named."""
        for process, environment in self.processes():
            with suppress(psutil.Error):
                if run and environment.get(FLOW_RUN) != run:
                    continue
                line = process.cmdline()
                if all(word in line for word in words):
                    return process
        return None

    def submit(self, config: RunConfig) -> str:
        """Starts a flow run of the deployment; its id."""
        self.wait_for_server()
        deployment = self._asked("GET", f"deployments/name/{DEPLOYMENT}")["id"]
        parameters = {"config": config.model_dump(mode="json", exclude_defaults=True)}
        asked = {"parameters": parameters, "idempotency_key": secrets.token_hex(8)}
        path = f"deployments/{deployment}/create_flow_run"

        def made() -> str:
            with suppress(httpx.HTTPError):  # a server that has just been started again may still be busy
                return str(self._asked("POST", path, asked)["id"])
            return ""

        return wait_for(made, 300, "a flow run")

    def wait_for_server(self) -> None:
        """Until Prefect's server answers."""

        def answers() -> bool:
            try:
                return bool(self._asked("GET", "health"))
            except httpx.HTTPError:
                return False

        wait_for(answers, 600, "Prefect's server")

    def state_of(self, run: str) -> str:
        """The type of a flow run's state; empty while the server is away."""
        try:
            return str(self._asked("GET", f"flow_runs/{run}")["state_type"])
        except httpx.HTTPError:
            return ""

    def states_of(self, run: str) -> list[dict[str, Any]]:
        """All states of a flow run, as the server tells them."""
        found: list[dict[str, Any]] = self._asked("GET", f"flow_run_states/?flow_run_id={run}")
        return found

    def retry(self, run: str) -> None:
        """What the button "Retry" does."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the benchmark"}
        self._asked("POST", f"flow_runs/{run}/set_state", {"state": state, "force": True})

    def cancel(self, run: str) -> None:
        """What the button "Cancel" does."""
        self._asked("POST", f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})

    def tracked(self, experiment: str) -> dict[str, str]:
        """Names of an experiment's MLflow runs, with their status."""
        api = f"{self.ports.mlflow_url}/api/2.0/mlflow"
        found = self._client.get(f"{api}/experiments/get-by-name", params={"experiment_name": experiment})
        if found.status_code == httpx.codes.NOT_FOUND:
            return {}
        asked = {"experiment_ids": [found.raise_for_status().json()["experiment"]["experiment_id"]]}
        reply = self._client.post(f"{api}/runs/search", json=asked).raise_for_status().json()
        return {run["info"]["run_name"]: run["info"]["status"] for run in reply.get("runs", [])}

    def _asked(self, method: str, path: str, body: Any = None) -> Any:
        reply = self._client.request(method, f"{self.ports.prefect_api}/{path}", json=body)
        return reply.raise_for_status().json()


@contextmanager
def live_folder() -> Iterator[Live]:
    """`up` in a temporary folder; ended, and gone, afterwards, also where SIGTERM or a Ctrl-C asks for that."""
    for number in (signal.SIGINT, signal.SIGTERM):  # what runs in the background is born with SIGINT ignored
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="mannerism-live-", ignore_cleanup_errors=True) as name:
        live = Live(Path(name))
        try:
            live.wait()
            yield live
        finally:
            live.end()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
