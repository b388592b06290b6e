"""The views of MLflow's runs table. tests/browser opens them in MLflow's own page."""

import base64
import json
import zlib

import pytest
from mlflow.exceptions import MlflowException

from tests.tracking.test_parent import sweep  # noqa: F401
from visionsweep.tracking.ack import load_ack, page_of
from visionsweep.tracking.store import MAX_LISTED_VIEWS, Store
from visionsweep.tracking.sync import main
from visionsweep.tracking.views import ALL_RUNS, View, runs_page, view_of_sweep, view_value

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

# What MLflow 3.17.2 wrote for Views > Save as new view, with the charts open.
SAVED_KEYS = {"name", "createdAt", "updatedAt", "state"}
STATE_KEYS = {
    *("searchFilter", "orderByKey", "orderByAsc", "startTime", "lifecycleFilter"),
    *("datasetsFilter", "modelVersionFilter", "selectedColumns", "columnOrder", "columnWidths"),
    *("runsHiddenMode", "compareRunCharts", "compareRunSections", "viewMaximized"),
    *("runListHidden", "isAccordionReordered", "useGroupedValuesInCharts", "hideEmptyCharts"),
    *("groupBy", "groupsExpanded", "globalLineChartConfig"),
}
CHART = {
    "uuid": "val/loss", "type": "LINE", "runsCountToCompare": 10, "metricSectionId": "val",
    "deleted": False, "isGenerated": True, "displayName": "loss", "metricKey": "val/loss",
    "lineSmoothness": 0, "xAxisScaleType": "linear", "scaleType": "linear", "range": {},
    "xAxisKey": "step", "selectedXAxisMetricKey": "", "yAxisKey": "metric",
    "yAxisExpressions": [], "ignoreOutliers": False, "useGlobalXaxisKey": True,
    "useGlobalLineSmoothing": True,
}  # fmt: skip
SECTION_KEYS = {"uuid", "name", "display", "isReordered", "deleted", "isGenerated"}


def decoded(value):
    """Return name and state of a tag, as MLflow's page decodes it."""
    saved = json.loads(value) if value.startswith("{") else {"name": None, "state": value}
    prefix, text = saved["state"].split(";")
    assert prefix == "deflate"
    return saved["name"], json.loads(zlib.decompress(base64.b64decode(text)))


@pytest.fixture
def store(uri):
    return Store(uri)


@pytest.fixture
def tags(client):
    """Return a function: an experiment's tags, those of views alone."""

    def tags(experiment):
        found = client.get_experiment_by_name(experiment).tags
        return {key: value for key, value in found.items() if "sharedViewState" in key}

    return tags


def test_a_view_is_written_as_mlflow_writes_one():
    assert json.loads(view_value(ALL_RUNS, 5)).keys() <= SAVED_KEYS
    name, state = decoded(view_value(ALL_RUNS, 5))
    assert name == "By F1"
    assert state.keys() <= STATE_KEYS
    assert CHART in state["compareRunCharts"]
    sections = {section["name"]: section for section in state["compareRunSections"]}
    assert sections["best"].keys() == SECTION_KEYS
    assert sections["val"]["display"]
    assert not sections["best"]["display"]  # a dot per run
    assert next(iter(sections)) == "val"


def test_columns_stand_in_the_order_of_what_people_ask():
    _, state = decoded(view_value(ALL_RUNS, 5))
    assert [column.rpartition("/")[2].strip("`") for column in state["selectedColumns"]] == [
        *("f1_macro", "params.`loss", "params.`lr", "params.`optim", "params.`accumulate"),
        *("params.`epochs", "tags.`state"),
    ]
    assert state["columnOrder"][0] == "attributes.`Run Name`"
    assert state["columnOrder"][2:-1] == state["selectedColumns"]
    # What is left of 1,366 pixels beside the panel of MLflow's first visit, and of the boxes.
    assert sum(state["columnWidths"].values()) - state["columnWidths"]["duration"] <= 763 - 73


def test_a_sweep_that_minimizes_another_metric_is_sorted_by_it():
    view = view_of_sweep("s", "0123456789", "val/loss", ascending=True, params=["optim.lr", "a b"])
    name, state = decoded(view_value(view, 5))
    assert (name, view.key) == ("s", "s-012345")
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`best/loss`", True)
    assert state["selectedColumns"][:2] == ["metrics.`best/loss`", "metrics.`best/f1_macro`"]
    assert state["selectedColumns"][-1] == "params.`a b`"  # the rate is there already
    assert state["groupBy"]["aggregateFunction"] == "min"


@pytest.mark.usefixtures("plain_page")
def test_the_view_of_a_sweep_finds_its_runs_best_first(sweep, uri, client, tags):  # noqa: F811
    assert main([str(sweep), "--uri", uri]) == 0
    parent = client.get_run(load_ack(sweep, uri).run_id)
    key = f"faces-{parent.info.run_id[:6]}"
    page = f"#/experiments/{parent.info.experiment_id}/runs?viewStateShareKey={key}"
    assert (
        page_of(sweep, uri) == page_of(sweep / "1", uri) == f"{page}&workflowType=machine_learning"
    )
    assert page in parent.data.tags["mlflow.note.content"]
    stored = client.get_experiment(parent.info.experiment_id)
    name, state = decoded(tags(stored.name)[f"mlflow.sharedViewState.{key}"])
    assert name == "faces"
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    found = client.search_runs([parent.info.experiment_id], state["searchFilter"], order_by=[order])
    assert {run.info.run_id for run in found} == {
        *(load_ack(sweep / str(number), uri).run_id for number in range(4)),
        parent.info.run_id,
    }
    (by,) = state["groupBy"]["groupByKeys"]
    assert {run.data.tags[by["groupByData"]] for run in found} == {"faces"}
    assert {run.data.tags["state"] for run in found} == {"finished", "pruned", "failed"}


def test_the_page_of_a_single_run_is_the_view_of_all(make_run, uri, tags, capsys):
    _, run_dir = make_run()
    assert page_of(run_dir, uri) is None
    assert main([str(run_dir), "--uri", uri]) == 0
    page = page_of(run_dir, uri)
    assert page.endswith("/runs?viewStateShareKey=visionsweep&workflowType=machine_learning")
    assert f"then open: http://127.0.0.1:5000/{page}" in capsys.readouterr().out
    assert decoded(tags("tests")["mlflow.sharedViewState.visionsweep"])[0] == "By F1"


def test_a_view_is_stored_once(store, tags, monkeypatch):
    page = store.store_view("views", ALL_RUNS)
    before = tags("views")
    monkeypatch.setattr(store.client, "set_experiment_tag", lambda *_: pytest.fail("again"))
    assert store.store_view("views", ALL_RUNS) == page
    assert tags("views") == before


def test_the_menu_of_views_keeps_room_for_the_users_own(store, tags):
    views = [View(f"sweep-{number}", "name") for number in range(MAX_LISTED_VIEWS + 2)]
    pages = [store.store_view("menu", view) for view in views]
    assert all(
        f"viewStateShareKey={view.key}&" in page for view, page in zip(views, pages, strict=True)
    )
    names = [decoded(tags("menu")[view.tag_key])[0] for view in views]
    assert names == ["name"] * MAX_LISTED_VIEWS + [None] * 2
    store.store_view("menu", views[0])
    assert decoded(tags("menu")[views[0].tag_key])[0] == "name"


def test_a_store_that_takes_no_view_shows_the_plain_table(store, monkeypatch):
    def refuse(*_):
        raise MlflowException.invalid_parameter_value("too long")

    experiment_id = store.experiment_id("plain")
    monkeypatch.setattr(store.client, "set_experiment_tag", refuse)
    page = store.store_view("plain", ALL_RUNS)
    assert (
        page
        == runs_page(experiment_id)
        == (f"#/experiments/{experiment_id}/runs?workflowType=machine_learning")
    )


def test_a_store_that_fails_is_asked_again_later(store, monkeypatch):
    def fail(*_):
        raise MlflowException("database is locked")

    monkeypatch.setattr(store.client, "set_experiment_tag", fail)
    with pytest.raises(MlflowException, match="locked"):
        store.store_view("fails", ALL_RUNS)
