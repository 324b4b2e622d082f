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
    (line,) = result.errors.splitlines()
    assert line.startswith("error: ")
    for words in said:
        assert words in line
    assert not state.exists(), "what is refused leaves nothing behind"


def loaded_by(import_times: str) -> set[str]:
    """Names of the packages in what `python -X importtime` tells."""
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in import_times.splitlines()}


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
        ("unclosed.yaml", b"concept: {\n  inputs: [a.mp4", "line 2"),
        ("scalar.yaml", b"concept: dog", "a section of"),
        ("config.toml", b"[concept]\nsubject = 'dog'", ".yaml"),
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
        (["--set", "samples.seeds=7"], "a list is needed"),
        (["--set", "method.preset=portible"], "did you mean 'portable'?"),
        (["--set", "method.settings.rnk=4"], "did you mean `method.settings.rank`?"),
        (["--set", "method.settings.rank=many"], "method.settings.rank"),
        (["--base", "drop"], "has no model_index.json"),
        (["--base", "foreign"], "of no known family"),
        (["--prompts", "nowhere.txt"], "nowhere.txt"),
        (["--prompts", "empty.txt"], "holds no prompts"),
        (["--prompts", "binary.txt"], "is not text"),
        (["--prompts", "unclosed.yaml"], "unclosed.yaml, line"),
        (["--prompts", "clip.mp4"], "is no prompts file"),
        (["--prompts", "drop"], "drop"),
    ],
)
def test_bad_options(state: Path, tmp_path: Path, tiny_folder: Path, arguments: list[str], said: str) -> None:
    small_clip(tmp_path / "clip.mp4")
    (tmp_path / "drop").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(bytes(range(128, 256)))
    (tmp_path / "unclosed.yaml").write_text("- [unclosed")
    check_refused(command("run", "clip.mp4", *options(tiny_folder), *arguments), state, said)


def test_mistakes_are_told_before_anything_heavy_is_loaded(state: Path, tmp_path: Path, tiny_folder: Path) -> None:
    small_clip(tmp_path / "clip.mp4")
    for mistake in ("method.preset=nope", "method.settings.rnk=4"):
        asked = ["run", "clip.mp4", *options(tiny_folder), "--set", mistake]
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "flows.cli.main", *asked],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2, done.stderr[-2000:]
        assert loaded_by(done.stderr).isdisjoint({"torch", "prefect", "mlflow", "diffusers", "transformers"})
    assert not state.exists()


def test_a_state_folder_that_cannot_be_used(tmp_path: Path, tiny_folder: Path) -> None:
    small_clip(tmp_path / "clip.mp4")
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/mannerism")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MANNERISM_STATE", str(place))
            patch.chdir(tmp_path)
            result = command("run", "clip.mp4", *options(tiny_folder))
        assert result.code == 2
        (line,) = result.errors.splitlines()
        assert f"the state folder {place} cannot be used" in line
        assert "--state" in line


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
    check_refused(command("run"), state, "Missing argument", "mannerism run --help")
    check_refused(command("rnu", "x"), state, "Did you mean 'run'?")
    check_refused(command("run", "a.mp4", "--seed", "one"), state, "--seed")
    for asked in (["show"], ["resume"], ["export"], ["generate", "a {subject}"]):
        check_refused(command(asked[0], "nothing", *asked[1:]), state, "no run named 'nothing'")
    assert json.loads(command("run", "--json").output)["exit_code"] == 2
    bare = command()
    assert (bare.code, bare.errors.strip()) == (2, "")
    assert "Commands" in bare.output


def test_init_writes_a_config_and_never_overwrites(state: Path, tmp_path: Path) -> None:
    assert command("init", "my.yaml").code == 0
    assert load_config(tmp_path / "my.yaml") == RunConfig()
    check_refused(command("init", "my.yaml"), state, "my.yaml", "there already")


def test_lists_are_empty_at_first(state: Path) -> None:
    assert "no runs yet" in command("runs").output
    assert json.loads(command("runs", "--json").output) == {"runs": []}
    bases = json.loads(command("bases", "--json").output)
    assert [base["base"] for base in bases["bases"]] == ["pocket", "pocket-outline"]
    assert "set_and_sequence" in bases["methods"]


def test_the_state_folder_is_an_option(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANNERISM_STATE", str(tmp_path / "other"))
        assert str(tmp_path / "mine") in command("--state", str(tmp_path / "mine"), "show", "x").errors
    assert not list(tmp_path.iterdir()), "looking makes nothing"


def test_help_loads_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "flows.cli.main", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "run" in done.stdout
    heavy = {"torch", "prefect", "mlflow", "numpy", "diffusers", "transformers", "pydantic"}
    assert loaded_by(done.stderr).isdisjoint(heavy)
