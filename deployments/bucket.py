"""Makes a bucket of an S3-compatible store, where it is not there yet; `compose.yaml` runs it before MLflow's server.

    python -m deployments.bucket NAME

The store is the one of MLFLOW_S3_ENDPOINT_URL, the keys are boto3's own variables.
"""

from __future__ import annotations

import os
import sys


def make_bucket(name: str, endpoint: str) -> None:
    """Makes a bucket.

    Args:
        name: of the bucket.
        endpoint: the store's address.

    Raises:
        botocore.exceptions.ClientError: the store refuses.
    """
    import boto3

    store = boto3.client("s3", endpoint_url=endpoint)
    if name not in [bucket["Name"] for bucket in store.list_buckets()["Buckets"]]:
        store.create_bucket(Bucket=name)


if __name__ == "__main__":
    make_bucket(sys.argv[1], os.environ["MLFLOW_S3_ENDPOINT_URL"])
