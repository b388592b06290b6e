"""MLflow's page as `make ui` serves it, and a headless Chromium that looks at it."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.tracking.faults import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDTH, HEIGHT = 1400, 900
PATIENCE_MS = 90_000  # of every wait: they end as soon as what they wait for is there
START_SECONDS = 120.0
# MLflow opens the panel of its assistant over the page at the first visit; this is what it notes when that is closed.
NO_ASSISTANT = "try { localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true') } catch {}"
COLOURS = 256


class MlflowUi:
    """`mlflow ui` on an SQLite database, with the settings of the Makefile's `ui`, on a free port."""

    def __init__(self, database: Path) -> None:
        self.url = ""
        self._database = database
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "MlflowUi":
        """Start it and wait until it is healthy; raises RuntimeError with the end of its log if that never happens."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        binaries = Path(sys.executable).parent
        command = [str(binaries / "mlflow"), "ui", "--workers", "1", "--port", str(port)]
        command += ["--backend-store-uri", f"sqlite:///{self._database}"]
        environment = os.environ | {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        }
        directory = self._database.parent
        log = directory / f"ui-{port}.log"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self._is_healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"mlflow ui did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the server and its worker."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def runs(self, experiment: str, max_results: int = 1000) -> list[dict[str, Any]]:
        """Return the runs of an experiment as the API tells them."""
        found = self.call("experiments/search", {"max_results": 100})["experiments"]
        ids = [one["experiment_id"] for one in found if one["name"] == experiment]
        body = {"experiment_ids": ids, "max_results": max_results}
        return list(self.call("runs/search", body).get("runs", []))

    def call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer of one call of the REST API."""
        request = urllib.request.Request(
            f"{self.url}/api/2.0/mlflow/{method}", json.dumps(body).encode(), {"Content-Type": "application/json"}
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
    """Open a page with nothing stored from earlier ones; yield it and the errors of its console and frames."""
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
    """Return an error of the console as a line; none for the two that MLflow 3.17 itself makes on every page.

    Without a login there is no user to ask for (404), and its charts resize while they are being laid out. Both are
    recognized by address or wording, and only outside the frame in which an HTML artifact is shown (a blob).
    """
    if message.type != "error":
        return []
    url = message.location.get("url", "")
    is_frame = url.startswith("blob:")
    if not is_frame and url.endswith("/ajax-api/2.0/mlflow/users/current") and "404" in message.text:
        return []
    if not is_frame and "ResizeObserver loop completed with undelivered notifications" in message.text:
        return []
    return [f"{message.text} ({url})"]


def take_picture(page: Page, path: Path) -> None:
    """Write a PNG of what is to be seen, with few colours: small enough for a repository."""
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
