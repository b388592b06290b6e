"""What the address shows that a run or sweep prints at its end, in a browser that is new to it.

Nothing is clicked, the window has 1,366 x 768 pixels, and the panel of MLflow's assistant, which
opens itself at the first visit, takes a quarter of them.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="needs playwright")

from playwright.sync_api import Page, expect

from tests.browser.conftest import STUDY, run_command
from tests.browser.mlflow_ui import CHROMIUM, PATIENCE_MS, MlflowUi, fresh_page
from visionsweep.text import short_value

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]

expect.set_options(timeout=PATIENCE_MS)

SIZE = {"width": 1366, "height": 768}
COLUMNS = ["best/f1_macro", "loss", "lr", "optim", "accumulate", "epochs", "state"]
SINGLE = ("trainer.epochs=2", "trainer.threads=1", "loss=focal", "optim=adamp")


def printed_address(output: str, uri: str) -> str:
    """Return the address that a command printed, on the server that the test has started."""
    (page,) = re.findall(r"^then open: http://127\.0\.0\.1:5000/(.*)$", output, re.MULTILINE)
    return f"{uri}/{page}"


@dataclass(frozen=True)
class Row:
    """A row of the table, from its top: its name, and the cells by the head of their column."""

    name: str
    cells: dict[str, str]


@pytest.fixture
def first_visit(browser):
    """A page of a browser that has never seen MLflow."""
    context = browser.new_context(viewport=SIZE)
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def mixed(sweep, tmp_path_factory):
    """A database with two single runs and the sweep; the page of it, and what the runs printed."""
    directory: Path = tmp_path_factory.mktemp("mixed")
    uri = f"sqlite:///{directory}/mlflow.db"
    run_command(directory, "sync.py", str(sweep.directory), "--uri", uri)
    outputs = [
        run_command(directory, "train.py", *SINGLE, f"seed={seed}", f"tracking.uri={uri}").stdout
        for seed in (1, 2)
    ]
    with MlflowUi(directory / "mlflow.db") as ui:
        yield ui, outputs


def rows_of(page: Page) -> list[Row]:
    """Return what the table shows, once it is there."""
    expect(page.locator(".ag-center-cols-container .ag-row").first).to_be_visible()
    heads = page.locator(".ag-header-cell").evaluate_all(
        "cells => cells.map(c => [c.getAttribute('col-id'), c.textContent.trim()])"
    )
    heads = {column: text for column, text in heads if column}
    found = page.locator(".ag-row").evaluate_all(
        """rows => rows.map(r => [Number(r.getAttribute('row-index')),
            [...r.querySelectorAll('.ag-cell')].map(c =>
                [c.getAttribute('col-id'),
                    [...c.querySelectorAll('a'), c].map(e => e.textContent.trim())
                        .find(text => text)])])"""
    )
    table: dict[int, dict[str, str]] = {}
    for index, cells in found:
        table.setdefault(index, {}).update({heads.get(key, key): text for key, text in cells})
    return [Row(row["Run Name"], row) for _, row in sorted(table.items())]


def visible_columns(page: Page) -> list[str]:
    """Return the heads of the columns that are whole within the window, from left to right."""
    right = page.locator(".ag-body-viewport").bounding_box()
    cells = page.locator(".ag-header-cell").evaluate_all(
        """cells => cells.map(c => { const box = c.getBoundingClientRect();
            return [box.left, box.right, c.textContent.trim()]; })"""
    )
    limit = min(right["x"] + right["width"], SIZE["width"])
    return [text for _, end, text in sorted(cells) if end <= limit + 1 and text]


def check_page(page: Page) -> list[Row]:
    """Check what every printed address shows; return the rows."""
    expect(page.get_by_role("link", name=STUDY, exact=True)).to_be_visible()
    expect(page.get_by_text("MLflow Assistant")).to_be_visible()  # it takes its part of the width
    assert visible_columns(page)[2:] == COLUMNS  # after the name and the status
    rows = rows_of(page)
    assert [row.name for row in rows if not row.cells["best/f1_macro"]] == []
    return rows


def test_the_address_of_a_sweep_shows_its_trials_best_first(sweep, ui, first_visit):
    page = first_visit
    page.goto(printed_address(sweep.output, ui.uri))
    head, *rows = check_page(page)
    assert re.fullmatch(rf"(Group: )?{STUDY}\s*{len(sweep.runs) + 1}", head.name)
    trials = [row for row in rows if row.name != STUDY]  # the sweep's own run, with its report
    assert len(trials) == len(rows) - 1 == len(sweep.runs)
    with (sweep.directory / "trials.csv").open(newline="") as file:
        stored = {int(row["number"]): row for row in csv.DictReader(file)}
    ranked = sweep.ranked()
    for row, run in zip(trials, ranked, strict=False):
        assert row.name == run.name
        assert row.name.startswith(f"{run.best_f1:.3f} {stored[run.number]['params.loss']} ")
        assert float(row.cells["best/f1_macro"]) == run.best_f1
        assert row.cells["lr"] == short_value(float(stored[run.number]["params.optim.lr"]))
        assert row.cells["optim"] == stored[run.number]["params.optim"]
        assert (row.cells["accumulate"], row.cells["epochs"]) == ("1", "4")
        assert row.cells["state"] == "finished"
    for row in trials[len(ranked) :]:
        assert (row.cells["best/f1_macro"], row.cells["state"]) == ("-", "pruned")
        assert re.match(r"0\.\d{3} pruned ", row.name)
    switch = page.get_by_role("radio", name="Model training")
    assert switch.count() == 0 or switch.is_checked()


def test_the_address_of_a_single_run_shows_it_among_all_others(sweep, mixed, first_visit):
    ui, outputs = mixed
    page = first_visit
    addresses = {printed_address(output, ui.uri) for output in outputs}
    assert len(addresses) == 1
    page.goto(addresses.pop())
    rows = check_page(page)
    groups = [
        row for row in rows if re.search(r"\d$", row.name) and "(max)" in row.cells[COLUMNS[0]]
    ]
    tops = [float(row.cells["best/f1_macro"].removesuffix(" (max)")) for row in groups]
    assert len(groups) == 2
    assert tops == sorted(tops, reverse=True)
    singles = [row for row in rows if re.search(r" focal adamp lr=0\.003 .*\d\d:\d\d$", row.name)]
    assert len(singles) == 2
    values = [float(row.cells["best/f1_macro"]) for row in singles]
    assert values == sorted(values, reverse=True)
    assert [row.name[:5] for row in singles] == [f"{value:.3f}" for value in values]


def test_the_charts_begin_with_curves(sweep, mixed, browser, picture):
    ui, outputs = mixed
    with fresh_page(browser) as (page, errors):
        page.set_viewport_size({"width": 1366, "height": 620})
        page.goto(printed_address(outputs[0], ui.uri))
        expect(page.get_by_role("link", name=STUDY, exact=True)).to_be_visible()
        rows_of(page)
        picture(page, "mlflow_first")
        page.goto(f"{page.url}&compareRunsMode=CHART")
        chart = page.locator(".js-plotly-plot").first
        chart.wait_for()
        page.wait_for_function("() => document.querySelector('.js-plotly-plot').data?.length >= 3")
        lines = chart.evaluate("chart => chart.data.map(line => line.x.length)")
        assert min(lines) >= 1
        assert max(lines) >= 2
        heads = page.get_by_role("heading").all_inner_texts()
        charts = [text for text in heads if re.fullmatch(r"(val|train|best|final)/\w+", text)]
        assert charts[0] == "val/f1_macro"
        assert errors == []
