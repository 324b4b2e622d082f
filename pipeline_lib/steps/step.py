"""What every step of the road shares: where it finds things, how it tells progress, how it finds or builds.

A step is a function of a :class:`StepContext` and earlier results. It computes the key of what it would
make, returns what the store has under that key, or makes it. It runs in the worker child or in the
caller's own process and cannot tell which.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pipeline_lib.errors import StopRequested
from pipeline_lib.records import ArtifactRef, Record
from pipeline_lib.registry import MethodChoice, choose_method
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.shelf import ModelShelf
from pipeline_lib.storage import ArtifactStore

if TYPE_CHECKING:
    from pipeline_lib.models.base import BaseModel

Emit = Callable[[dict[str, Any]], None]


class StepResult(Record):
    """What a step returns: small, JSON, the same from the worker and in-process.

    `seconds` is the time this call took to make it, 0 where it was found; `figures` are numbers about the
    result, kept with it.
    """

    step: str
    ref: ArtifactRef
    found: bool
    seconds: float = 0.0
    figures: dict[str, float] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass
class StepContext:
    """What a step may use.

    Attributes:
        config: of the run.
        store: the artifact store.
        shelf: loaded models, kept from step to step.
        emit: takes JSON-able progress events.
        stop: whether the step should write a checkpoint and raise StopRequested.
        micro_batch: samples in one forward; starts as the config's.
        previews: folder of this run's previews, outside of all artifacts; None: none are made.
    """

    config: RunConfig
    store: ArtifactStore
    shelf: ModelShelf
    emit: Emit = lambda _event: None
    stop: Callable[[], bool] = lambda: False
    micro_batch: int = 0
    previews: Path | None = None
    _choice: MethodChoice | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """The store's waiting is told, and can be stopped, as this request's own."""
        self.store.on_wait = self.waiting

    def waiting(self, words: str) -> None:
        """Tells what is waited for.

        Args:
            words: a sentence.

        Raises:
            StopRequested: a stop was asked for meanwhile.
        """
        self.emit({"event": "waiting", "words": words})
        if self.stop():
            raise StopRequested(f"stopped while {words}")

    @property
    def base(self) -> BaseModel:
        """The run's base; opened once."""
        return self.shelf.base(self.config, self.waiting, self.stop)

    @property
    def method(self) -> MethodChoice:
        """The run's method and its settings."""
        if self._choice is None:
            self._choice = choose_method(self.config)
        return self._choice

    def base_facts(self) -> dict[str, str]:
        """The base's part of every key: weights and the LoRAs in them, dtype, kind of device, seed."""
        base, storage = self.base, self.base.economy.storage
        on_base = ", ".join(lora.fact.identity for lora in base.loras)
        return {
            "base": base.digest + (on_base and f" with {on_base}"),
            "dtype": str(base.dtype).removeprefix("torch.") + ("" if storage == "full" else f" in {storage}"),
            "device": base.device.type,
            "seed": str(self.config.seed),
        }

    def progress(self, step: str, done: int, total: int, **more: Any) -> None:
        """Tells how far a step is."""
        self.emit({"event": "progress", "step": step, "done": done, "total": total, **more})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What an artifact is made from: the ingredients of its key.

    Attributes:
        step: name of the step, for people.
        kind: of the artifact.
        version: the step's STAGE_VERSION.
        inputs: artifacts it is made from.
        settings: whatever else decides its bytes.
        extra: base, dtype, device, seed.
    """

    step: str
    kind: str
    version: int
    inputs: Sequence[ArtifactRef] = ()
    settings: Any = None
    extra: Mapping[str, str] = field(default_factory=dict)


def find_or_build(
    context: StepContext, recipe: Recipe, make: Callable[[Path, str], dict[str, float] | None], *, told: bool = True
) -> StepResult:
    """The artifact of a recipe, found or made.

    Args:
        context: its store is asked, and given the result.
        recipe: what it is made from.
        make: writes it into a folder, given the key; returns figures to keep with it.
        told: as a step of its own; False for a part of one.

    Returns:
        Its reference, and whether it was there already.
    """
    key = context.store.key(recipe.kind, recipe.inputs, recipe.settings, recipe.version, recipe.extra)
    if told:
        context.emit({"event": "step", "step": recipe.step})
    made = False
    notes: dict[str, Any] = {"step": recipe.step}
    started = time.perf_counter()

    def write(folder: Path) -> None:
        import torch  # a second, for whoever makes something

        nonlocal made
        made = True
        notes["figures"] = make(folder, key) or {}
        notes["seconds"] = round(time.perf_counter() - started, 3)
        notes["threads"] = torch.get_num_threads()  # sums of floats depend on how they are split

    artifact = context.store.find(recipe.kind, key) or context.store.build(recipe.kind, key, write, notes)
    seconds = round(time.perf_counter() - started, 3) if made else 0.0
    figures = artifact.manifest.notes.get("figures", {})
    return StepResult(step=recipe.step, ref=artifact.ref, found=not made, seconds=seconds, figures=figures)
