"""A drop: its name, its files, its digest, and whether its media are whole."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.drops.concept_file import FILE_NAME, READY_MARK
from pipeline_lib.errors import InputError
from pipeline_lib.media.collect import collect
from pipeline_lib.media.header import read_header
from pipeline_lib.media.limits import DEFAULT_LIMITS
from pipeline_lib.media.survey import survey
from pipeline_lib.storage.files import sha256

REASON_FILE = "reason.json"
MOST_FILES = 500
_PARTIAL = (".part", ".partial", ".tmp", ".crdownload", ".filepart", ".swp")
_MOST = 0.9  # of the length that a header tells
_SHOWN, _DIGEST = 12, 64  # characters of a digest: in folder names, in all
_NAME_BYTES = 120  # of a drop's name in folder names: with what is added it stays below what file systems take


@dataclass(frozen=True)
class Drop:
    """Something in the inbox that is whole.

    Attributes:
        name: of the file or folder.
        path: where its files can be read.
        problem: why it cannot be used, if so.
    """

    name: str
    path: Path
    problem: str = ""


@dataclass(frozen=True)
class Verdict:
    """What opening a drop's media told.

    Attributes:
        problem: why they cannot be used; empty: they can.
        unfinished: whether they may be half-written.
    """

    problem: str
    unfinished: bool


def digest_of(path: Path) -> str:
    """SHA-256 over the names and contents of a drop's files, the ready mark aside.

    A file, and a folder that holds this file alone, have the same digest.

    Args:
        path: a file, or a folder.

    Returns:
        Hexadecimal.
    """
    found = hashlib.sha256()
    for item in files_of(path):
        name = item.relative_to(path).as_posix() if path.is_dir() else item.name
        if name != READY_MARK:
            found.update(f"{name}\0{sha256(item)}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def files_of(path: Path) -> list[Path]:
    """All files of a drop, sorted; links and what is neither file nor folder are refused.

    Args:
        path: a file, or a folder.

    Returns:
        The files.

    Raises:
        InputError: links, devices, names that are no text, too many files.
        FileNotFoundError: a file is being copied into it.
    """
    if path.is_symlink():
        raise InputError(f"{readable(path.name)} is a link", fix="drop the files themselves")
    if path.name != readable(path.name):
        raise InputError(f"{readable(path.name)}: the name is not UTF-8", fix="give it another name")
    if path.is_file():
        return [path]
    found = []
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            item = Path(folder) / name
            if name != readable(name):
                raise InputError(f"{path.name}: a name in it is not UTF-8: {readable(name)}")
            if item.is_symlink() or not (item.is_dir() or item.is_file()):
                raise InputError(f"{path.name} holds a link or a device: {name}", fix="drop the files themselves")
        found += [Path(folder) / name for name in files]
        if len(found) > MOST_FILES:
            raise InputError(f"{path.name} holds too many files", expected=f"at most {MOST_FILES}")
    if any(partial(item.name) for item in found):
        raise FileNotFoundError(f"{path} is being copied")
    return sorted(found)


def opened(path: Path, name: str) -> Verdict:
    """Decodes all clips of a drop to their end.

    Args:
        path: a file, or a folder.
        name: of the drop, which stands for the path in what is told.

    Returns:
        What that told.
    """
    try:
        unfinished = False
        for clip in collect(path).clips:
            header = read_header(clip, DEFAULT_LIMITS)
            seen = survey(clip, header, DEFAULT_LIMITS)
            unfinished |= bool(seen.damage) or seen.seconds < _MOST * header.seconds
    except InputError as error:
        return Verdict(without_paths(str(error), name, path), unfinished=True)
    return Verdict("", unfinished)


def without_paths(text: str, name: str, *places: Path) -> str:
    """A reason as whoever made the drop understands it: paths relative to the drop.

    Args:
        text: names files of the drop by where the service keeps them.
        name: of the drop.
        *places: where that is.

    Returns:
        The text with paths below the drop, and the drop's name for the drop itself.
    """
    for place in sorted(map(str, places), key=len, reverse=True):
        text = text.replace(f"{place}/", "").replace(place, name)
    return text


def partial(name: str) -> bool:
    """Whether a name says that a copy is under way."""
    return name.lower().endswith(_PARTIAL)


def hidden(name: str) -> bool:
    """Whether an inbox looks past what has this name."""
    return name.startswith(".") or partial(name)


def labelled(name: str, key: str) -> str:
    """The name with the beginning of the digest and, from the second attempt on, its number."""
    return f"{short(Path(name).stem)}-{key[:_SHOWN]}{key[_DIGEST:]}"


def short(name: str) -> str:
    """A name that leaves room for what is added to it."""
    return name.encode()[:_NAME_BYTES].decode(errors="ignore")


def readable(name: str) -> str:
    """A name with a mark in the place of bytes that are no text, which databases and JSON do not take."""
    return os.fsencode(name).decode(errors="replace")


def reason_text(name: str, reason: str) -> str:
    """What `reason.json` says.

    Args:
        name: of the drop.
        reason: why it was not taken.

    Returns:
        JSON.
    """
    told = {"drop": name, "reason": reason, "schema": f"see the schema of {FILE_NAME}: mannerism schema"}
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"
