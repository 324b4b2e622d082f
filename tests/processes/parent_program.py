"""A parent that is killed while its child trains."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pipeline_lib.processes.worker_child import WorkerChild


def main() -> None:
    folder, verb = sys.argv[1:3]
    child = [sys.executable, str(Path(__file__).with_name("child_program.py"))]
    worker = WorkerChild(child, log_path=Path(folder) / "worker.log", stall_seconds=60)

    def tell(event: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps({"pid": worker.pid, **event}) + "\n")
        sys.stdout.flush()

    worker.request(verb, {"folder": folder}, tell)


if __name__ == "__main__":
    main()
