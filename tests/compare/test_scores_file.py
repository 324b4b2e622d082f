"""The table of every sample's scores: what is written comes back, what is no such table is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_lib.compare.scores_file import read_scores, write_scores
from pipeline_lib.errors import InputError
from pipeline_lib.metrics import ScoredSample
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.records import Score

HEADS = "concept,row,kind,prompt,negative,seed"
NASTY = 'a {subject}, in "quotes",\r\nin two lines'


def a_sample(prompt: str = "p", **values: float | None) -> ScoredSample:
    return ScoredSample(
        row="r",
        prompt=prompt,
        kind="local",
        seed=3,
        concept="g",
        negative="dull, grey",
        scores=tuple(to_score(name, Measurement(value, "none"), Trace(encoder="e")) for name, value in values.items()),
    )


def counted(sample: ScoredSample) -> dict[str, float]:
    return {score.metric: score.value for score in sample.scores if score.value is not None}


def test_scores_come_back_bit_by_bit_whatever_the_prompts_say(tmp_path: Path) -> None:
    samples = [a_sample(NASTY, dino_i=1 / 3, mse=None), a_sample(dino_i=0.1 + 0.2, motion_fidelity=-1e-17)]
    write_scores(samples, tmp_path / "scores.csv")
    back = read_scores(tmp_path / "scores.csv")
    assert [counted(read) for read in back] == [counted(written) for written in samples]
    bare = [sample.model_copy(update={"scores": ()}) for sample in samples]
    assert [sample.model_copy(update={"scores": ()}) for sample in back] == bare
    head = (tmp_path / "scores.csv").read_text().splitlines()[0]
    assert head == f"{HEADS},motion_fidelity,dino_i", "nobody has an mse"


def test_what_the_judge_rules_out_is_not_in_the_table(tmp_path: Path) -> None:
    write_scores([a_sample(identity_accuracy=None, dino_i=0.5, edit_accuracy=1.0)], tmp_path / "scores.csv")
    (back,) = read_scores(tmp_path / "scores.csv")
    assert counted(back) == {"edit_accuracy": 1.0}


def test_a_metric_without_an_upper_end_keeps_its_value(tmp_path: Path) -> None:
    score = Score(metric="dynamic_degree_dis_mean", value=7.5, direction="closer", low=0, high=90)
    write_scores([a_sample().model_copy(update={"scores": (score,)})], tmp_path / "scores.csv")
    assert counted(read_scores(tmp_path / "scores.csv")[0]) == {"dynamic_degree_dis_mean": 7.5}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "nothing"),
        ("a,b\n1,2\n", "a, b"),
        (f"{HEADS},beauty\n", "beauty"),
        (f"{HEADS},dino_i,dino_i\n", "dino_i, dino_i"),
        ('"concept"x,row\n', "line 1"),
        (f"{HEADS},dino_i\ng,r,local,p,,0,0.5\ng,r,local,p,,0,much\n", "line 3"),
        (f"{HEADS},dino_i\ng,r,local,p,,first,0.5\n", "seed is 'first'"),
        (f"{HEADS},dino_i\ng,r,local,p,,0,nan\n", "dino_i is nan"),
        (f"{HEADS},identity_accuracy\ng,r,local,p,,0,7.5\n", "identity_accuracy is 7.5"),
        (f"{HEADS},dino_i\ng,r,local\n", "line 2"),
        (f"{HEADS},dino_i\ng,r,local,p,,0,0.5,0.6\n", "line 2"),
    ],
)
def test_what_is_no_table_of_scores_is_said(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(InputError, match=r"scores\.csv") as caught:
        read_scores(tmp_path / "scores.csv")
    assert told in str(caught.value)


def test_a_table_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_scores(tmp_path / "scores.csv")
