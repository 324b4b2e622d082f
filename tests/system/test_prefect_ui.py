"""Prefect's UI as a person uses it: start, watch, cancel, retry, look, review. Slow; run by make test-system."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from filelock import FileLock
from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as NotInTimeError

from flows.environment import HEARTBEAT_SECONDS
from pipeline_lib.personalize import run_in_process
from pipeline_lib.run_config import RunConfig, load_config
from pipeline_lib.steps.run_folder import RunFolder, run_identity
from pipeline_lib.steps.state import StateFolder
from tests.steps.tiny import small_clip, tiny_config
from tests.system.browser import TRIES, agree, browser_page, browser_path, confirm, expect_state, fill_form, part
from tests.system.flow_runs import Run, accepted, mlflow_status, started
from tests.system.servers import DEPLOYMENT, Up, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

STEPS, EVERY = 2500, 50
LONG = (f"method.settings.identity_steps={STEPS}", f"training.checkpoint_every={EVERY}")


@pytest.fixture(scope="module")
def browser() -> str:
    found = browser_path()
    if not found and os.environ.get("CI") == "true":
        pytest.fail("no Chromium here")
    if not found:
        pytest.skip("no Chromium here; make test-system installs it")
    return found


@pytest.fixture(scope="module")
def up(browser: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("ui")
    (folder / "tmp").mkdir()
    service = Up(folder / "state", TMPDIR=str(folder / "tmp"))  # device locks of its own
    try:
        service.wait()
        yield service
        assert service.end() == 0
        assert not service.children()
    finally:
        service.kill()


@pytest.fixture
def page(browser: str) -> Iterator[Page]:
    with browser_page(browser) as opened:
        yield opened


def device_is_free(up: Up) -> bool:
    """Whether nobody holds a device, and no worker child lives."""
    for path in Path(up.environment()["TMPDIR"]).glob("mannerism-*/locks/device-*.lock"):
        lock = FileLock(path)
        lock.acquire(timeout=0)
        lock.release()
    return not [child for child in up.children() if "pipeline_lib.worker" in child.cmdline()]


def digests(state: Path, run_id: str) -> dict[str, str]:
    record = RunFolder(StateFolder.open(state), run_id).record()
    assert record is not None
    assert record.status == "done"
    return {name: step.ref.digest for name, step in record.steps.items() if name != "report"}


class Waiting(NamedTuple):
    """A run that waits for a person since some time."""

    run: Run
    since: float


@pytest.fixture(scope="module")
def waiting(up: Up, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Waiting:
    clip = small_clip(tmp_path_factory.mktemp("clips") / "reviewed.mp4")
    run = started(up, tiny_config(tiny_folder, [clip]), captions=True, samples=True)
    run.wait("Suspended")
    return Waiting(run, time.monotonic())


def test_who_waits_for_a_person_holds_nothing(up: Up, waiting: Waiting) -> None:
    wait_for(lambda: device_is_free(up), 60, "a free device")
    assert not [task for task in waiting.run.asked("task_runs") if task["name"] == "encode"]
    records = [RunFolder(StateFolder.open(up.state), name).record() for name in StateFolder.open(up.state).run_names()]
    assert [record.error for record in records if record] == ["waits for the review of its captions"]


def test_from_the_form_to_the_video(up: Up, page: Page, tiny_folder: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_folder, [small_clip(tmp_path / "walked.mp4")], *LONG)
    run = started_from_the_form(up, page, config)
    watch_progress(run, page)
    cancel(run, page)
    retry(run, page)
    alone = StateFolder.open(tmp_path / "alone")
    run_in_process(config, alone, lambda _event: None)
    assert digests(up.state, run_identity(config)) == digests(alone.root, run_identity(config))
    look_around(run, page)


def started_from_the_form(up: Up, page: Page, config: RunConfig) -> Run:
    deployment = next(item for item in up.ask("deployments") if item["name"] == DEPLOYMENT.partition("/")[2])
    page.goto(f"{up.ports.prefect_ui}/deployments/deployment/{deployment['id']}/run")
    expect(part(page, "config", "Concept", "Subject").locator("textarea")).to_be_visible()
    expect(part(page, "review", "Captions")).to_be_visible()
    before = {item["id"] for item in up.flow_runs()}
    given = config.model_dump(mode="json", exclude_defaults=True)
    fill_form(page, {**given, "method": {"preset": given["method"]["preset"], "settings": given["method"]["settings"]}})
    for _ in range(TRIES):  # a busy server refuses now and then, and the form says so
        page.get_by_role("button", name="Submit").click()
        with suppress(NotInTimeError):
            page.wait_for_url(re.compile(r"tab=Runs|/flow-run/"), timeout=60_000)
            break
    (made,) = wait_for(lambda: {item["id"] for item in up.flow_runs()} - before, 60, "the run")
    asked = httpx.get(f"{up.ports.prefect_api}/flow_runs/{made}", timeout=60).json()["parameters"]["config"]
    assert RunConfig.model_validate(asked) == config
    return Run(up, made)


def watch_progress(run: Run, page: Page) -> None:
    """The bar moves, and tells the steps and the time left."""
    wait_for(lambda: run.artifact("progress-train-identity"), 400, "progress")
    page.goto(f"{run.up.ports.prefect_ui}/artifacts/artifact/{run.artifact('progress-train-identity')['id']}")
    seen = set[int]()
    while len(seen) < 2:
        words = page.get_by_text(re.compile(rf"\d+ of {STEPS} steps, .* left, loss \d")).first.inner_text()
        seen.add(int(re.findall(rf"(\d+) of {STEPS}", words)[0]))
        page.reload()
    assert max(seen) < STEPS


def cancel(run: Run, page: Page) -> None:
    """The worker child goes, its checkpoint stays, the device is free."""
    page.goto(run.address)
    expect_state(page, "Running", 60)
    confirm(page, "Cancel")
    wait_for(lambda: device_is_free(run.up), 60, "the end of the worker child")
    expect_state(page, "Cancelled", 300)
    assert mlflow_status(run) == "KILLED"
    assert list(run.up.state.glob("store/work/stage/*/checkpoint.safetensors"))


def retry(run: Run, page: Page) -> None:
    """What was done is found, training goes on."""
    confirm(page, "Retry")
    expect_state(page, "Completed", 500)
    assert mlflow_status(run) == "FINISHED"
    told = [line["message"] for line in run.asked("logs")]
    (resumed,) = [found for line in told if (found := re.fullmatch(r"train-identity: goes on from step (\d+)", line))]
    assert EVERY <= int(resumed[1]) < STEPS, "not from the start"
    states = {(task["name"], task["state_name"]) for task in run.asked("task_runs")}
    assert {(name, "Cached") for name in ("prepare", "caption", "generate-base", "encode", "prior")} <= states


def look_around(run: Run, page: Page) -> None:
    """The links lead to the run in MLflow, to its report, and to videos that play."""
    page.goto(run.address)
    page.get_by_role("tab", name="Artifacts").or_(page.get_by_text("Artifacts", exact=True)).last.click()
    for key in ("mlflow", "log", "stage-identity", "stage-motion", "samples-base", "samples-personalised", "scores"):
        expect(page.get_by_text(key, exact=True).first).to_be_visible()
    page.goto(f"{run.up.ports.prefect_ui}/artifacts/artifact/{run.artifact('samples-personalised')['id']}")
    picture = page.locator("article img, .markdown-renderer img, img[src^='data:image/webp']").first
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalHeight") == 96, "the picture is in the artifact"
    page.goto(str(page.get_by_role("link", name="video").first.get_attribute("href")))
    video = page.locator("video")
    video.wait_for(state="attached")
    video.evaluate("video => { video.muted = true; return video.play(); }")
    page.wait_for_function("document.querySelector('video').currentTime > 0")
    assert video.evaluate("video => [video.readyState >= 2, video.error === null]") == [True, True]
    page.goto(run.link("mlflow"))
    expect(page.get_by_text("concept.inputs").first).to_be_visible()
    page.goto("about:blank")  # the next address differs behind its # alone
    page.goto(run.link("report"))
    report = page.frame_locator("iframe").first
    expect(report.locator("h1").first).to_contain_text("walked")
    expect(report.locator("video").first).to_be_attached()
    page.goto("about:blank")
    page.goto(run.link("log"))
    expect(page.get_by_text("run.log").first).to_be_visible()


def test_the_answers_of_a_review_are_used(up: Up, page: Page, waiting: Waiting, browser: str) -> None:
    run = waiting.run
    time.sleep(max(0.0, 3.2 * HEARTBEAT_SECONDS + waiting.since - time.monotonic()))
    assert run.state["name"] == "Suspended", "who waits is not dead, however long it takes"

    page.goto(run.address)
    page.get_by_role("button", name="Resume", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(part(dialog, "Captions", "Clip").locator("textarea")).to_have_value("reviewed.mp4")
    part(dialog, "Captions", "Static").locator("textarea").fill("with a paper hat")
    agree(dialog, "^Submit$")
    wait_for(lambda: run.state["name"] != "Suspended", 60, "the answer")
    run.wait("Suspended", 400)

    wait_for(lambda: device_is_free(up), 60, "a free device")
    assert "with a paper hat" in run.artifact("samples-personalised")["data"]
    assert mlflow_status(run) == "SCHEDULED"
    config = load_config(reviewed_folder(up) / "config.yaml")
    assert [caption.static for caption in config.captions] == ["with a paper hat"]
    assert answered(run, {"publish": False, "comment": "too red"}) == "Cancelled"
    assert run.state["message"] == "the samples were refused: too red"
    assert mlflow_status(run) == "KILLED"

    again = started(up, config, samples=True)
    again.wait("Suspended")
    assert answered(again, {"publish": True}) == "Completed"
    assert mlflow_status(again) == "FINISHED"
    assert json.loads((reviewed_folder(up) / "run.json").read_text())["status"] == "done"


def reviewed_folder(up: Up) -> Path:
    (folder,) = (up.state / "runs").glob("reviewed-*")
    return folder


def answered(run: Run, answer: dict[str, Any]) -> str:
    """The state that a run ends in after an answer."""
    accepted(f"{run.up.ports.prefect_api}/flow_runs/{run.id}/resume", {"run_input": answer})
    wait_for(lambda: run.state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), 400, "the end")
    return str(run.state["name"])


def test_a_failure_is_told(up: Up, tiny_folder: Path, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = up.command("tests.system.telling", str(server.server_port), PREFECT_API_URL=up.ports.prefect_api)
        assert done.returncode == 0, done.stderr
        run = started(up, tiny_config(tiny_folder, [tmp_path / "missing.mp4"]))
        run.wait("Failed")
        wait_for(lambda: told, 120, "the notification")
        assert "missing: Failed" in told[0]["subject"]
        assert run.id in told[0]["body"]
    finally:
        server.shutdown()
        server.server_close()
