"""The score tables of the command line: kinds of prompts apart, the best seed beside the mean."""

from __future__ import annotations

import pytest

from flows.cli.scores import put_scores
from pipeline_lib.steps.run_scores import RunScores


def printed(capsys: pytest.CaptureFixture[str], result: RunScores) -> list[list[str]]:
    """Tables as lists of lines."""
    put_scores(result)
    return [table.splitlines() for table in capsys.readouterr().out.strip().split("\n\n") if table]


def test_reconstruction_and_edits_are_apart(capsys: pytest.CaptureFixture[str]) -> None:
    result = RunScores(
        scores={"base": {"clip_i": 0.5}, "personalised": {"clip_i": 0.9}},
        scores_reconstruction={
            "base": {"clip_i": 0.4, "mse": 0.09},
            "personalised": {"clip_i": 0.95, "mse": 0.0312},
            "ceiling": {"clip_i": 0.99, "mse": 0.0021},
        },
        scores_edits={"base": {"clip_i": 0.55}, "personalised": {"clip_i": 0.85}, "ceiling": {"clip_i": 0.98}},
        scores_best={"personalised": {"clip_i": 0.97, "mse": 0.0198}},
    )
    rebuilt, edits = printed(capsys, result)
    assert rebuilt[0].split("  ")[0] == "reconstruction prompt"
    assert rebuilt[2].split() == ["mse", "0.0900", "0.0312", "0.0198", "0.0021"]
    assert edits[0].split("  ")[0] == "edit prompts"
    assert edits[1].split() == ["clip_i", "0.550", "0.850", "0.980"]


def test_chance_stands_first_where_the_truth_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    result = RunScores(
        scores_edits={
            "base": {"clip_i": 0.3, "edit_accuracy": 0.2},
            "personalised": {"clip_i": 0.4, "edit_accuracy": 0.7},
            "ceiling": {"clip_i": 0.9, "edit_accuracy": 1.0},
            "chance": {"edit_accuracy": 0.12},
        },
        scores_reconstruction={"chance": {"identity_accuracy": 0.01}, "ceiling": {"identity_accuracy": 1.0}},
    )
    (edits,) = printed(capsys, result)
    assert edits[0].split()[2:] == ["chance", "base", "personalised", "ceiling"]
    assert edits[1].split() == ["edit_accuracy", "0.120", "0.200", "0.700", "1.000"]
    assert edits[2].split() == ["clip_i", "0.300", "0.400", "0.900"]


def test_a_lone_ceiling_and_a_lone_seed_print_nothing_more(capsys: pytest.CaptureFixture[str]) -> None:
    only = {"clip_i": 0.5}
    result = RunScores(
        scores_reconstruction={"ceiling": only}, scores_edits={"base": only, "personalised": only}, scores_best={}
    )
    (edits,) = printed(capsys, result)
    assert "best" not in edits[0]
    assert printed(capsys, RunScores()) == []
