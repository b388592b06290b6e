"""MLflow's page of a finished sweep in a real browser.

`VISIONSWEEP_PICTURES=docs/pictures python -m pytest -n 0 tests/browser` makes those of the docs.
"""

import contextlib
import csv
import re

import pytest

pytest.importorskip("playwright", reason="needs playwright")

from playwright.sync_api import Locator, Page, TimeoutError, expect

from tests.browser.conftest import STUDY
from tests.browser.mlflow_ui import CHROMIUM, PATIENCE_MS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]

expect.set_options(timeout=PATIENCE_MS)

# At the first visit, the switch at the top left is on GenAI, where runs are "evaluations".
MODEL_TRAINING = "workflowType=machine_learning"


def runs_url(ui, parent):
    return f"{ui.uri}/#/experiments/{parent['info']['experiment_id']}/runs?{MODEL_TRAINING}"


def run_url(ui, parent, run_id, rest=""):
    experiment = f"{ui.uri}/#/experiments/{parent['info']['experiment_id']}"
    return f"{experiment}/runs/{run_id}{rest}?{MODEL_TRAINING}"


def row_of(page: Page, name: str) -> Locator:
    """Return the row of a run in its table (of the two halves, the one with the names)."""
    return page.locator(".ag-pinned-left-cols-container .ag-row").filter(
        has=page.get_by_role("link", name=name)
    )


def shown_names(page: Page) -> list[str]:
    """Return the names of the runs from the top of the table to its end."""
    rows = page.locator(".ag-pinned-left-cols-container .ag-row").evaluate_all(
        """rows => rows.map(r => [
            Number(r.getAttribute('row-index')), r.querySelector('a')?.textContent ?? ''])"""
    )
    return [name for _, name in sorted(rows) if name]


def open_sweep(page: Page, url: str) -> None:
    """Open the table of runs and expand the sweep's."""
    page.goto(url)
    row_of(page, STUDY).get_by_role("button").click()


def choose_columns(page: Page, hide: tuple[str, ...], show: tuple[str, ...]) -> None:
    """Choose the columns of the runs table in its menu."""
    page.get_by_role("button", name="Columns").click()
    for column in (*hide, *show):
        page.get_by_placeholder("Search columns").fill(column)
        # Only a node's whole text tells "loss" from "val/loss".
        node = page.locator(
            ".du-bois-light-tree-treenode", has_text=re.compile(f"^{re.escape(column)}$")
        )
        node.locator(".du-bois-light-tree-checkbox").click()
    page.keyboard.press("Escape")


def test_trials_are_nested_below_their_sweep(sweep, ui, parent, view, picture):
    page = view.page
    page.goto(runs_url(ui, parent))
    row_of(page, STUDY).wait_for()
    assert shown_names(page) == [STUDY]  # the sweep alone, until it is expanded
    row_of(page, STUDY).get_by_role("button").click()
    for run in sweep.runs:
        expect(row_of(page, run.name)).to_be_visible()
    newest_first = [run.name for run in reversed(sweep.runs)]
    names = shown_names(page)
    assert names[0] == STUDY
    assert sorted(names[1:]) == sorted(newest_first)
    indent = row_of(page, STUDY).get_by_role("link").bounding_box()["x"]
    for run in sweep.runs:
        assert row_of(page, run.name).get_by_role("link").bounding_box()["x"] > indent + 10
    picture(page, "mlflow_runs")
    assert view.errors == []


def test_the_table_sorts_by_the_best_f1_of_the_journals(sweep, ui, parent, view, picture):
    page = view.page
    page.goto(runs_url(ui, parent))
    row_of(page, STUDY).wait_for()
    choose_columns(
        page,
        hide=("Dataset", "Source", "Models"),
        show=("best/f1_macro", "best/epoch", "loss", "optim", "optim.lr", "visionsweep.state"),
    )
    values = {run.name: run.best_f1 for run in sweep.ranked()}
    for direction, sign in (("descending", -1), ("ascending", 1)):
        page.get_by_test_id("sort-select-dropdown").click()
        page.get_by_role("menuitemcheckbox", name="best/f1_macro").click()
        page.keyboard.press("Escape")
        page.get_by_test_id("sort-select-dropdown").click()
        page.get_by_role("button", name=f"Sort {direction}").click()
        page.keyboard.press("Escape")
        in_order = sorted(values.values(), key=lambda value: sign * value)
        first_trial = next(name for name, value in values.items() if value == in_order[0])
        expect(page.locator(".ag-pinned-left-cols-container .ag-row")).to_have_count(
            len(sweep.runs) + 1
        )
        page.wait_for_function(
            """name => [
                ...document.querySelectorAll('.ag-pinned-left-cols-container .ag-row')
            ].some(r => Number(r.getAttribute('row-index')) < 2 && r.textContent.includes(name))""",
            arg=first_trial,
        )
        trials = [
            name for name in shown_names(page) if name != STUDY
        ]  # the sweep has its best trial's value
        assert [values[name] for name in trials[: len(values)]] == in_order
        assert set(trials[len(values) :]) == {
            run.name for run in sweep.runs if run.state == "pruned"
        }
        cells = page.locator(".ag-center-cols-container .ag-row").evaluate_all(
            """rows => rows.map(r => [Number(r.getAttribute('row-index')),
                r.querySelector("[col-id*='best/f1_macro']").textContent])"""
        )
        shown = [float(text) for _, text in sorted(cells) if text != "-"]
        assert shown == sorted([*in_order, max(in_order)], key=lambda value: sign * value)
        if direction == "descending":
            picture(page, "mlflow_sorted")
    assert view.errors == []


def test_three_runs_are_compared_with_their_loss_curves(sweep, ui, parent, view, picture):
    page = view.page
    open_sweep(page, runs_url(ui, parent))
    chosen = sweep.ranked()[:3]
    for run in chosen:
        row_of(page, run.name).get_by_role(
            "checkbox", name=re.compile("toggle row selection")
        ).check()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_role("heading", name="Comparing 3 Runs").wait_for()
    for run in chosen:
        expect(page.get_by_text(run.name, exact=True).first).to_be_visible()
    # MLflow draws this page anew as runs arrive, and then a click may be lost.
    for patience_ms in (PATIENCE_MS / 3, PATIENCE_MS / 3, PATIENCE_MS):
        page.get_by_title("Plot chart").filter(has_text="train/loss").click()
        with contextlib.suppress(TimeoutError):
            page.get_by_role("heading", name="train/loss").first.wait_for(timeout=patience_ms)
            break
    chart = page.locator(".js-plotly-plot")
    expect(chart.locator(".scatterlayer path.js-line").first).to_be_visible()
    # Name and values of every line that is drawn: the runs' own, point by point.
    page.wait_for_function("() => document.querySelector('.js-plotly-plot').data?.length >= 3")
    lines = dict(chart.evaluate("chart => chart.data.map(line => [line.name, line.y])"))
    assert lines == {run.name: pytest.approx(run.losses) for run in chosen}
    for run in chosen:
        expect(page.get_by_text(f"{run.name} (train/loss)")).to_be_visible()  # in the legend
    picture(page, "mlflow_compare")
    assert view.errors == []


def test_the_leaderboard_in_the_description_links_to_the_trials(
    sweep, ui, parent, children, view, picture
):
    page = view.page
    page.goto(run_url(ui, parent, parent["info"]["run_id"]))
    page.get_by_text("Show more", exact=True).click()
    ranked = sweep.ranked()
    expect(page.get_by_text(f"#{ranked[0].number} won").first).to_be_visible()
    table = page.locator("table", has=page.get_by_role("columnheader", name="rank"))
    expect(table).to_be_visible()
    rows = table.locator("tbody tr").evaluate_all(
        "rows => rows.map(r => [...r.cells].map(c => c.textContent.trim()))"
    )
    with (sweep.directory / "trials.csv").open(newline="") as file:
        params = {int(row["number"]): row for row in csv.DictReader(file)}
    assert [row[:3] for row in rows] == [
        [str(rank), f"#{run.number}", f"{run.best_f1:.4f}"] for rank, run in enumerate(ranked, 1)
    ]
    for row, run in zip(rows, ranked, strict=True):
        assert {params[run.number]["params.loss"], params[run.number]["params.optim"]} <= set(row)
    picture(page, "mlflow_description")
    links = table.get_by_role("link")
    assert links.evaluate_all("links => links.map(link => link.href)") == [
        run_url(ui, parent, children[run.number]) for run in ranked
    ]
    for number, run in enumerate(ranked[:2]):
        with page.context.expect_page() as opened:
            links.nth(number).click()
        trial = opened.value
        expect(trial.get_by_role("heading", name=run.name)).to_be_visible()
        expect(trial.get_by_role("link", name=STUDY, exact=True)).to_be_visible()  # and back
        trial.close()
    assert view.errors == []


def artifact_frame(page: Page):
    """Return the sandboxed frame in which an HTML artifact is shown."""
    frame = page.locator("iframe.mlflow-html-iframe")
    frame.wait_for()
    assert frame.get_attribute("sandbox") == "allow-scripts"
    return frame.element_handle().content_frame()


def test_the_report_is_drawn_in_the_frame_of_the_artifacts(sweep, ui, parent, view, picture):
    page = view.page
    page.goto(run_url(ui, parent, parent["info"]["run_id"], "/artifacts/report.html"))
    frame = artifact_frame(page)
    frame.wait_for_function("() => document.documentElement.dataset.charts !== undefined")
    charts = frame.evaluate("() => [...document.querySelectorAll('.chart')].map(chart => chart.id)")
    assert {"history", "curves", "timeline", "parallel"} <= set(charts)
    assert frame.evaluate("() => document.documentElement.dataset.charts") == str(len(charts))
    assert frame.evaluate("() => document.getElementById('problem').textContent") == ""
    layers = ".scatterlayer path, .barlayer path, .heatmaplayer image"
    empty = """layers => [...document.querySelectorAll('.chart')]
        .filter(c => !c.querySelector(layers)).map(c => c.id)"""
    assert frame.evaluate(empty, layers) == []
    rows = frame.evaluate(
        """() => [...document.querySelectorAll('#leaderboard tbody tr')]
            .map(r => r.cells[1].textContent)"""
    )
    assert rows[: len(sweep.ranked())] == [f"#{run.number}" for run in sweep.ranked()]
    assert len(rows) == len(sweep.runs)
    picture(page, "mlflow_report")
    assert view.errors == []


def test_errors_in_the_frame_of_the_artifacts_are_seen(sweep, ui, parent, children, view):
    """The errors that the other tests look for do arrive, even from within the sandbox."""
    pruned = next(run for run in sweep.runs if run.state == "pruned")
    artifacts = sweep.database.parent / "mlartifacts" / children[pruned.number] / "artifacts"
    page = "<script>console.error('said'); window.done = 1; null.thrown</script>"
    (artifacts / "broken.html").write_text(page, encoding="utf-8")
    view.page.goto(run_url(ui, parent, children[pruned.number], "/artifacts/broken.html"))
    artifact_frame(view.page).wait_for_function("() => window.done === 1")
    view.page.wait_for_function("() => true")  # both lines have been sent by now
    assert len([line for line in view.errors if "said" in line]) == 1
    assert len([line for line in view.errors if "thrown" in line]) >= 1


def test_the_confusion_matrix_of_a_trial_is_shown(sweep, ui, parent, children, view, picture):
    page = view.page
    best = sweep.ranked()[0]
    page.goto(run_url(ui, parent, children[best.number], "/artifacts"))
    page.get_by_text("figures", exact=True).click()
    page.get_by_text("confusion_matrix.png", exact=True).click()
    expect(page.get_by_role("heading", name=best.name)).to_be_visible()
    drawn = page.locator("img[src^='blob:']").first
    drawn.wait_for()
    page.wait_for_function("() => document.querySelector(\"img[src^='blob:']\").naturalWidth > 0")
    original = sweep.directory / str(best.number) / "figures" / "confusion_matrix.png"
    content = drawn.evaluate(
        """async image =>
            Array.from(new Uint8Array(await (await fetch(image.src)).arrayBuffer()))"""
    )
    assert bytes(content) == original.read_bytes()
    picture(page, "mlflow_confusion_matrix")
    assert view.errors == []
