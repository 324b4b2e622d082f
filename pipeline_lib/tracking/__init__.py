"""Where runs are written down: a seam, one that does nothing, and MLflow (imported only when a tracker is made)."""

from pipeline_lib.tracking.away import is_away
from pipeline_lib.tracking.null import NullTracker
from pipeline_lib.tracking.tracker import DIGEST_TAG, FLOW_RUN_TAG, Metric, RunStatus, Tracker, ended, status_after

__all__ = [
    "DIGEST_TAG",
    "FLOW_RUN_TAG",
    "Metric",
    "NullTracker",
    "RunStatus",
    "Tracker",
    "ended",
    "is_away",
    "status_after",
]
