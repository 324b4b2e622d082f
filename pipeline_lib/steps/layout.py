"""File names inside artifacts, shared by those who write them and readers that load no model."""

from __future__ import annotations

LOSSES_FILE = "losses.jsonl"
SPEC_FILE = "stage.json"
PREVIEWS = "previews"
SCORES_FILE = "scores.json"
SUMMARY_FILE = "summary.json"
CEILING = "ceiling"
REPORT_FILE = "report.html"
SHEET_FILE = "contact_sheet.png"
CONCEPT_FILE = "concept.json"
SAMPLES_FILE = "samples.json"
