"""The families' benchmark: the whole road on tiny folders, and what its table says of goals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from benchmarks import families
from benchmarks.arms import ARMS, Arms, Options
from benchmarks.families import main, measure
from benchmarks.family_sizes import SIZES, Goal
from benchmarks.random_base import open_base
from pipeline_lib.models.economy import Economy
from pipeline_lib.models.load import load_base

CPU = torch.device("cpu")
ONE_OF_EACH = ("wan-1.3b", "wan-5b", "wan-a14b", "ltx-2b", "hunyuan-13b", "cogvideox-2b", "cogvideox-5b")


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_family_is_measured_in_all_three_ways(name: str) -> None:
    """In bfloat16, as on a GPU; the command's test is in float32."""
    lines = measure(SIZES[name], Options(device=CPU, steps=1, rank=2, tiny=True))
    assert [line["arm"] for line in lines] == list(ARMS)
    for line in lines:
        assert line["seconds"] > 0
        assert line["peak_gigabytes"] > 0
        assert line["mfu"] is None, "a CPU has no peak here"
    assert len({line["video"] for line in lines}) == 1


def test_only_the_usual_way_runs_the_encoders_in_its_steps(tmp_path: Path) -> None:
    size = SIZES["wan-1.3b"]
    arms = Arms(size.tiny(tmp_path), size, Options(device=CPU, rank=2, tiny=True))
    bare = arms.build("bare")
    base, _ = arms._by_hand()
    before = base.encoder_calls
    bare(0)
    assert base.encoder_calls == before
    arms.build("usual")(0)
    assert base.encoder_calls == before + 2, "one clip and one prompt"


def test_an_arm_that_does_not_fit_says_so_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Arms.build

    def build(self: Arms, arm: str) -> object:
        if arm == "usual":
            raise torch.OutOfMemoryError("too large")
        return whole(self, arm)

    monkeypatch.setattr(Arms, "build", build)
    lines = measure(SIZES["ltx-2b"], Options(device=CPU, steps=1, rank=2, tiny=True))
    assert [line.get("note") for line in lines] == [None, None, "out of memory"]
    assert lines[0]["seconds"] > 0
    assert "seconds" not in lines[2]


def test_the_command_prints_a_table_or_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    call = ["--family", "ltx-2b", "--tiny", "--device", "cpu", "--steps", "1", "--rank", "2", "--arms", "bare"]
    main([*call, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["rank"] == 2
    assert [line["arm"] for line in told["lines"]] == ["bare"]
    main(call)
    printed = capsys.readouterr().out.splitlines()
    assert printed[2].startswith("| name | video | arm |")
    assert printed[4].startswith("| ltx-2b | 9×32×32 | bare |")


def test_real_sizes_need_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--family", "wan-14b", "--device", "cpu"])
    assert "need a GPU" in capsys.readouterr().err


def test_a_goal_is_met_only_when_all_of_it_is() -> None:
    goal = Goal(seconds=8, gigabytes=24)
    assert families._met(goal, {"seconds": 7.9, "peak_gigabytes": 24.0}) is True
    assert families._met(goal, {"seconds": 8.1, "peak_gigabytes": 20.0}) is False
    assert families._met(goal, {"peak_gigabytes": 20.0}) is None, "not measured"
    assert families._met(Goal(mfu=0.45), {"mfu": 0.44}) is False
    assert families._met(Goal(), {"seconds": 1.0}) is None, "nothing is asked"


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_random_base_is_kept_as_one_read_from_files(name: str, tmp_path: Path) -> None:
    folder = SIZES[name].tiny(tmp_path / "base")
    economy = Economy(storage="fp8") if name == "wan-5b" else Economy()
    read = load_base(str(folder), dtype=torch.bfloat16, economy=economy)
    made = open_base(folder, CPU, torch.bfloat16, economy)
    for part in ("transformer", "_vae", "_text_encoder"):
        kept = {key: (value.shape, value.dtype) for key, value in getattr(read, part).state_dict().items()}
        assert {key: (value.shape, value.dtype) for key, value in getattr(made, part).state_dict().items()} == kept
    weights = [next(base.blocks()[0].parameters()).float() for base in (read, made)]
    assert not torch.equal(*weights), "random ones"


def test_a_size_keeps_its_own_storage_but_not_in_a_tiny_folder(tmp_path: Path) -> None:
    size = dataclasses.replace(SIZES["wan-14b-512"], storage="fp8")
    folder = size.tiny(tmp_path)
    assert Arms(folder, size, Options(device=CPU, tiny=True)).economy.storage == "full"
    assert Arms(folder, size, Options(device=CPU)).economy.storage == "fp8"
