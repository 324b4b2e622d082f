"""A process that trains a stage with further ones, and tells its steps: a worker to kill."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.training.several import IDENTITY, Bench


def tell(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    Bench.opened(Path(sys.argv[1]), Path(sys.argv[2])).train(
        IDENTITY.model_copy(update={"steps": 10_000}), 2, emit=tell
    )
