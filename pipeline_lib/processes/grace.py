"""How long whoever is asked to stop may take, from the inside out: who waits from outside waits longer.

The outermost waits are those of `deployments/compose.yaml` and `deployments/kubernetes/pool.json`.
"""

from __future__ import annotations

CHECKPOINT_SECONDS = 60.0
"""Of a worker child: the step that it is at, then a checkpoint."""
RUN_SECONDS = CHECKPOINT_SECONDS + 20.0
"""Of a run's process: its worker child, then the end of its pages."""
