"""Limits of decoding children: whatever a child does, the parent gets one typed error, and no child stays."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from pipeline_lib.errors import MediaError
from pipeline_lib.media.child import DecodingChild, decoding_child, run_to_end
from pipeline_lib.media.limits import ChildLimits

LIMITS = ChildLimits(memory_bytes=300 * 1024**2, cpu_seconds=1, wall_seconds=20)


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("while True: pass", "used up its 1 s of processor time"),
        ("x = bytearray(2 * 1024**3)", "needs more than 300 MiB of memory"),
        ("raise SystemExit('[error] no such thing')", r"failed \(\[error\] no such thing\)"),
        ("raise SystemExit(3)", r"failed \(exit code 3\)"),
    ],
)
def test_death_is_a_typed_error(code: str, words: str) -> None:
    with pytest.raises(MediaError, match=f"odd.mp4 cannot be decoded; got a decoder .*{words}"):
        run_to_end(python(code), LIMITS, "odd.mp4")


def test_wall_clock() -> None:
    start = time.monotonic()
    limits = ChildLimits(wall_seconds=0.3)
    with pytest.raises(MediaError, match=r"not done after 0\.3 s"):
        run_to_end(python("import time; time.sleep(60)"), limits, "slow.mp4")
    assert time.monotonic() - start < 10


def test_output_and_messages_are_both_drained() -> None:
    code = "import sys; [(sys.stderr.write('e' * 999 + chr(10)), sys.stdout.write('o' * 999)) for _ in range(999)]"
    with decoding_child(python(code), LIMITS, "x") as child:
        assert len(child.read(-1)) == 999 * 999
        child.finish()
        assert len(child.messages) == 999


def test_left_block_leaves_no_process() -> None:
    with (
        pytest.raises(RuntimeError, match="ours"),
        decoding_child(python("import os, time; print(os.getpid(), flush=True); time.sleep(60)"), LIMITS, "x") as child,
    ):
        number = int(_line(child))
        raise RuntimeError("ours")
    assert not Path(f"/proc/{number}").exists()


def test_environment_is_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANNERISM_TEST_SECRET", "x")
    assert os.environ["MANNERISM_TEST_SECRET"] == "x"
    out = run_to_end(python("import os; print(sorted(os.environ))"), LIMITS, "x")
    assert b"SECRET" not in out


def _line(child: DecodingChild) -> bytes:
    text = b""
    while not text.endswith(b"\n"):
        text += child.read(1)
    return text
