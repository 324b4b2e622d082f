"""Charts, tables, verdict and wording, each by hand."""

import dataclasses
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.metrics import ScoredSample
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.models.families import family_named
from pipeline_lib.report.charts import IntervalMark, Series, interval_chart, line_chart, smoothed, ticks
from pipeline_lib.report.inputs import ReportInputs
from pipeline_lib.report.page import render
from pipeline_lib.report.tables import score_tables
from pipeline_lib.report.usage import usage
from pipeline_lib.report.verdict import verdict
from pipeline_lib.report.wording import duration, number, plain_name, signed


def _sample(row: str, prompt: str, kind: str = "local", seed: int = 0, **values: float) -> ScoredSample:
    scores = tuple(
        to_score(name, Measurement(value), Trace(), high=100 if name.startswith("dynamic") else None)
        for name, value in values.items()
    )
    return ScoredSample(row=row, prompt=prompt, kind=kind, seed=seed, scores=scores)


def _two_rows(count: int, metric: str, base: float, ours: float, kind: str = "local") -> list[ScoredSample]:
    both = []
    for index in range(count):
        both.append(_sample("base", f"p{index}", kind, **{metric: base}))
        both.append(_sample("personalised", f"p{index}", kind, **{metric: ours + 0.001 * index}))
    return both


@pytest.mark.parametrize(
    ("count", "metric", "kind", "base", "ours", "sentence"),
    [
        (6, "clip_i", "reconstruction", 0.2, 0.6, "It looks more like the clip than the base does."),
        (6, "clip_i", "reconstruction", 0.6, 0.2, "It looks less like the clip than the base does."),
        (6, "clip_i", "global", 0.6, 0.2, "It stays less like the clip in edits."),
        (6, "clip_t_aggregated", "local", 0.3, 0.1, "It follows edit prompts less well."),
        (6, "dynamic_degree_gap", "reconstruction", 3.0, 0.5, "It moves more like the clip."),
        (6, "dynamic_degree_gap", "reconstruction", 0.5, 3.0, "It moves less like the clip."),
        (6, "identity_accuracy", "reconstruction", 0.1, 0.8, "It shows the subject in more frames than the base does."),
        (6, "motion_fidelity", "reconstruction", 0.1, 0.8, "It moves it more as in the clip."),
        (6, "edit_accuracy", "local", 0.8, 0.1, "It shows less of what edits ask for."),
        (2, "clip_i", "reconstruction", 0.2, 0.6,
         "It looks closer to the clip on average; 2 pairs of samples are too few to rule out luck."),
        (1, "dynamic_degree_gap", "reconstruction", 0.2, 0.6,
         "It moves less like the clip on average; one pair of samples is too few to rule out luck."),
        (1, "identity_accuracy", "local", 0.0, 0.0,
         "It keeps it in no more frames of edits; one pair of samples is too few to rule out luck."),
        (6, "temporal_flickering", "local", 0.2, 0.6, "Not scored."),
        (6, "clip_t_aggregated", "reconstruction", 0.2, 0.6, "Not scored."),
    ],
)  # fmt: skip
def test_the_verdict_says_what_the_scores_say(
    count: int, metric: str, kind: str, base: float, ours: float, sentence: str
) -> None:
    assert verdict(_two_rows(count, metric, base, ours, kind)).sentence == sentence


def test_the_verdict_inside_the_noise_claims_nothing() -> None:
    samples = [_sample("base", f"p{i}", "reconstruction", clip_i=0.5) for i in range(6)]
    samples += [_sample("personalised", f"p{i}", "reconstruction", clip_i=0.5 + 0.1 * (-1) ** i) for i in range(6)]
    assert verdict(samples).sentence == "It looks no more like the clip than the base does."


def test_headline_figures_never_mix_reconstruction_and_edits() -> None:
    samples = [_sample("ceiling", "clip.mp4", "reconstruction", clip_i=0.95)]
    for row, looks, follows in (("base", 0.2, 0.4), ("personalised", 0.8, 0.4)):
        samples.append(_sample(row, "r", "reconstruction", clip_i=looks + 0.1, clip_t_aggregated=0.9))
        samples += [_sample(row, f"p{i}", clip_i=looks, clip_t_aggregated=follows + 0.01 * (-1) ** i) for i in range(6)]
    told = verdict(samples)
    assert [(figure.metric, figure.personalised, dict(figure.beside)) for figure in told.figures] == [
        ("CLIP-I", "0.900", {"base": "0.300", "ceiling": "0.950"}),
        ("CLIP-I", "0.800", {"base": "0.200"}),
        ("C-T", "0.400", {"base": "0.400"}),
    ]
    assert [figure.group for figure in told.figures] == [
        "reconstruction, 1 sample",
        "edits, 6 samples",
        "edits, 6 samples",
    ]
    assert told.sentence == (
        "It looks closer to the clip on average, stays more like the clip in edits and follows edit prompts about as "
        "well; what is said on average rests on one pair of samples, too few to rule out luck."
    )


def test_where_the_truth_was_read_it_alone_makes_the_headline() -> None:
    samples = [
        _sample("chance", "r", "reconstruction", identity_accuracy=0.01, motion_fidelity=0.05),
        _sample("chance", "e", identity_accuracy=0.02, edit_accuracy=0.1),
        _sample("ceiling", "clip.mp4", "reconstruction", clip_i=0.9, identity_accuracy=1.0, motion_fidelity=0.97),
        _sample("ceiling", "e", identity_accuracy=0.9, edit_accuracy=1.0),
    ]
    for row, value in (("base", 0.0), ("personalised", 0.75)):
        samples.append(_sample(row, "r", "reconstruction", clip_i=0.5, identity_accuracy=value, motion_fidelity=value))
        samples.append(_sample(row, "e", clip_i=0.5, identity_accuracy=value / 3, edit_accuracy=value))
    told = verdict(samples)
    assert [(figure.metric, figure.personalised) for figure in told.figures] == [
        ("identity", "0.75"), ("motion", "0.75"), ("identity", "0.25"), ("edit", "0.75"),
    ]  # fmt: skip
    assert told.figures[0].beside == (("base", "0.00"), ("ceiling", "1.00"), ("chance", "0.01"))
    assert told.figures[3].beside == (("base", "0.00"), ("ceiling", "1.00"), ("chance", "0.10"))
    assert all("is better." in figure.reading for figure in told.figures)
    rebuilt, edits = score_tables(samples)
    assert [row for row, _ in edits.rows] == ["chance", "base", "personalised", "ceiling"]
    assert [line.metric.name for line in rebuilt.lines] == ["identity_accuracy", "motion_fidelity", "clip_i"]
    (looks,) = [line for line in edits.lines if line.metric.name == "clip_i"]
    chance, *_, ceiling = looks.cells
    assert (chance.mean, chance.footnote) == ("", 0), "chance has no such metric, and needs no excuse"
    assert ceiling.mean == "0.900"
    (shown,) = [line for line in edits.lines if line.metric.name == "identity_accuracy"]
    assert shown.cells[-1].mean == "0.90", "the clips that edits ask for, without the reconstruction"
    assert rebuilt.footnotes == edits.footnotes == ()


def test_a_lone_model_is_scored_without_a_comparison() -> None:
    assert "no base" in verdict([_sample("personalised", "p", clip_i=0.5)]).sentence


def test_tables_order_rows_and_drop_metrics_that_belong_to_the_other_group() -> None:
    samples = [
        _sample("ceiling", "r", "reconstruction", clip_i=0.9, mse=0.01),
        _sample("personalised", "r", "reconstruction", clip_i=0.8, mse=0.1),
        _sample("base", "r", "reconstruction", clip_i=0.2, mse=0.3),
        _sample("lora", "r", "reconstruction", clip_i=0.7, mse=0.1),
        _sample("mine", "r", "reconstruction", clip_i=0.7, mse=0.1),
        _sample("personalised", "e", "local", clip_i=0.8),
        _sample("base", "e", "local", clip_i=0.2),
    ]
    rebuilt, edits = score_tables(samples)
    assert [row for row, _ in rebuilt.rows] == ["base", "lora", "personalised", "mine", "ceiling"]
    assert [line.metric.name for line in rebuilt.lines] == ["clip_i", "mse"]
    assert [line.metric.name for line in edits.lines] == ["clip_i"]
    assert edits.unmeasured == ()
    assert rebuilt.lines[0].change.state == "few"
    assert rebuilt.lines[0].change.amount == "+0.600"


def test_a_pixel_error_that_is_not_measured_is_told_in_its_own_group_only() -> None:
    nothing = tuple(to_score(name, Measurement(None, "why"), Trace()) for name in ("mse", "mse_edit"))
    samples = [
        _sample("base", kind, kind, clip_i=0.5).model_copy(update={"scores": nothing})
        for kind in ("reconstruction", "local")
    ]
    told = [[label for label, _ in table.unmeasured] for table in score_tables(samples)]
    assert told == [["Pixel error, reconstruction"], ["Pixel error, edits"]]


def test_the_best_seeds_are_told_when_there_are_several() -> None:
    samples = [_sample("personalised", "e", seed=seed, clip_i=value) for seed, value in enumerate((0.2, 0.6))]
    (table,) = score_tables(samples)
    (cell,) = table.lines[0].cells
    assert (cell.mean, cell.best, cell.interval) == ("0.400", "0.600", "")


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
@settings(max_examples=200, deadline=None)
def test_ticks_are_few_inside_and_evenly_spaced(low: float, span: float) -> None:
    high = low + span
    marks = ticks(low, high)
    assert len(marks) <= 6
    room = 1e-6 * max(abs(low), abs(high), span)
    assert all(low - room <= mark <= high + room for mark in marks)
    assert len(marks) >= 1 or span < 1e-5 * abs(low) or span < 1e-5


def test_smoothing_keeps_a_constant_and_follows_a_step() -> None:
    assert smoothed([(x, 3.0) for x in range(50)])[0][1] == pytest.approx(3)
    risen = smoothed([(x, float(x >= 50)) for x in range(200)])
    assert risen[49][1] == 0
    assert 0 < risen[52][1] < 0.5
    assert risen[-1][1] > 0.99


@pytest.mark.parametrize(
    "points", [[(1, 2.0)], [(1, 0.0), (2, 0.0)], [(x, 1.0 / x) for x in range(1, 3000)], [(1, 1e-9), (2, 1e9)]]
)
def test_charts_are_well_formed_and_stay_inside(points: list[tuple[float, float]]) -> None:
    chart = line_chart([Series("a & b", "raw", points), Series("", "smooth", [])], title='x < "y"', x_label="step")
    root = ElementTree.fromstring(str(chart))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    (line,) = root.findall("polyline")
    spots = [tuple(map(float, spot.split(","))) for spot in line.attrib["points"].split()]
    assert 1 <= len(spots) <= 400
    assert all(0 <= x <= width and 0 <= y <= height for x, y in spots)
    assert root.attrib["aria-label"] == 'x < "y"'


def test_interval_charts_place_means_by_value() -> None:
    marks = [IntervalMark("base", "Base", 0.1, 0.0, 0.2), IntervalMark("<b>", "Ours & more", 0.9, None, None)]
    root = ElementTree.fromstring(str(interval_chart(marks, 2)))
    first, second = (float(circle.attrib["cx"]) for circle in root.findall("circle"))
    assert first < second
    assert root.attrib["aria-label"] == "Base 0.10; Ours & more 0.90"


def test_snippets_are_python_whatever_the_names(make_inputs: Callable[..., ReportInputs]) -> None:
    name, trigger = 'it\'s "quoted"\n', "a'b\"c\\"
    inputs = make_inputs(base_source="folder/with 'quotes'")
    concept = inputs.concept.model_copy(update={"name": name, "trigger": trigger, "captions": ()})
    snippets = usage(dataclasses.replace(inputs, concept=concept))
    for code in (snippets.diffusers, snippets.bundle):
        compile(code, "snippet", "exec")
        assert len(code.splitlines()) <= 8
        assert repr(f"a {trigger}, on the beach") in code
        assert "num_frames=5, height=32,\n)" in code


def test_snippets_name_what_lies_beside_the_page(make_inputs: Callable[..., ReportInputs]) -> None:
    snippets = usage(make_inputs())
    assert 'load_lora_weights("concept/lora.safetensors")' in snippets.diffusers
    assert 'load_concept(pipe, "concept")' in snippets.bundle


def test_snippets_tell_all_that_a_stock_pipeline_needs(make_inputs: Callable[..., ReportInputs]) -> None:
    call = {"num_frames": 5, "frame_rate": 24.0, "negative_prompt": "it's a very long list of things, " * 5}
    changes = family_named("hunyuan").stock_changes
    inputs = make_inputs(call=call, stock_changes=changes, base_source="org/base", base_revision="v2")
    for code in (usage(inputs).diffusers, usage(inputs).bundle):
        compile(code, "snippet", "exec")
        assert "base = 'org/base'\npipe = DiffusionPipeline.from_pretrained(base, revision='v2')\n" in code
        told = (*changes, "frame_rate=24.0", f"negative_prompt={call['negative_prompt']!r}")
        assert all(line in code for line in told)


def test_comfy_is_told_only_of_bases_that_it_loads(make_inputs: Callable[..., ReportInputs]) -> None:
    assert "LoraLoaderModelOnly" in render(make_inputs())
    assert "ComfyUI" not in render(make_inputs(in_comfy=False))


def test_wording() -> None:
    assert [duration(seconds) for seconds in (0.25, 9.4, 60, 200, 3600, 7500)] == [
        "0.2 s", "9 s", "1 min", "3 min 20 s", "1 h", "2 h 5 min",
    ]  # fmt: skip
    assert (number(-0.1234, 2), number(-0.0001, 2), number(3, 1)) == ("−0.12", "0.00", "3.0")
    assert (signed(0.5, 1), signed(-0.5, 1), signed(0.001, 1)) == ("+0.5", "−0.5", "0.0")
    assert plain_name("set_and_sequence") == "Set and sequence"
