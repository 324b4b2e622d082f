"""The artifact store, the only cache, and atomic writes."""

from pipeline_lib.storage.files import disk_errors, replacing, write_atomic
from pipeline_lib.storage.manifest import MANIFEST, FileEntry, Manifest
from pipeline_lib.storage.store import Artifact, ArtifactStore, Pruned

__all__ = [
    "MANIFEST",
    "Artifact",
    "ArtifactStore",
    "FileEntry",
    "Manifest",
    "Pruned",
    "disk_errors",
    "replacing",
    "write_atomic",
]
