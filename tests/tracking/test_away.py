"""Which trouble with MLflow may pass by itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline_lib.errors import PipelineError, ResourceError
from pipeline_lib.tracking import is_away
from pipeline_lib.tracking.concept_registry import ConceptRegistry


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


@pytest.fixture
def nobody() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(params=[400, 500, 503])
def answering(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A proxy in front of a server, which answers everything with one status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(request.param)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", request.param
    server.shutdown()
    server.server_close()


def trouble(uri: str) -> Exception:
    from mlflow import MlflowClient

    with pytest.raises(Exception) as raised:
        MlflowClient(uri).get_run("x")
    return raised.value


def trouble_with_files(uri: str, file: Path) -> Exception:
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    file.touch()
    with pytest.raises(Exception) as raised:
        MlflowArtifactsRepository("mlflow-artifacts:/x", tracking_uri=uri).log_artifact(str(file))
    return raised.value


def test_a_server_that_does_not_answer_is_away(nobody: str, tmp_path: Path) -> None:
    assert is_away(trouble(nobody))
    assert is_away(trouble_with_files(nobody, tmp_path / "file"))


def test_a_server_that_never_finishes_is_away() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert is_away(trouble(f"http://127.0.0.1:{silent.getsockname()[1]}"))


def test_a_server_that_is_ill_is_away_and_one_that_refuses_is_not(answering: tuple[str, int], tmp_path: Path) -> None:
    uri, status = answering
    assert is_away(trouble(uri)) == (status >= 500)
    assert is_away(trouble_with_files(uri, tmp_path / "file")) == (status >= 500)


def test_what_a_registry_makes_of_it_is_known_too_and_an_answer_is_none(
    nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    registry = ConceptRegistry(uri, "concepts", tmp_path / "files")
    assert not is_away(trouble(uri))
    from mlflow import MlflowClient

    monkeypatch.setattr(registry, "_client", MlflowClient(nobody))
    with pytest.raises(PipelineError, match="cannot be asked") as raised:
        registry.concepts()
    assert is_away(raised.value)


@pytest.mark.parametrize("error", [None, ValueError("x"), FileNotFoundError("x"), ResourceError("disk full")])
def test_other_trouble_stays(error: Exception | None) -> None:
    assert not is_away(error)
