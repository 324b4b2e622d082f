"""A process that writes to MLflow, alone or with others at once; the tests kill it."""

from __future__ import annotations

import itertools
import sys
import time

from pipeline_lib.tracking import DIGEST_TAG
from pipeline_lib.tracking.mlflow_tracker import MlflowTracker


def main() -> None:
    uri, artifacts, digest, count = sys.argv[1:5]
    tracker = MlflowTracker(uri, "concepts", artifacts)
    run_id = tracker.start_run("a run", {DIGEST_TAG: digest}, {"pid": 1})
    stage = tracker.child("train")
    for step in range(int(count)) if int(count) else itertools.count():
        stage.log_metrics([("loss", float(step), step)])
        if step == 600:
            sys.stdout.write(f"{run_id}\n")
            sys.stdout.flush()
        if step > 600:
            time.sleep(0.001)
    stage.end()
    tracker.end()


if __name__ == "__main__":
    main()
