"""The views of MLflow's runs table that our links open: columns, order, groups, charts.

MLflow keeps a view as an experiment tag, `mlflow.sharedViewState.KEY`, and opens it with
`#/experiments/ID/runs?viewStateShareKey=KEY`; the menu *Views* lists those with a name. The format
is what *Views > Save as new view* of MLflow 3.17 writes: JSON with a name and the state of the
page, compressed (zlib, base64, after `deflate;`) since a tag has a maximum length. A version
that cannot read it shows its plain table.

*Group by* nests the runs of a sweep below a row of its own. Child runs would not do: a view folds
out its groups only, and MLflow does not nest runs that are sorted by a metric.
"""

import base64
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from visionsweep.tracking.entities import safe_key

KEY_PREFIX = "mlflow.sharedViewState."
SWEEP_NAME_TAG = "visionsweep.sweep"
SWEEP_RUN_TAG = "visionsweep.sweep_run"  # the id of the sweep's own run: names may be used twice
F1 = "best/f1_macro"

# Which fit beside the panel that MLflow opens at the first visit, at 1,366 pixels. Of the time only
# the icon of the status is visible; the name of a single run has the time.
_NAME, _STATUS, _DURATION = "attributes.`Run Name`", "runDateAndNestInfo", "duration"
_METRIC_WIDTH, _OTHER_WIDTH = 80, 100
_WIDTHS = {"loss": 80, "lr": 76, "optim": 66, "accumulate": 80, "epochs": 58}  # parameters
_SHOWN_AS = {"loss", "optim", "optim.lr", "trainer.accumulate", "trainer.epochs"}  # the same
_STATE_WIDTH = 68

_FIRST_CHARTS = ("val/f1_macro", "val/loss", "train/loss")
_SECTIONS = ("val", "train", "val/f1_class", "trials", "best", "final", "test")
_FOLDED = ("best", "final", "test")  # metrics that appear once: a dot each


@dataclass(frozen=True)
class View:
    """What is shown. ``name`` is that in the menu; None leaves the view out of it.

    ``metrics`` are the first columns, and the first of them sorts the runs. ``params`` are columns
    after those that every view has. ``sweep_run`` is the MLflow run of the sweep whose runs alone
    are shown.
    """

    key: str
    name: str | None
    metrics: tuple[str, ...] = (F1,)
    ascending: bool = False
    params: tuple[str, ...] = ()
    sweep_run: str | None = None

    @property
    def tag_key(self) -> str:
        """The experiment's tag that holds the view."""
        return f"{KEY_PREFIX}{self.key}"


ALL_RUNS = View("visionsweep", "By F1")


def view_of_sweep(
    name: str, run_id: str, metric: str, *, ascending: bool, params: Iterable[str]
) -> View:
    """Return the view of a sweep's runs; ``run_id`` is its own run, ``metric`` its objective.

    ``params`` are what it searches. Two sweeps of one name have different keys.
    """
    objective = safe_key(f"best/{metric.removeprefix('val/')}")
    metrics = dict.fromkeys([objective, F1])
    others = [safe_key(key) for key in params if key not in _SHOWN_AS]
    key = f"{safe_key(name)}-{run_id[:6]}"
    return View(key, name, tuple(metrics), ascending, tuple(others), run_id)


def view_value(view: View, created_ms: int) -> str:
    """Return the value of the tag; the same for the same view."""
    state = json.dumps(_state(view), separators=(",", ":")).encode()
    text = "deflate;" + base64.b64encode(zlib.compress(state, 9)).decode()
    if view.name is None:
        return text
    saved = {"name": view.name, "createdAt": created_ms, "state": text}
    return json.dumps(saved, separators=(",", ":"), ensure_ascii=False)


def is_listed(key: str, value: str) -> bool:
    """Return whether a tag of an experiment is a view in the menu, which holds 40."""
    return key.startswith(KEY_PREFIX) and value.startswith("{")


def runs_page(experiment_id: str, key: str | None = None) -> str:
    """Return the address of the runs table, relative to the server; in a view if ``key`` is given.

    Without the workflow type, MLflow 3 opens its menu for prompts.
    """
    view = "" if key is None else f"viewStateShareKey={key}&"
    return f"#/experiments/{experiment_id}/runs?{view}workflowType=machine_learning"


def _state(view: View) -> dict[str, Any]:
    columns = _columns(view)
    by_sweep = {"mode": "tag", "groupByData": SWEEP_NAME_TAG}
    sweep = "" if view.sweep_run is None else f"tags.`{SWEEP_RUN_TAG}` = '{view.sweep_run}'"
    return {
        "searchFilter": sweep,
        "orderByKey": f"metrics.`{view.metrics[0]}`",
        "orderByAsc": view.ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [name for name in columns if name not in (_NAME, _STATUS, _DURATION)],
        "columnOrder": list(columns),
        "columnWidths": columns,
        "groupBy": {
            "aggregateFunction": "min" if view.ascending else "max",
            "groupByKeys": [by_sweep],
        },
        "groupsExpanded": {f"tag.{SWEEP_NAME_TAG}": True},  # runs of no sweep; sweeps are anyway
        "useGroupedValuesInCharts": False,
        "compareRunCharts": [_chart(metric) for metric in _FIRST_CHARTS],  # MLflow adds the others
        "compareRunSections": [_section(name) for name in _SECTIONS],
        "isAccordionReordered": True,
    }


def _columns(view: View) -> dict[str, int]:
    """Return the width of each column in pixels, from left to right."""
    return {
        _NAME: 138,
        _STATUS: 44,
        **{f"metrics.`{name}`": _METRIC_WIDTH for name in view.metrics},
        **{f"params.`{name}`": width for name, width in _WIDTHS.items()},
        "tags.`state`": _STATE_WIDTH,
        **_extra(view.params),
        _DURATION: 80,
    }


def _extra(params: Iterable[str]) -> dict[str, int]:
    return {f"params.`{name}`": _OTHER_WIDTH for name in params if "`" not in name}


def _section(name: str) -> dict[str, Any]:
    flags = {"isReordered": True, "deleted": False, "isGenerated": True}
    return {"uuid": name, "name": name, "display": name not in _FOLDED, **flags}


def _chart(metric: str) -> dict[str, Any]:
    section, _, name = metric.rpartition("/")
    return {
        "uuid": metric,
        "type": "LINE",
        "runsCountToCompare": 10,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": True,
        "displayName": name,
        "metricKey": metric,
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
