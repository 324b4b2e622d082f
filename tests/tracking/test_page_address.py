"""Links to MLflow lead where people can go, and hold no password."""

from __future__ import annotations

import pytest

from pipeline_lib.tracking.connection import PAGES_VARIABLE, page_address


def test_a_link_holds_no_password_and_leads_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PAGES_VARIABLE, raising=False)
    assert page_address("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    assert page_address("https://ada:secret@tracking.lab/mlflow/") == "https://tracking.lab/mlflow"
    monkeypatch.setenv(PAGES_VARIABLE, "http://127.0.0.1:5001/")
    assert page_address("http://mlflow:5000") == "http://127.0.0.1:5001"
