"""Work with concepts that are trained already: a worker child of its own, the artifact store, no run folder."""

from __future__ import annotations

import itertools
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_lib.processes.worker_child import WorkerChild
from pipeline_lib.records import ArtifactRef, LoraUse
from pipeline_lib.run_config import RunConfig, parse_config
from pipeline_lib.steps.concepts import FoundConcept
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.steps.step import StepResult

if TYPE_CHECKING:
    from pipeline_lib.steps.use_concept import SampleRequest

STALL_SECONDS = 3600.0
_ALONE = {"processes": 1, "sharded": False}
OnEvent = Callable[[dict[str, Any]], None]


def concept_config(found: FoundConcept, base: str = "", loras: Sequence[LoraUse | str] = ()) -> RunConfig:
    """The base that a concept is used on, kept as it was in its training.

    Args:
        found: the concept.
        base: another source of the same weights; empty: the one that it was trained on.
        loras: on the base, as it was trained with.

    Returns:
        A config without inputs.

    Raises:
        ConfigError: a LoRA that cannot be read.
    """
    from pipeline_lib.models.concept import read_concept

    trained, record = found.config, read_concept(found.folder).record
    revision = "" if base else trained.base.revision or record.base_revision
    source = {"source": base or record.base, "revision": revision, "loras": list(loras)}
    return parse_config({"base": source, "training": {**trained.training.model_dump(), **_ALONE}}, "--lora")


def sample_concept(
    found: FoundConcept,
    request: SampleRequest,
    config: RunConfig,
    state: StateFolder,
    on_event: OnEvent = lambda _event: None,
) -> StepResult:
    """Makes videos of a concept in a worker child.

    Args:
        found: the concept.
        request: what is wanted.
        config: from :func:`concept_config`.
        state: whose store keeps the videos.
        on_event: told about progress.

    Returns:
        The videos, found or made.

    Raises:
        PipelineError: what went wrong in the worker.
    """
    from pipeline_lib.steps.use_concept import adopted

    state.make()
    concept = adopted(state.store, found.folder)
    with worker_child(state, "generate") as ask:
        refs = {"concept": concept}
        return ask("use-concept", config, refs, on_event, request=request.model_dump(mode="json"))


@contextmanager
def worker_child(state: StateFolder, what: str) -> Iterator[Callable[..., StepResult]]:
    """A worker child that is asked for steps outside of runs.

    Args:
        state: that it works on.
        what: it is for; names its log.

    Yields:
        Called with verb, config, references by name, a listener, and further arguments: the step's result.
    """
    command = [sys.executable, "-m", "pipeline_lib.worker", str(state.root)]
    log = state.logs / f"{what}-{secrets.token_hex(4)}.log"

    def ask(verb: str, config: RunConfig, refs: dict[str, ArtifactRef], on_event: OnEvent, **more: Any) -> StepResult:
        arguments = {**more, "refs": {name: ref.model_dump() for name, ref in refs.items()}}
        payload = {"config": config.model_dump(mode="json"), "arguments": arguments, "micro_batch": 0}
        return StepResult.model_validate(worker.request(verb, payload, on_event))

    with WorkerChild(command, log_path=log, stall_seconds=STALL_SECONDS) as worker:
        yield ask


def put_videos(result: StepResult, state: StateFolder, request: SampleRequest, name: str, out: Path) -> list[Path]:
    """Copies videos to where a person wants them; nothing that is there is overwritten.

    Args:
        result: from :func:`sample_concept`.
        state: whose store has them.
        request: that they came of.
        name: of the concept.
        out: a folder, made when missing.

    Returns:
        The copies: `<name>-<prompt>-<seed>.mp4`, with a further number where that is taken.
    """
    from pipeline_lib.steps.use_concept import videos

    out.mkdir(parents=True, exist_ok=True)
    orders = [(index, seed) for index in range(len(request.prompts)) for seed in request.seeds]
    copies = []
    for (index, seed), video in zip(orders, videos(state.store, result.ref), strict=True):
        path = _free(out / f"{name}-{index}-{seed}.mp4")
        shutil.copyfile(video, path)
        copies.append(path)
    return copies


def _free(path: Path) -> Path:
    others = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return next(free for free in itertools.chain([path], others) if not free.exists())
