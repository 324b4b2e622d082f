"""An object store, through fsspec: the few acts that an inbox needs, with one error for a store that is away.

Endpoint and credentials are the backend's own business: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and their like, or
fsspec's configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline_lib.drops.inbox import InboxAwayError
from pipeline_lib.errors import ConfigError
from pipeline_lib.storage import disk_errors

_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "generation")  # else the time
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
_BLOCK = 8 * 2**20


@dataclass(frozen=True)
class StoredFile:
    """An object, as a listing tells it.

    Attributes:
        name: below the prefix that was listed.
        size: bytes.
        tag: changes with the contents.
        modified: seconds; 0 where the store does not say.
    """

    name: str
    size: int
    tag: str
    modified: float


class ChangedError(Exception):
    """An object is not the one that was listed."""


class ObjectStore:
    """A prefix of a store.

    Every method raises :class:`InboxAwayError`, naming the URL, when the store cannot be reached or refuses.

    Args:
        filesystem: of fsspec, its cache of listings off.
        root: the prefix, as that file system names it.
        url: as a person gave it.
    """

    def __init__(self, filesystem: Any, root: str, url: str) -> None:
        self._files, self._root, self.url = filesystem, root.rstrip("/"), url

    @classmethod
    def open(cls, url: str) -> ObjectStore:
        """The store of a URL; nothing is asked of it yet.

        Args:
            url: `s3://bucket/prefix`, or what else fsspec knows.

        Returns:
            The store.

        Raises:
            ConfigError: no such protocol, or a package for it is missing.
        """
        import fsspec

        try:
            filesystem, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            fix = ".venv/bin/pip install -e '.[s3]'" if url.startswith("s3") else ""
            raise ConfigError(f"{url} needs a package that is not installed", got=str(error), fix=fix) from error
        except ValueError as error:
            raise ConfigError(f"{url} is no store that we can read", got=str(error)) from error
        return cls(filesystem, root, url)

    def listing(self, prefix: str) -> list[StoredFile]:
        """All objects below a prefix, sorted by name; the prefix's own name, where it is an object, is empty."""
        base = f"{self._root}/{prefix}"
        with self._reached():
            found = self._files.find(base, detail=True)
        below = ((str(key).lstrip("/"), facts) for key, facts in found.items())
        start = len(base.lstrip("/"))
        files = [_stored(key[start:].removeprefix("/"), facts) for key, facts in below]
        return sorted(files, key=lambda file: file.name)

    def fetch(self, key: str, listed: StoredFile, target: Path) -> None:
        """Downloads an object.

        Args:
            key: below the store's prefix.
            listed: how it was listed; no more than this is written.
            target: a file that is not there yet; its folder is made.

        Raises:
            ChangedError: it is another object by now, or gone.
            ResourceError: the disk is full.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        left = listed.size
        with disk_errors(target.parent, target.name), target.open("xb") as sink:
            with self._reached(gone=ChangedError):
                source = self._files.open(self._path(key), "rb", block_size=_BLOCK, cache_type="readahead")
            with source:
                while left > 0:
                    with self._reached(gone=ChangedError):
                        piece = source.read(min(_BLOCK, left))
                    if not piece:
                        raise ChangedError(key)
                    sink.write(piece)
                    left -= len(piece)
        with self._reached(gone=ChangedError):
            now = _stored("", self._files.info(self._path(key)))
        if (now.size, now.tag) != (listed.size, listed.tag):
            raise ChangedError(key)

    def copy(self, source: str, target: str) -> bool:
        """Copies an object within the store; False where it is gone."""
        try:
            with self._reached(gone=ChangedError):
                self._files.cp_file(self._path(source), self._path(target))
        except ChangedError:
            return False
        return True

    def put(self, source: Path, target: str) -> None:
        """Uploads a file."""
        with self._reached():
            self._files.put_file(str(source), self._path(target))

    def write(self, target: str, text: str) -> None:
        """Writes a small object."""
        with self._reached():
            self._files.pipe_file(self._path(target), text.encode())

    def has(self, key: str) -> bool:
        """Whether there is such an object."""
        with self._reached():
            return bool(self._files.exists(self._path(key)))

    def delete(self, key: str) -> None:
        """Deletes an object; one that is gone is no error."""
        with self._reached(gone=None):
            self._files.rm_file(self._path(key))

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    @contextmanager
    def _reached(self, gone: type[Exception] | None = InboxAwayError) -> Iterator[None]:
        """Backends raise errors of many kinds: all but a missing object mean that the store cannot be used now."""
        try:
            yield
        except FileNotFoundError as error:
            if gone is not None:
                raise gone(f"{self.url}: {error}") from error
        except Exception as error:
            raise InboxAwayError(f"{self.url} cannot be used now: {error or type(error).__name__}") from error


def _stored(name: str, facts: dict[str, Any]) -> StoredFile:
    when = next((facts[key] for key in _TIMES if facts.get(key) is not None), 0.0)
    if isinstance(when, str):
        when = datetime.fromisoformat(when)
    modified = when.timestamp() if isinstance(when, datetime) else float(when)
    tag = next((str(facts[key]) for key in _TAGS if facts.get(key) is not None), str(modified))
    return StoredFile(name, int(facts.get("size") or 0), tag, modified)
