"""Masks by the command line: a task of their own, and the same keys as in-process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline_lib.personalize import run_in_process
from pipeline_lib.run_config import load_config
from tests.flows.conftest import CommandRun, command


def test_masks_take_the_same_road(command_run: CommandRun, tmp_path: Path) -> None:
    picture = np.zeros((48, 48), np.uint8)
    picture[8:40, 4:40] = 255
    Image.fromarray(picture).save(tmp_path / "mask.png")
    *arguments, _ = command_run.arguments
    named = ("--set", "concept.name=masked")  # a concept, a flow run and a model of its own
    code, output, errors = command([*arguments, *named, "--set", f"mask.segmenter={tmp_path / 'mask.png'}", "--json"])
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])
    made = {name for name, seconds in result["seconds"].items() if seconds > 0}
    assert {"mask", "encode", "train-identity", "train-motion"} <= made
    assert not {"prepare", "caption", "generate-base"} & made
    again = run_in_process(load_config(Path(result["run_dir"]) / "config.yaml"), command_run.state, lambda _event: None)
    assert again.found
