"""The state folder: the one place where a run's files, databases and logs live."""

from __future__ import annotations

import getpass
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.storage import ArtifactStore, disk_errors

ENVIRONMENT_VARIABLE = "MANNERISM_STATE"
DEFAULT = "mannerism_state"


@dataclass(frozen=True)
class StateFolder:
    """Paths below one root; nothing but the device locks is written outside of it.

    Attributes:
        root: absolute.
    """

    root: Path

    @classmethod
    def open(cls, root: Path | None = None) -> StateFolder:
        """The folder given, else MANNERISM_STATE, else `./mannerism_state`; made when missing.

        Args:
            root: a path of the user, or None.

        Returns:
            The folder, by its absolute path.

        Raises:
            ResourceError: the disk is full.
            InputError: the folder cannot be written to.
        """
        chosen = (root or Path(os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT)).expanduser().resolve()
        with disk_errors(chosen, "the state folder"):
            try:
                for name in ("runs", "logs", "mlflow"):
                    (chosen / name).mkdir(parents=True, exist_ok=True)
            except (PermissionError, FileExistsError, NotADirectoryError) as error:
                from pipeline_lib.errors import InputError

                fix = f"name another one with --state or {ENVIRONMENT_VARIABLE}"
                raise InputError(f"the state folder {chosen} cannot be used", got=str(error), fix=fix) from error
        return cls(chosen)

    @property
    def store(self) -> ArtifactStore:
        """A fresh view of the artifact store."""
        return ArtifactStore(self.root / "store")

    @property
    def runs(self) -> Path:
        """One folder for each run."""
        return self.root / "runs"

    @property
    def logs(self) -> Path:
        """Worker logs and tracebacks."""
        return self.root / "logs"

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
        """MLflow's database."""
        return f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        """Where MLflow keeps files."""
        return self.root / "mlflow" / "artifacts"
