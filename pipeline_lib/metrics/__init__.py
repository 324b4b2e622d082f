"""Scores of samples: one file per family, one catalog, one table."""

from pipeline_lib.metrics.aggregate import Difference, ScoredSample, Summary, paired_differences, summary
from pipeline_lib.metrics.catalog import CATALOG, Metric
from pipeline_lib.metrics.looks import Looks, measure_looks, score_looks
from pipeline_lib.metrics.sample import Reference, measure_reference, score_sample
from pipeline_lib.metrics.windows import Window

__all__ = [
    "CATALOG",
    "Difference",
    "Looks",
    "Metric",
    "Reference",
    "ScoredSample",
    "Summary",
    "Window",
    "measure_looks",
    "measure_reference",
    "paired_differences",
    "score_looks",
    "score_sample",
    "summary",
]
