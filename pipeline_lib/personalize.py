"""The whole road in the caller's own process: no Prefect, no MLflow, no worker child."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline_lib.run_config import RunConfig
    from pipeline_lib.steps.run_folder import RunResult
    from pipeline_lib.steps.state import StateFolder
    from pipeline_lib.steps.step import StepContext, StepResult

Input = str | Path
OnEvent = Callable[[dict[str, Any]], None]


def personalize(
    inputs: Input | Sequence[Input],
    *,
    subject: str = "",
    base: str = "pocket",
    settings: Sequence[str] = (),
    state: Path | None = None,
    on_event: OnEvent = lambda _event: None,
) -> RunResult:
    """Teaches a base a subject from clips or images.

    Nothing is made twice: a second call finds the results, a call after a kill goes on.

    Args:
        inputs: a clip, an image, a folder of them, or several.
        subject: what the subject is, in a few words: "grey wolf".
        base: "pocket", a diffusers folder, or a hub id.
        settings: further settings as `key=value`, e.g. "method.settings.rank=4".
        state: the state folder; `./mannerism_state` unless MANNERISM_STATE says otherwise.
        on_event: told about progress.

    Returns:
        Paths of the LoRA, the concept folder and the report; scores.

    Raises:
        InputError: an input or a setting cannot be used; says which and what to do.
    """
    from pipeline_lib.run_config import RunConfig, anchored, with_settings
    from pipeline_lib.steps.state import StateFolder

    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    sections = {
        "concept": {"inputs": [str(item) for item in given], "subject": subject},
        "base": {"source": base},
    }
    config = with_settings(RunConfig.model_validate(sections), settings)
    return run_in_process(anchored(config, Path.cwd()), StateFolder.open(state), on_event)


def run_in_process(config: RunConfig, state: StateFolder, on_event: OnEvent) -> RunResult:
    """Runs a config in this process; see :func:`personalize`."""
    from pipeline_lib.steps.check import check_config
    from pipeline_lib.steps.run_folder import RunFolder, run_identity
    from pipeline_lib.steps.shelf import ModelShelf
    from pipeline_lib.steps.step import StepContext

    folder = RunFolder(state, run_identity(config))
    finished = folder.finished(config, state.store)
    if finished is not None:
        return folder.result(finished)
    check_config(config)
    shelf = ModelShelf(state.locks)
    record = folder.begin(config)
    try:
        context = StepContext(config, state.store, shelf, on_event, micro_batch=config.training.micro_batch)
        context.previews = folder.previews
        plan, steps = _walk(context)
        return folder.result(folder.finish(folder.collect(record, plan, steps, context.store)))
    except BaseException as error:
        folder.fail(record, error)
        raise
    finally:
        shelf.clear()


def _walk(context: StepContext) -> tuple[Any, dict[str, StepResult]]:
    from pipeline_lib.observers import wants_masks
    from pipeline_lib.steps import caption, concept, encode, evaluate, generate, plan, prepare, prior, report, train
    from pipeline_lib.steps.mask import mask

    done: dict[str, StepResult] = {}

    def ref(result: StepResult) -> Any:
        done[result.step] = result
        return result.ref

    clips = ref(prepare.prepare(context))
    planned = plan.plan(context, clips)
    captions = ref(caption.caption(context, clips))
    before = ref(generate.generate_base(context, captions))
    masks = {"masks": ref(mask(context, clips))} if wants_masks(context.config) else {}
    sources = {"captions": captions, "data": ref(encode.encode(context, clips, captions, **masks))}
    if planned.has_prior:
        sources["prior"] = ref(prior.prior(context, captions))
    stages: dict[str, Any] = {}
    for spec in planned.stages:
        earlier = {"after": stages[spec.after]} if spec.after else {}
        stages[spec.name] = ref(train.train(context, spec, {**sources, **earlier}))
    last = stages[planned.stages[-1].name]
    after = ref(generate.generate_personalised(context, captions, last))
    made = {**sources, **masks, "clips": clips, "before": before, "after": after, "stage": last}
    made["scores"] = ref(evaluate.evaluate(context, made))
    made["concept"] = ref(concept.concept(context, planned, made))
    ref(report.report(context, planned, plan.report_inputs(made, stages)))
    return planned, done
