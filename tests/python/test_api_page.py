"""The page that explains the API, in a real browser.

It needs a Chromium, which `make test` installs where it may; without one the tests are skipped, and say so.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from daemon import Daemon

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)

NO_BROWSER = "THERE IS NO BROWSER, so pages are not tested: install chromium, or name one in CHROMIUM"

pytestmark = pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    running = Daemon()
    yield running
    running.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, as in most containers, Chromium has no sandbox; it sees nothing but our own page.
        launched = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(params=["light", "dark", "phone"])
def page(request: pytest.FixtureRequest, daemon: Daemon, browser: Any) -> Iterator[Any]:
    """The page as it is shown; whatever goes wrong in it or is loaded from elsewhere fails the test."""
    size = {"width": 390, "height": 844} if request.param == "phone" else {"width": 1280, "height": 900}
    context = browser.new_context(viewport=size, color_scheme="dark" if request.param == "dark" else "light")
    shown = context.new_page()
    faults: list[str] = []
    shown.on("pageerror", lambda error: faults.append(str(error)))
    # Chromium tells of answers that are refusals, too.
    is_fault = re.compile("(?!.*the server responded with a status of 4)").match
    shown.on("console", lambda message: faults.append(message.text) if is_fault(message.text) else None)
    shown.on("request", lambda asked: None if asked.url.startswith(daemon.url) else faults.append(asked.url))
    shown.goto(daemon.url)
    shown.wait_for_selector(".operation")
    yield shown
    assert not faults
    context.close()


def opened(page: Any, operation: str) -> Any:
    """An operation with its inside."""
    details = page.locator(f"#{operation}")
    details.locator("> summary").click()
    details.locator(".inside-operation").wait_for()
    return details


# The narrowest is the hardest; there are too many for all three.
@pytest.mark.parametrize("page", ["phone"], indirect=True)
def test_all_operations_are_shown(page: Any, daemon: Daemon) -> None:
    document = daemon.ask("GET", "/openapi.json")[1]
    described = [operation for path in document["paths"].values() for operation in path.values()]
    assert page.locator(".operation").count() == len(described)
    for operation in described:
        shown = opened(page, operation["operationId"])
        for parameter in operation.get("parameters", []):
            assert shown.get_by_text(parameter["name"], exact=True).count() > 0
        answers = shown.locator(".response > summary").all_inner_texts()
        assert [answer.split()[0] for answer in answers] == sorted(operation["responses"])
        assert "curl --unix-socket" in shown.locator("pre").first.inner_text()
    # Schemas and examples are made when they are opened.
    shown = page.locator("#create_environment")
    shown.get_by_text("Show its properties").first.click()
    assert "interval_seconds" not in shown.locator("dl").first.inner_text()
    shown.locator("dt:has-text('scheduler') + dd").get_by_text("Show its properties").click()
    assert "interval_seconds" in shown.inner_text() and "1 to 86400" in shown.inner_text()
    shown.locator(".response", has_text="4XX").locator("summary").click()
    assert "environment-exists" in shown.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than its window"


def test_operations_can_be_sent_from_the_page(page: Any, daemon: Daemon) -> None:
    version = opened(page, "get_version")
    version.get_by_role("button", name="Send GET").click()
    version.get_by_text("401 Unauthorized").wait_for()
    assert "daemon token" in page.locator("#access-state").inner_text()
    page.fill("#token", daemon.token)
    version.get_by_role("button", name="Send GET").click()
    version.locator("strong", has_text="200 OK").wait_for()
    assert f'"pid": {daemon.process.pid}' in version.locator(".answer").inner_text()
    environment = opened(page, "get_environment")
    environment.locator("input").fill("de v")
    assert "http://localhost/v1/environments/de%20v" in environment.locator("pre").first.inner_text()
    environment.get_by_role("button", name="Send GET").click()
    environment.get_by_text("400 Bad Request").wait_for()
    creation = opened(page, "create_environment")
    creation.locator("textarea").fill('{"name": "dev", "config": {"database": {"type": "postgres"}}}')
    creation.get_by_role("button", name="Send POST").click()
    creation.get_by_text("422 Unprocessable Entity").wait_for()
    assert "invalid-config" in creation.locator(".answer").inner_text()
    # The token is this tab's: it is in no storage that lasts, and in no address.
    assert page.evaluate("localStorage.length") == 0
    assert daemon.token not in page.url
    page.reload()
    page.wait_for_selector(".operation")
    assert page.input_value("#token") == daemon.token


def test_search_filters_operations(page: Any) -> None:
    contents = page.locator("#contents")
    if not contents.evaluate("contents => contents.open"):
        contents.locator("> summary").click()
    page.fill("#search", "backfill cancel")
    assert page.locator(".operation:visible").all_inner_texts()[0].startswith("PUT")
    assert page.locator(".operation:visible").count() == 1
    page.locator("#nav li:visible a").click()
    page.locator("#cancel_backfill .inside-operation").wait_for()
    assert page.url.endswith("#cancel_backfill")
