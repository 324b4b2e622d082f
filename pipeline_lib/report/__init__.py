"""The run on one self-contained HTML page."""

from pipeline_lib.report.inputs import ReportClip, ReportInputs, ReportSample, ReportStage
from pipeline_lib.report.page import write_report

__all__ = ["ReportClip", "ReportInputs", "ReportSample", "ReportStage", "write_report"]
