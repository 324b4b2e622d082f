"""Every error that Mannerism raises on purpose.

::

    PipelineError                 exit code 1: our fault or the machine's
    ├── InputError                exit code 2: the caller's input; names the thing and the fix
    │   ├── MediaError            a clip or an image that cannot be used
    │   └── ConfigError           a setting that cannot be used
    ├── ResourceError             disk full, out of memory, device lost
    │   └── UnreachableError      a server that is needed does not answer
    ├── NonFiniteError            a loss or gradient is not finite; raised before the optimizer step
    ├── ArtifactError             a stored artifact is missing or does not match its manifest
    ├── WorkerError               the worker child died or did not answer
    └── StopRequested             a stop was asked for; a checkpoint has been written
"""

from __future__ import annotations


class PipelineError(Exception):
    """Base of all errors that Mannerism raises on purpose."""

    exit_code = 1


class InputError(PipelineError, ValueError):
    """The caller's input cannot be used.

    Args:
        what: what is wrong, naming the file or setting.
        got: what was found, if that helps.
        expected: what would have been right.
        fix: what to do about it.
    """

    exit_code = 2

    def __init__(self, what: str, *, got: str = "", expected: str = "", fix: str = "") -> None:
        self.what, self.got, self.expected, self.fix = what, got, expected, fix
        parts = [what]
        if got:
            parts.append(f"got {got}")
        if expected:
            parts.append(f"expected {expected}")
        if fix:
            parts.append(fix)
        super().__init__("; ".join(parts))


class MediaError(InputError):
    """A clip or an image cannot be used."""


class ConfigError(InputError):
    """A setting cannot be used."""


class ResourceError(PipelineError):
    """The machine ran out of something: disk, memory, a device."""


class UnreachableError(ResourceError):
    """A server that is needed does not answer; it may the next time."""


class NonFiniteError(PipelineError):
    """A loss or a gradient is not finite; nothing was stepped with it."""


class ArtifactError(PipelineError):
    """A stored artifact is missing or does not match its manifest."""


class WorkerError(PipelineError):
    """The worker child died or did not answer."""


class StopRequested(PipelineError):  # noqa: N818 - a request that was honoured, no failure
    """A stop was asked for and honoured; a checkpoint has been written."""
