"""Scores of samples: one file per family, one catalog, one table."""

from pipeline_lib.metrics.aggregate import Difference, ScoredSample, Summary, paired_differences, summary
from pipeline_lib.metrics.catalog import CATALOG, Metric
from pipeline_lib.metrics.identity import SubjectIdentity, measure_identity, score_identity
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
    "SubjectIdentity",
    "Summary",
    "Window",
    "measure_identity",
    "measure_looks",
    "measure_reference",
    "paired_differences",
    "score_identity",
    "score_looks",
    "score_sample",
    "summary",
]
