"""The flow's own process stays light: model work, and what it imports, is the worker child's."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {"torch", "diffusers", "transformers", "peft", "cv2", "scipy", "mlflow"}
"""MLflow comes later, and only where a run is tracked."""


def test_importing_the_flow_imports_no_model_code() -> None:
    program = "import json, sys, flows.personalize; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not HEAVY & set(json.loads(done.stdout.splitlines()[-1]))
