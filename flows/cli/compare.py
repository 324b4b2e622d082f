"""`compare`: methods on concepts with one command, and the count of what people said of blind pairs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.output import put, put_json, put_table
from flows.cli.run import DEMO_GUIDANCE
from flows.cli.several_runs import SOME_FAILED, heard, put_record
from flows.compare_plan import creatures, plan
from flows.concepts import concepts_in
from flows.environment import join_servers, prepare_environment
from pipeline_lib.errors import ConfigError
from pipeline_lib.pocket.gizmo_run import truth_of
from pipeline_lib.run_config import RunConfig, anchored, load_config, with_settings
from pipeline_lib.steps.state import StateFolder

if TYPE_CHECKING:
    from pipeline_lib.compare.folder import CompareRecord
    from pipeline_lib.metrics.over_concepts import ConceptMean

PRESET, SEEDS = "demo", "0,1,2"
"""Where neither the command nor its config says."""
SHOWN = ("identity_accuracy", "motion_fidelity", "edit_accuracy", "dino_i", "clip_t_aggregated", "mse_edit")
"""Metrics of edit prompts that the command prints; the page has all."""


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """The command's options.

    Attributes:
        methods: labels with commas; empty: the core.
        gizmos: sets' names, numbers, pairs; empty: the flow's default.
        concepts: a folder of concepts, or empty.
        quick: one concept, the first.
        ablations: Set-and-Sequence with single settings changed.
        at_once: runs at the same time.
    """

    methods: str = ""
    gizmos: str = ""
    concepts: str = ""
    quick: bool = False
    ablations: bool = False
    at_once: int = 1


def compare_config(
    config: str, base: str, preset: str, seeds: str, settings: Sequence[str], *, quick: bool
) -> RunConfig:
    """Base, preset, sampling seeds and training of every run.

    The preset `demo` on the pocket base is sampled with the demo's guidance, with which it was tuned.

    Args:
        config: a file; empty: the defaults.
        base: of every run; empty: the config's.
        preset: of every method.
        seeds: of the samples, with commas.
        settings: `key=value`.
        quick: the first seed alone.

    Returns:
        The config, without inputs; its `method.settings` are not looked at yet.

    Raises:
        InputError: something in it that no run can use.
    """
    from pipeline_lib.steps.check import check_service

    ground = load_config(Path(config).expanduser()) if config else RunConfig()
    asked = seeds or (",".join(map(str, ground.samples.seeds)) if config else SEEDS)
    numbers = [part.strip() for part in asked.split(",")]
    if not all(part.isdecimal() for part in numbers):
        raise ConfigError(f"--seeds {seeds}", expected="numbers with commas, such as 0,1,2")
    chosen = ",".join(numbers[:1] if quick else dict.fromkeys(numbers))
    preset = preset or ground.method.preset or PRESET
    base = json.dumps(base or ground.base.source, ensure_ascii=False)  # whatever is in a path: no YAML of its own
    own = [f"base.source={base}", f"method.preset={preset}", f"samples.seeds=[{chosen}]"]
    template = anchored(with_settings(ground, [*own, *settings]), Path.cwd())
    on_pocket = template.base.source == RunConfig().base.source
    if on_pocket and template.method.preset == PRESET and not template.samples.guidance_scale:
        template = with_settings(template, [f"samples.guidance_scale={DEMO_GUIDANCE}"])
    # Settings of methods hold for those that have them: the entries are asked later, not the config's own method.
    check_service(template.model_copy(update={"method": template.method.model_copy(update={"settings": {}})}))
    return template


def run_compare(request: CompareRequest, config: RunConfig, *, as_json: bool = False) -> int:
    """Runs a comparison and prints what came of it.

    Args:
        request: what is compared, on what.
        config: of every run.
        as_json: print an object.

    Returns:
        0 where all cells are done, else 1.

    Raises:
        InputError: an unknown method, gizmo, pair or setting, or something that is no concept.
    """
    methods = [part.strip() for part in request.methods.split(",") if part.strip()]
    gizmos, concepts = _concepts(request)
    plan(methods, gizmos, concepts, config, ablations=request.ablations)  # mistakes are told before anything is made
    state = StateFolder.open()
    state.make()  # Prefect, whose home is in it, makes no parents
    prepare_environment(state, quiet=True)  # Prefect, which the flow imports, reads it once
    join_servers(state)
    from flows.compare import compare

    started = time.monotonic()
    result = heard(
        lambda: compare(methods, gizmos, concepts, request.ablations, config, request.at_once, return_state=True)
    )
    from pipeline_lib.compare.folder import CompareRecord

    record = CompareRecord.model_validate(result)
    page = state.comparisons / record.compare_id / "compare.html"
    put_record(record, page, time.monotonic() - started, as_json=as_json)
    if not as_json:
        _put_scores(record, page)
    return SOME_FAILED if record.missing else 0


def _ends(share: ConceptMean | None) -> str:
    """Both intervals of a share between them, as percent, or why there is none."""
    from pipeline_lib.report.wording import counted, percent

    if share is None:
        return ""
    ends = share.surely_within
    if ends is None:
        return f"{counted(share.num_concepts, 'concept')}: too few for an interval"
    return f"{percent(max(0.0, ends[0]))} to {percent(min(1.0, ends[1]))}"


def tell_tally(files: Sequence[Path], *, as_json: bool) -> None:
    """Counts what people said of blind pairs.

    Args:
        files: answers, as the blind page saves them.
        as_json: print an object.

    Raises:
        InputError: a file that holds no answers to pairs of a comparison in this state folder.
    """
    from pipeline_lib.compare.blind import tally
    from pipeline_lib.compare.folder import all_keys
    from pipeline_lib.report.wording import percent

    found = tally(files, all_keys(StateFolder.open()))
    if as_json:
        put_json({"answers": len(files), "preferences": [one.model_dump() for one in found]})
        return
    put_table(
        [
            {
                "methods": f"{one.row} : {one.against}",
                "question": one.question,
                "counts": f"{one.won} : {one.lost}, {one.even} even",
                "share": percent(one.share.mean) if one.share else "–",
                "95 % over concepts": _ends(one.share),
            }
            for one in found
        ]
    )


def _concepts(request: CompareRequest) -> tuple[str, list[str]]:
    """Gizmos and concepts as the flow takes them; quick: the first of them alone."""
    if request.quick and request.gizmos and request.concepts:
        raise ConfigError("--quick takes one concept", got="--gizmos and --concepts", fix="leave one of the two out")
    paths = (
        [str(path) for path in concepts_in(Path(request.concepts).expanduser().absolute())] if request.concepts else []
    )
    gizmos = request.gizmos
    if request.quick and paths and not gizmos:
        return "", paths[:1]
    if request.quick:
        return truth_of(creatures(gizmos, [], ablations=request.ablations)[0]), []
    return gizmos, paths


def _put_scores(record: CompareRecord, page: Path) -> None:
    if record.num_blind_pairs:
        put(f"  people   {page.with_name('blind.html')}  ({record.num_blind_pairs} pairs; then --tally ANSWERS)")
    for name, cells in record.scores.tables.items():
        shown = [metric for metric in SHOWN if any(metric in means for means in cells.values())]
        if shown:
            put()
            put_table(
                [
                    {name: row, **{metric: f"{means[metric].mean:.3f}" if metric in means else "" for metric in shown}}
                    for row, means in cells.items()
                ]
            )
    for finding in record.scores.findings:
        if finding.verdict != "undecided":
            put(f"{finding.verdict}: {finding.ordering.name} ({finding.metric})")
