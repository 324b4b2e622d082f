"""Prefect's UI in Debian's Chromium, as a person uses it: the form of a deployment, a run's buttons, its artifacts."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus

from playwright.sync_api import ConsoleMessage, Locator, Page, Response, expect, sync_playwright

LOG = logging.getLogger(__name__)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 120_000  # milliseconds
REFUSAL_SECONDS = 60  # after which a dialog that stays is taken as refused
TRIES = 3


def browser_path() -> str:
    """The program of a Chromium; empty where there is none."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), "")


@contextmanager
def browser_page(path: str, width: int = 1400, height: int = 1000) -> Iterator[Page]:
    """A fresh page; the browser ends with the block. What it is refused is logged."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-quic"])
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(PATIENCE)
            expect.set_options(timeout=PATIENCE)
            page.on("response", tell_refusal)
            page.on("console", tell_error)
            yield page
        finally:
            browser.close()


def tell_refusal(reply: Response) -> None:
    if reply.status >= HTTPStatus.BAD_REQUEST:
        LOG.warning("%s %s %s", reply.status, reply.request.method, reply.url)


def tell_error(said: ConsoleMessage) -> None:
    if said.type == "error":
        LOG.warning("the page's console: %s", said.text)


def part(root: Page | Locator, *names: str) -> Locator:
    """A field of a form, or a section of it.

    Args:
        root: holds the form.
        *names: titles on the way to it.

    Returns:
        The first one there.
    """
    found: Page | Locator = root
    for name in names:
        title = f"./div[contains(@class, 'p-label__header')]//span[starts-with(normalize-space(), '{name}')]"
        field = "contains(concat(' ', @class, ' '), ' schema-form-property ')"
        found = found.locator(f"xpath=.//div[{field}][{title}]").first
    assert isinstance(found, Locator)
    return found


def fill_form(page: Page, config: Mapping[str, Mapping[str, object]]) -> None:
    """Fills the fields of the parameter `config`.

    Args:
        page: shows the form.
        config: section to field to value: texts and numbers, lists of texts, and mappings as JSON.
    """
    for section, fields in config.items():
        for name, value in fields.items():
            field = part(page, "config", title_of(section), title_of(name))
            if isinstance(value, list):
                for text in value:
                    field.get_by_role("button", name="Add item").click()
                    field.locator("textarea").last.fill(str(text))
            elif isinstance(value, dict):
                field.locator("textarea").fill(json.dumps(value))
            else:
                field.locator("textarea, input").first.fill(str(value))


def title_of(name: str) -> str:
    """A field's title as the form shows it."""
    return name.replace("_", " ").title()


def confirm(page: Page, button: str) -> None:
    """Presses a button of a run's page and says yes to what it asks.

    Args:
        page: of the run.
        button: its words.
    """
    page.get_by_role("button", name=button, exact=True).first.click()
    agree(page.get_by_role("dialog"), f"^(Confirm|{button})$")


def agree(dialog: Locator, button: str) -> None:
    """Presses a dialog's button until the dialog is gone.

    A server on SQLite that is busy refuses now and then; the dialog then says so and stays, for another try.

    Args:
        dialog: that is open.
        button: pattern of its words.
    """
    for _ in range(TRIES - 1):
        dialog.get_by_role("button", name=re.compile(button)).click()
        with suppress(AssertionError):
            expect(dialog).to_have_count(0, timeout=1000 * REFUSAL_SECONDS)
            return
    dialog.get_by_role("button", name=re.compile(button)).click()
    expect(dialog).to_have_count(0)


def expect_state(page: Page, name: str, seconds: float) -> None:
    """Waits until the run's page shows a state, by itself, without being loaded again.

    Args:
        page: of the run.
        name: of the state.
        seconds: how long at most.
    """
    expect(page.locator(".state-badge").first).to_have_text(re.compile(name), timeout=1000 * seconds)
