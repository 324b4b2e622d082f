"""The README's pictures of Prefect's UI, MLflow and the report: ``python -m tests.system.screenshots``.

One run of the bundled subject on `mannerism up`, photographed in Chromium: the form, a stage at work, the run's page
when it has ended, its samples, its page in MLflow, its report. Some seven minutes on two cores. Look at what came out.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as NeverIdle

from flows.cli.run import DEMO_GUIDANCE
from pipeline_lib.pocket.gizmo_run import gizmo_settings, write_gizmo
from pipeline_lib.run_config import RunConfig, with_settings
from pipeline_lib.world.gizmos import REPORTING, gizmo
from tests.system.browser import browser_page, browser_path, part
from tests.system.flow_runs import Run, started
from tests.system.servers import DEPLOYMENT, Up, wait_for

PICTURES = Path(__file__).parents[2] / "docs"
COLOURS = 128
"""Of a picture's palette: a third of the bytes, and nothing to be seen of it."""


class Camera:
    """Takes pictures of a page into a folder.

    Args:
        page: of the browser.
        folder: where they go.
    """

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder = page, folder

    def take(self, name: str, height: int = 1000) -> None:
        """Writes what the page shows when it has come to rest, so many rows of it."""
        with suppress(NeverIdle):  # MLflow asks on and on
            self.page.wait_for_load_state("networkidle", timeout=10_000)
        self.page.wait_for_timeout(1500)  # what slides in
        path = self.folder / f"ui-{name}.png"
        self.page.screenshot(path=path, clip={"x": 0, "y": 0, "width": 1400, "height": height})
        with Image.open(path) as picture:
            picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)
        print(path, file=sys.stderr)  # noqa: T201


def config_of(folder: Path, settings: Sequence[str]) -> RunConfig:
    """The bundled subject with the preset `demo`.

    Args:
        folder: gets its clip.
        settings: `key=value`, which go before.
    """
    write_gizmo(gizmo(REPORTING[0]), folder, {"reconstruction": 1, "local": 2, "global": 3})
    asked = {**gizmo_settings(gizmo(REPORTING[0]), folder), "method": {"preset": "demo"}}
    return with_settings(RunConfig.model_validate(asked), [f"samples.guidance_scale={DEMO_GUIDANCE}", *settings])


def form(up: Up, camera: Camera, config: RunConfig) -> None:
    """The form of a deployment, its subject filled in."""
    deployment = next(item for item in up.ask("deployments") if item["name"] == DEPLOYMENT.partition("/")[2])
    camera.page.goto(f"{up.ports.prefect_ui}/deployments/deployment/{deployment['id']}/run")
    concept = part(camera.page, "config", "Concept")
    part(concept, "Subject").locator("textarea").fill(str(config.concept.subject))
    inputs = part(concept, "Inputs")
    inputs.get_by_role("button", name="Add item").click()
    inputs.locator("textarea").last.fill("/data/clips/tocket.mp4")
    camera.take("form")


def progress(run: Run, camera: Camera) -> None:
    """Stage I at work: steps, loss, time left."""
    wait_for(lambda: run.artifact("progress-train-identity"), 900, "progress")
    camera.page.goto(f"{run.up.ports.prefect_ui}/artifacts/artifact/{run.artifact('progress-train-identity')['id']}")
    said = re.compile(r"[1-9]\d* of \d+ steps, .* left, loss \d")

    def told() -> bool:
        camera.page.reload()
        camera.page.wait_for_timeout(3000)
        return camera.page.get_by_text(said).count() > 0

    wait_for(told, 300, "steps")
    camera.take("progress")


def ended(run: Run, camera: Camera) -> None:
    """The run's page with its tasks, its samples, its page in MLflow, its report."""
    run.wait("Completed", 3000)
    page = camera.page
    page.goto(run.address)
    expect(page.locator(".state-badge").first).to_have_text(re.compile("Completed"))
    camera.take("run", height=570)  # below is the log, with paths of this machine
    page.goto(f"{run.up.ports.prefect_ui}/artifacts/artifact/{run.artifact('samples-personalised')['id']}")
    expect(page.locator("img[src^='data:image/webp']").first).to_be_visible()
    camera.take("samples")
    page.goto(run.link("mlflow"))
    expect(page.get_by_text("concept.inputs").first).to_be_visible()
    camera.take("mlflow")
    page.goto("about:blank")  # the next address differs behind its # alone
    page.goto(run.link("report"))
    expect(page.frame_locator("iframe").first.locator("video").first).to_be_attached()
    camera.take("report")


def main() -> None:
    """Takes all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=PICTURES, help="where the pictures go")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mannerism-ui-", ignore_cleanup_errors=True) as name:
        root = Path(name)
        (root / "tmp").mkdir()
        config = config_of(root / "clips", arguments.settings)
        up = Up(root / "state", TMPDIR=str(root / "tmp"))
        try:
            up.wait()
            with browser_page(browser_path()) as page:
                camera = Camera(page, arguments.folder)
                form(up, camera, config)
                run = started(up, config)
                progress(run, camera)
                ended(run, camera)
            up.end()
        finally:
            up.kill()


if __name__ == "__main__":
    main()
