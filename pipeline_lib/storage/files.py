"""Files on disk: written whole or not at all, checksums, and the disk that is full."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline_lib.errors import ResourceError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# safetensors tells the errno in words only, torch.save only that a stream failed, NumPy how many items it wrote.
_DISK_FULL_WORDS = ("No space left on device", "Disk quota exceeded", "iostream error", " requested and ")
# A file changed twice within one tick of the file system's clock looks unchanged.
_CLOCK_TICK_NS = 20_000_000


def write_atomic(path: Path, content: bytes | str) -> None:
    """Writes a whole file or leaves the former one: temporary name, fsync, rename.

    Args:
        path: of the file; its folder is there.
        content: all of it; text becomes UTF-8.

    Raises:
        ResourceError: the disk is full; the former file stands.
    """
    with replacing(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """What is written in the block takes a file's place, synced, when the block ends well.

    Args:
        path: of the file; its folder is there.

    Yields:
        A file under a temporary name, which is gone where the block raises.

    Raises:
        ResourceError: the disk is full; the former file stands.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with disk_errors(path.parent, path.name):
        try:
            with temporary.open("xb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(folder: Path, what: str) -> Iterator[None]:
    """Turns "disk full" and "quota exceeded", however a library words them, into a ResourceError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ResourceError) or not _is_disk_full(error):
            raise
        place = getattr(error, "filename", None) or folder
        raise ResourceError(
            f"disk full while writing {what} in {place}; free space there (mannerism prune --older-than-days 0 "
            "deletes cached latents, prior sets and checkpoints) or move the state folder to a larger disk, "
            "then run again"
        ) from error


class Checksums:
    """sha256 of files, remembered while size, times and inode stay the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int, int, int], str] = {}
        self._lock = threading.Lock()

    def of(self, path: Path) -> str:
        """The checksum of a file, computed at most once while the file is unchanged."""
        with self._lock:
            known = self._known.get(_fingerprint(path.lstat(), path))
        if known is not None:
            return known
        facts, now = path.lstat(), time.time_ns()
        checksum = sha256(path)
        self.learn(path, checksum, facts, now)
        return checksum

    def learn(self, path: Path, checksum: str, facts: os.stat_result, now: int) -> None:
        """Remembers a checksum if any write after `now` (nanoseconds) would show in the file's times."""
        if now - max(facts.st_mtime_ns, facts.st_ctime_ns) > _CLOCK_TICK_NS:
            with self._lock:
                self._known[_fingerprint(facts, path)] = checksum


def _fingerprint(facts: os.stat_result, path: Path) -> tuple[str, int, int, int, int]:
    return (str(path), facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)


CHECKSUMS = Checksums()


def sha256(path: Path) -> str:
    """The sha256 of a file's contents, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(*paths: Path) -> None:
    """Flushes files and folders; a rename is durable only once its folder is synced."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            return True
        if any(words in str(error) for words in _DISK_FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False
