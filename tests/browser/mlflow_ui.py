"""MLflow's page as `make ui` serves it, and a headless Chromium that looks at it."""

import contextlib
import io
import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.mlflow_process import MlflowProcess, on_database

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDTH, HEIGHT = 1400, 900
PATIENCE_MS = 90_000  # every wait ends as soon as its condition holds
# At the first visit, MLflow opens the panel of its assistant over the page, unless this is set.
NO_ASSISTANT = (
    "try { localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true') } catch {}"
)
COLOURS = 256


class MlflowUi(MlflowProcess):
    """`mlflow ui` on an SQLite database, as `make ui` serves it, and its REST API."""

    def __init__(self, database: Path) -> None:
        super().__init__(database.parent, "ui", *on_database(f"sqlite:///{database}"))

    def runs(self, experiment: str, max_results: int = 1000) -> list[dict[str, Any]]:
        """Return the runs of an experiment as the API tells them."""
        found = self.call("experiments/search", {"max_results": 100})["experiments"]
        ids = [one["experiment_id"] for one in found if one["name"] == experiment]
        body = {"experiment_ids": ids, "max_results": max_results}
        return list(self.call("runs/search", body).get("runs", []))

    def call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer of one call of the REST API."""
        request = urllib.request.Request(
            f"{self.uri}/api/2.0/mlflow/{method}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the distribution's Chromium; Playwright's own is never downloaded."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def fresh_page(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """Open a page without stored data; yield it and the errors of its console and frames."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    context.add_init_script(NO_ASSISTANT)
    context.set_default_timeout(PATIENCE_MS)
    errors: list[str] = []
    context.on("console", lambda message: errors.extend(_error(message)))
    context.on("weberror", lambda error: errors.append(f"uncaught: {error.error}"))
    try:
        yield context.new_page(), errors
    finally:
        context.close()


def _error(message: ConsoleMessage) -> list[str]:
    """Return an error of the console as a line, except for two that MLflow 3.17 has on every page.

    Without a login there is no user to ask for (404), and its charts resize during layout. Both are
    known by address or wording, and only outside the frame of an HTML artifact (a blob).
    """
    if message.type != "error":
        return []
    url = message.location.get("url", "")
    is_frame = url.startswith("blob:")
    if (
        not is_frame
        and url.endswith("/ajax-api/2.0/mlflow/users/current")
        and "404" in message.text
    ):
        return []
    if (
        not is_frame
        and "ResizeObserver loop completed with undelivered notifications" in message.text
    ):
        return []
    return [f"{message.text} ({url})"]


def take_picture(page: Page, path: Path) -> None:
    """Write a PNG of the page with few colours, small enough for a repository."""
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
