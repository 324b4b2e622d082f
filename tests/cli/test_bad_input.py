"""What a new user does wrong: one clear line each, the right exit code, nothing half-written."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from flows.cli.ending import ended
from flows.cli.main import app
from pipeline_lib.media.ffmpeg_command import ffmpeg_binary
from pipeline_lib.run_config import RunConfig, load_config
from pipeline_lib.steps.state import StateFolder
from tests.steps.tiny import options, small_clip


class Ended(NamedTuple):
    code: int
    output: str
    errors: str


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANNERISM_STATE", str(tmp_path / "state"))
        patch.chdir(tmp_path)
        yield tmp_path / "state"


def command(*arguments: str) -> Ended:
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        code = ended(app, arguments)
    return Ended(code, output.getvalue(), errors.getvalue())


def check_refused(result: Ended, state: Path, *said: str) -> None:
    assert result.code == 2, result.errors
    lines = [line for line in result.errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.errors
    assert "Traceback" not in result.errors + result.output
    for words in said:
        assert words in lines[0]
    assert not list(state.glob("store/artifacts/*/*"))
    assert not list(state.glob("store/tmp/*/*"))
    assert not list(state.glob("logs/error-*"))


def make_sound(path: Path) -> None:
    tone = ["-f", "lavfi", "-i", "sine=d=1"]
    subprocess.run([ffmpeg_binary().path, "-loglevel", "error", *tone, str(path)], check=True)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.mp4", None, "does not exist"),
        ("empty.mp4", b"", "empty.mp4"),
        ("notes.mp4", b"this is a text and no video at all\n" * 20, "notes.mp4"),
        ("notes.txt", b"hello", "notes.txt"),
        ("missing.yaml", None, "cannot be read"),
        ("typo.yaml", b"concept: {inptus: [a.mp4]}", "did you mean `concept.inputs`?"),
        ("empty.yaml", b"", "holds no settings"),
    ],
)
def test_bad_files(state: Path, tmp_path: Path, tiny_folder: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    check_refused(command("run", name, *options(tiny_folder)), state, name, said)


def test_a_folder_without_media(state: Path, tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "readme.txt").write_text("hello")
    check_refused(command("run", "drop", *options(tiny_folder)), state, "drop", "holds no media")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "training.micro_bach=1"], "did you mean `training.micro_batch`?"),
        (["--set", "training"], "key=value"),
        (["--prompts", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_bad_options(state: Path, tmp_path: Path, tiny_folder: Path, arguments: list[str], said: str) -> None:
    small_clip(tmp_path / "clip.mp4")
    check_refused(command("run", "clip.mp4", *options(tiny_folder), *arguments), state, said)


def test_no_subject(state: Path, tmp_path: Path, tiny_folder: Path) -> None:
    small_clip(tmp_path / "clip.mp4")
    check_refused(command("run", "clip.mp4", "--base", str(tiny_folder)), state, "--subject")


def test_unknown_bases(state: Path, tmp_path: Path) -> None:
    small_clip(tmp_path / "clip.mp4")
    result = command("run", "clip.mp4", "--subject", "dog", "--base", "poket")
    check_refused(result, state, "did you mean 'pocket'?")


def test_unknown_methods(state: Path, tmp_path: Path, tiny_folder: Path) -> None:
    small_clip(tmp_path / "clip.mp4")
    more = ["--subject", "dog", "--base", str(tiny_folder)]
    check_refused(command("run", "clip.mp4", *more, "--method", "lorra"), state, "did you mean 'lora'?")


def test_sound_without_pictures(state: Path, tmp_path: Path, tiny_folder: Path) -> None:
    make_sound(tmp_path / "sound.mp4")
    check_refused(command("run", "sound.mp4", *options(tiny_folder)), state, "sound.mp4")


def test_with_json_the_error_is_an_object_too(state: Path) -> None:
    result = command("run", "missing.mp4", "--subject", "dog", "--json")
    told = json.loads(result.output.splitlines()[-1])
    assert told["exit_code"] == result.code == 2
    assert "missing.mp4" in told["error"]


def test_usage_errors_are_bad_input(state: Path) -> None:
    assert command("run").code == 2
    assert command("rnu", "x").code == 2
    assert command("show", "nothing").code == 2
    assert command("resume", "nothing").code == 2
    assert command("export", "nothing").code == 2
    assert command("generate", "nothing", "a {subject}").code == 2


def test_init_writes_a_config_and_never_overwrites(state: Path, tmp_path: Path) -> None:
    assert command("init", "my.yaml").code == 0
    assert load_config(tmp_path / "my.yaml") == RunConfig()
    check_refused(command("init", "my.yaml"), state, "my.yaml", "there already")


def test_lists_are_empty_at_first(state: Path) -> None:
    assert "no runs yet" in command("runs").output
    assert json.loads(command("runs", "--json").output) == {"runs": []}
    bases = json.loads(command("bases", "--json").output)
    assert [base["base"] for base in bases["bases"]] == ["pocket"]
    assert "set_and_sequence" in bases["methods"]


def test_the_state_folder_is_an_option(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANNERISM_STATE", str(tmp_path / "other"))
        assert command("--state", str(tmp_path / "mine"), "runs").code == 0
    assert StateFolder(tmp_path / "mine").runs.is_dir()
    assert not (tmp_path / "other").exists()


def test_help_loads_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "flows.cli.main", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "run" in done.stdout
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert loaded.isdisjoint({"torch", "prefect", "mlflow", "numpy", "diffusers", "transformers", "pydantic"})
