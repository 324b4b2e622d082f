"""A small report: real videos, real scores, two prompts."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.media.write import write_video
from pipeline_lib.metrics import ScoredSample, measure_reference, score_sample
from pipeline_lib.records import (
    ArtifactRef,
    Caption,
    ClipRecord,
    ConceptRecord,
    Prompt,
    SampleRecord,
    StageSpec,
    StepRecord,
)
from pipeline_lib.report.inputs import ReportClip, ReportInputs, ReportSample, ReportStage

FPS = 8.0
PROMPTS = (("reconstruction", "a {subject} glides"), ("global", "a {subject} glides, at night"))


def gliding(step: int) -> np.ndarray:
    image = np.random.default_rng(2).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    return np.stack([np.roll(image, step * index, 1) for index in range(5)])


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for name, step in (("clip", 2), ("base", 0), ("personalised", 1)):
        write_video(gliding(step), folder / f"{name}.mp4", FPS)
    return folder


@pytest.fixture(scope="session")
def scores() -> tuple[ScoredSample, ...]:
    reference = measure_reference([gliding(2)], None, FPS)
    made = [
        ScoredSample(
            row=row,
            prompt=text,
            kind=kind,
            seed=0,
            negative="plain words",
            scores=tuple(score_sample(gliding(step), reference, "a cube glides", kind, None, FPS)),
        )
        for row, step in (("base", 0), ("personalised", 1))
        for kind, text in PROMPTS
    ]
    ceiling = score_sample(gliding(2), reference, "", "reconstruction", None, FPS)
    return (*made, ScoredSample(row="ceiling", prompt="", kind="reconstruction", seed=0, scores=tuple(ceiling)))


def report_samples(media: Path, text: str) -> tuple[ReportSample, ...]:
    """A video of each row for each prompt; every free text is `text`."""
    return tuple(
        ReportSample(
            record=SampleRecord(
                file=f"{model}-{index}.mp4",
                prompt=Prompt(text=prompt, kind=kind, negative=text),
                filled_prompt=prompt.replace("{subject}", text),
                seed=0,
                model=model,
                num_frames=5,
                frames_per_second=FPS,
            ),
            file=media / f"{model}.mp4",
        )
        for index, (kind, prompt) in enumerate(PROMPTS)
        for model in ("base", "personalised")
    )


def three_steps() -> tuple[StepRecord, ...]:
    """A stage's curve, validated at its ends."""
    return tuple(
        StepRecord(
            stage="identity",
            step=step,
            steps=3,
            metrics={"loss": 1 / step, "gradient_norm": 0.1, **({"validation_loss": 0.5} if step != 2 else {})},
            seconds=0.5,
        )
        for step in (1, 2, 3)
    )


@pytest.fixture
def make_inputs(media: Path, scores: tuple[ScoredSample, ...]) -> Callable[..., ReportInputs]:
    def make(text: str = "plain words", **changes: object) -> ReportInputs:
        """Inputs in which every text that a person or a model may write is `text`; a concept's name may be no such."""
        caption = Caption(class_noun=text, static=text, motion=text)
        concept = ConceptRecord(
            name=text if text.replace(" ", "").isalnum() else "wolf",
            method="set_and_sequence",
            base="pocket",
            base_digest="b" * 64,
            family="wan",
            trigger=text,
            class_noun=text,
            captions=(caption,),
            stages=(StageSpec(name="identity", method="set_and_sequence", version=1, data="frames", steps=3),),
            rank=4,
            seed=7,
            data_digest="d" * 64,
        )
        clip = ClipRecord(
            name=text, kind="video", sources=(), height=32, width=32, num_frames=5, frames_per_second=FPS, notes=(text,)
        )
        values: dict[str, object] = {
            "concept": concept,
            "created": datetime(2026, 3, 4, 15, 6),
            "seconds": 200.0,
            "clips": (
                ReportClip(
                    record=clip, files=(media / "clip.mp4",), reconstructions=(media / "clip.mp4",), caption=caption
                ),
            ),
            "samples": report_samples(media, text),
            "scores": scores,
            "training": three_steps(),
            "stages": {"identity": ReportStage(seconds=75.0, figures={"effective_rank": 1.75})},
            "call": {"num_frames": 5, "height": 32},
            "settings": {"concept": {"subject": text}, "seed": 7},
            "provenance": {"device": text},
            "artifacts": (ArtifactRef(kind="clips", key="a" * 64, digest="c" * 64),),
            "notes": (text,),
        }
        return ReportInputs(**{**values, **changes})

    return make
