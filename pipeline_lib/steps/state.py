"""The state folder: the one place where a run's files, databases and logs live."""

from __future__ import annotations

import errno
import getpass
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.errors import InputError
from pipeline_lib.storage import ArtifactStore, disk_errors

ENVIRONMENT_VARIABLE = "MANNERISM_STATE"
# Not MLflow's own MLFLOW_TRACKING_URI: MLflow sets that itself, and a process may have runs of several state folders.
TRACKING_VARIABLE = "MANNERISM_MLFLOW_URI"
DEFAULT = "mannerism_state"
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOENT, errno.ENOTDIR)


@dataclass(frozen=True)
class StateFolder:
    """Paths below one root; nothing but the device locks is written outside of it.

    Attributes:
        root: absolute.
    """

    root: Path

    @classmethod
    def open(cls, root: Path | None = None) -> StateFolder:
        """The folder given, else MANNERISM_STATE, else `./mannerism_state`; nothing is written.

        Args:
            root: a path of the user, or None.

        Returns:
            The folder, by its absolute path; perhaps not there yet.

        Raises:
            InputError: something that is no folder is in its place.
        """
        chosen = (root or Path(os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT)).expanduser().resolve()
        in_the_way = next((path for path in (chosen, *chosen.parents) if path.is_file()), None)
        if in_the_way is not None:
            raise _unusable(chosen, f"{in_the_way} is a file")
        return cls(chosen)

    def make(self) -> None:
        """Makes what is missing of it; what is wanted of it must have been accepted by then.

        Raises:
            ResourceError: the disk is full.
            InputError: the folder cannot be written to.
        """
        with disk_errors(self.root, "the state folder"):
            try:
                for name in ("runs", "logs", "mlflow"):
                    (self.root / name).mkdir(parents=True, exist_ok=True)
                # Folders of an earlier run tell nothing about a disk that is read-only now.
                with tempfile.TemporaryFile(dir=self.root):
                    pass
            except OSError as error:
                if error.errno not in _NOT_OURS:
                    raise
                raise _unusable(self.root, str(error)) from error

    @property
    def store(self) -> ArtifactStore:
        """A fresh view of the artifact store."""
        return ArtifactStore(self.root / "store")

    @property
    def runs(self) -> Path:
        """One folder for each run."""
        return self.root / "runs"

    @property
    def batches(self) -> Path:
        """One folder for each batch: its report."""
        return self.root / "batches"

    @property
    def comparisons(self) -> Path:
        """One folder for each comparison of methods: its report, its numbers, its blind pairs."""
        return self.root / "comparisons"

    @property
    def gizmos(self) -> Path:
        """Clips and prompts of the pocket world's held-out concepts, where they are learned."""
        return self.root / "gizmos"

    @property
    def concepts(self) -> Path:
        """What a batch takes that is not told another folder, as the nightly one is not."""
        return self.root / "concepts"

    @property
    def generated(self) -> Path:
        """Videos of concepts, where no other place is named."""
        return self.root / "generated"

    @property
    def fetched(self) -> Path:
        """Files of registered concepts, as they were fetched from MLflow."""
        return self.root / "fetched"

    def run_names(self) -> list[str]:
        """Of all run folders, sorted; none where there is no state folder yet."""
        return sorted(path.name for path in self.runs.iterdir() if path.is_dir()) if self.runs.is_dir() else []

    @property
    def logs(self) -> Path:
        """Worker logs and tracebacks."""
        return self.root / "logs"

    @property
    def drops(self) -> Path:
        """Inbox and ledger of data drops, where no other place is named."""
        return self.root / "drops"

    @property
    def locks(self) -> Path:
        """Device locks: of this machine and user, since runs of several state folders share its GPUs."""
        return Path(tempfile.gettempdir()) / f"mannerism-{getpass.getuser()}" / "locks"

    @property
    def prefect_home(self) -> Path:
        """PREFECT_HOME."""
        return self.root / "prefect"

    @property
    def mlflow_uri(self) -> str:
        """Where runs are written down: the server that MANNERISM_MLFLOW_URI names, else the database here."""
        return os.environ.get(TRACKING_VARIABLE) or self.mlflow_database

    @property
    def mlflow_database(self) -> str:
        """MLflow's database."""
        return f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        """Where MLflow keeps files."""
        return self.root / "mlflow" / "artifacts"

    @property
    def mlflow_place(self) -> str:
        """Where a new experiment's files go; empty: a server has a place of its own."""
        return str(self.mlflow_artifacts) if self.mlflow_uri == self.mlflow_database else ""


def _unusable(root: Path, why: str) -> InputError:
    fix = f"name another one with --state or {ENVIRONMENT_VARIABLE}"
    return InputError(f"the state folder {root} cannot be used", got=why, fix=fix)
