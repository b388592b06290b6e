import io
import json
import math
import random
import re
import warnings

import optuna
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from visionsweep.report.sweep.charts import make_charts
from visionsweep.report.sweep.importances import importances, num_best, num_judged
from visionsweep.report.sweep.leaderboard import (
    description_markdown,
    leaderboard_rows,
    leaderboard_table,
)
from visionsweep.report.sweep.record import SweepRecord, SweptTrial
from visionsweep.report.sweep.winner import summarize
from visionsweep.text import short_value

LR = {"type": "float", "low": 1e-4, "high": 1e-1, "log": True, "step": None}
SPACE = {
    "loss": {"choices": ["focal", "poly"]},
    "loss.gamma": {
        "type": "float",
        "low": 0.5,
        "high": 5.0,
        "log": False,
        "step": None,
        "when": ["loss=focal"],
    },
    "optim.lr": LR,
    "model.hidden": {"type": "int", "low": 1, "high": 64, "log": False, "step": 1},
}
DISTRIBUTIONS = {
    "loss": optuna.distributions.CategoricalDistribution(["focal", "poly"]),
    "loss.gamma": optuna.distributions.FloatDistribution(0.5, 5.0),
    "optim.lr": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True),
    "model.hidden": optuna.distributions.IntDistribution(1, 64),
}


def trial(number, state="complete", value=0.5, params=None, **changes):
    values = () if value is None else (value,)
    known = {
        "values": values,
        "start": 100.0,
        "end": 200.0,
        "epochs": 10,
        "directory": str(number),
    } | changes
    return SweptTrial(number=number, state=state, params=params or {}, **known)


def sweep(*trials, space=SPACE, direction="maximize", **changes):
    return SweepRecord("faces", ("val/f1_macro",), (direction,), space, trials, **changes)


def random_trials(count, seed=0, num_pruned=0):
    """Return trials in which the learning rate decides; `num_pruned` have a poor one."""
    rng = random.Random(seed)
    trials = []
    for number in range(count + num_pruned):
        params = {"loss": rng.choice(["focal", "poly"]), "optim.lr": 10 ** rng.uniform(-4, -1)}
        if params["loss"] == "focal":
            params["loss.gamma"] = rng.uniform(0.5, 5.0)
        params["model.hidden"] = rng.randint(1, 64)
        is_pruned = number >= count
        if is_pruned:
            params["optim.lr"] = 10 ** rng.uniform(-1.6, -1)
        value = 0.9 - 0.1 * abs(math.log10(params["optim.lr"]) + 2.5) + rng.gauss(0, 0.002)
        trials.append(trial(number, "pruned" if is_pruned else "complete", value, params))
    return trials


def direct_importances(trials, direction, best, keys):
    """Ask Optuna itself; pruned trials are as bad as the worst complete one."""
    sign = -1 if direction == "maximize" else 1
    worst = max(
        (t.values[0] for t in trials if t.state == "complete"), key=lambda value: sign * value
    )
    study = optuna.create_study(direction=direction)
    for t in trials:
        value = t.values[0] if t.state == "complete" else worst
        used = {key: DISTRIBUTIONS[key] for key in t.params}
        study.add_trial(optuna.trial.create_trial(params=t.params, distributions=used, value=value))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(
        target_quantile=(best - 0.5) / len(trials)
    )
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: found[key] / sum(found[k] for k in keys) for key in keys}


@pytest.fixture(autouse=True)
def quiet():
    """Optuna says for each study that it was created."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)


# -- parameters that move together

ZIPPED = {
    "size": {"choices": [16, 16, 32, 64], "with": ["optim.lr"]},
    "optim.lr": {"choices": [0.1, 0.2, 0.2, 0.1], "with": ["size"]},
    "wd": {"type": "float", "low": 0.0, "high": 1.0, "log": False, "step": None},
}


def zipped_trials(count=200):
    """Return trials of which only (16, 0.2) and (64, 0.1) are good: no key alone says so."""
    rng = random.Random(0)
    rows = list(zip(*(ZIPPED[key]["choices"] for key in ("size", "optim.lr")), strict=True))
    found = []
    for number in range(count):
        row = rows[number % 4]
        value = 0.9 - 0.2 * (row not in [(16, 0.2), (64, 0.1)]) + rng.gauss(0, 0.001)
        params = dict(zip(("size", "optim.lr"), row, strict=True)) | {"wd": rng.random()}
        found.append(trial(number, value=value, params=params))
    return found


def test_parameters_that_move_together_are_judged_as_one():
    trials = zipped_trials()
    found = importances(sweep(*trials, space=ZIPPED))
    position = optuna.distributions.CategoricalDistribution(
        ["16/0.1", "16/0.2", "32/0.2", "64/0.1"]
    )
    study = optuna.create_study(direction="maximize")
    for t in trials:
        params = {"both": f"{t.params['size']}/{t.params['optim.lr']}", "wd": t.params["wd"]}
        known = {"both": position, "wd": optuna.distributions.FloatDistribution(0.0, 1.0)}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=known, value=t.values[0])
        )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=19.5 / 200)
    wanted = optuna.importance.get_param_importances(study, evaluator=evaluator)
    total = sum(wanted.values())
    assert found == pytest.approx({"size": wanted["both"] / total, "wd": wanted["wd"] / total})


def test_the_page_says_which_parameters_move_together():
    record = sweep(*zipped_trials(), space=ZIPPED)
    text = description_markdown(record, {})
    assert "`size` with optim.lr mattered most" in text
    assert "16 | 16 | 32 | 64 (with optim.lr)" in text.replace("\\", "")
    charts = make_charts(summarize(record))
    [note] = [chart.note for chart in charts if chart.id == "importances"]
    assert "size stands for optim.lr too, which move with it." in note
    assert "Not judged" not in note
    assert {"size", "optim.lr", "wd"} <= {chart.title for chart in charts}


# -- rows and table


def test_rows_are_the_ranks_then_the_others():
    record = sweep(
        trial(0, "failed", None),
        trial(1, "pruned", 0.3),
        trial(2, value=0.8, seed_std=0.01, params={"loss": "poly"}),
        trial(3, "pruned", 0.6),
        trial(4, "running", None, end=None),
        trial(5, value=0.9),
        trial(6, value=math.nan),
    )
    rows = leaderboard_rows(record)
    assert [(row.rank, row.number) for row in rows] == [
        *[(1, 5), (2, 2)],
        *[(None, 6), (None, 4), (None, 3), (None, 1), (None, 0)],
    ]
    assert [row.number for row in leaderboard_rows(record, limit=2)] == [5, 2]
    second = rows[1]
    assert (second.values, second.seed_std, second.params) == ((0.8,), 0.01, {"loss": "poly"})
    assert (second.seconds, second.epochs, second.state) == (100.0, 10, "complete")
    assert rows[3].seconds is None


def test_the_table_is_what_pandas_and_mlflow_read():
    odd = {"loss": "größe|<b>", "optim.lr": 0.001, "model.hidden": 3}
    record = sweep(
        trial(0, value=0.7, params=odd),
        trial(1, "pruned", math.nan),
        trial(2, "failed", None, error="no"),
    )
    table = leaderboard_table(record, {0: "http://x/0"})
    text = json.dumps(table, allow_nan=False)  # NaN is no JSON
    frame = pd.read_json(io.StringIO(text), orient="split")
    assert list(frame["trial"]) == [0, 1, 2]
    assert frame.loc[0, ["rank", "loss", "link", "seconds"]].tolist() == [
        1,
        "größe|<b>",
        "http://x/0",
        100,
    ]
    assert frame.loc[0, ["val/f1_macro", "optim.lr"]].tolist() == pytest.approx([0.7, 0.001])
    assert frame.loc[1, ["rank", "val/f1_macro", "loss", "link"]].isna().all()
    assert frame.loc[2, "error"] == "no"
    assert "seed_std" not in frame


def test_a_parameter_may_be_called_like_a_column():
    record = sweep(
        trial(0, params={"state": 5, "epochs": 7}), space={"state": {"choices": [5]}, "epochs": LR}
    )
    table = leaderboard_table(record, {})
    row = dict(zip(table["columns"], table["data"][0], strict=True))
    assert (row["state"], row["params.state"], row["epochs"], row["params.epochs"]) == (
        "complete",
        5,
        10,
        7,
    )


# -- importances


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_importances_are_those_of_optuna(direction):
    trials = random_trials(100, num_pruned=50)
    record = sweep(*trials, direction=direction)
    found = importances(record)
    assert (num_best(record), num_judged(record)) == (15, 150)  # a tenth of all
    assert found == pytest.approx(direct_importances(trials, direction, 15, list(SPACE)))
    assert sum(found.values()) == pytest.approx(1.0)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    if direction == "maximize":
        assert next(iter(found)) == "optim.lr"
        assert found["optim.lr"] > 0.5


def test_pruned_trials_say_what_had_them_pruned():
    """With a learning rate that pruning always ended, the complete ones alone show less of it."""
    complete = [
        trial(i, value=0.9 + 0.001 * (i % 7), params={"optim.lr": 0.001, "model.hidden": 1 + i})
        for i in range(20)
    ]
    pruned = [
        trial(20 + i, "pruned", 0.2, {"optim.lr": 0.05, "model.hidden": 1 + i}) for i in range(40)
    ]
    assert importances(sweep(*complete, *pruned))["optim.lr"] > 0.8


def test_too_little_to_tell():
    trials = random_trials(8)
    assert importances(sweep(*trials))
    assert importances(sweep(*trials[:7])) == {}
    assert (
        importances(sweep(*[trial(i, value=0.5, params=t.params) for i, t in enumerate(trials)]))
        == {}
    )
    fixed = [trial(i, value=i / 10, params={"optim.lr": 0.01}) for i in range(9)]
    assert importances(sweep(*fixed, space={"optim.lr": {"choices": [0.01]}})) == {}
    assert importances(sweep()) == {}


def test_duplicates_count_once():
    trials = random_trials(12)
    copies = [trial(12 + i, value=0.99, params=trials[0].params, duplicate_of=0) for i in range(20)]
    assert importances(sweep(*trials, *copies)) == importances(sweep(*trials))


def test_a_conditional_parameter_that_one_good_trial_has_is_not_judged():
    trials = [
        trial(
            i,
            value=0.5 + 0.01 * i,
            params={"loss": "poly", "optim.lr": 0.0001 * (i + 1), "model.hidden": 1 + i % 5},
        )
        for i in range(30)
    ]
    for i in (3, 9, 12, 29):  # the last one is the best
        focal = {"loss": "focal", "loss.gamma": 1.0 + i / 10}
        trials[i] = trial(i, value=trials[i].value, params=trials[i].params | focal)
    assert "loss.gamma" in direct_importances(
        trials, "maximize", 5, list(SPACE)
    )  # Optuna does give it a share
    found = importances(sweep(*trials))
    assert set(found) == {"loss", "optim.lr", "model.hidden"}
    assert sum(found.values()) == pytest.approx(1.0)


def test_values_outside_of_the_space_are_left_out():
    trials = random_trials(30)
    trials[0] = trial(
        0, value=trials[0].value, params=trials[0].params | {"optim.lr": 7.0, "loss": "gone"}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(importances(sweep(*trials))) >= {"optim.lr", "loss"}


# -- description


def tokens(text):
    return MarkdownIt("commonmark").enable("table").parse(text)


GAP = "\u2003"  # MLflow sets the cells of a table without one


def table_cells(text):
    """Return the rendered text of every table: a list of rows of cells."""
    tables, row = [], None
    for token in tokens(text):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            row = []
            tables[-1].append(row)
        elif token.type == "table_close":
            row = None
        elif token.type == "inline" and row is not None:
            cell = "".join(child.content for child in token.children)
            assert cell.endswith(GAP)
            row.append(cell.removesuffix(GAP))
    return tables


def plain(text):
    """Return the text that a reader sees."""
    return " ".join(
        "".join(child.content for child in token.children)
        for token in tokens(text)
        if token.type == "inline"
    )


def test_who_won_and_why():
    trials = random_trials(40, num_pruned=10)
    winner = max(trials[:40], key=lambda t: t.values[0])
    record = sweep(*trials, run_epochs=12)
    text = description_markdown(
        record, {winner.number: "http://host:5000/#/experiments/1/runs/a_(b)"}
    )
    seen = plain(text)
    lr = short_value(winner.params["optim.lr"])
    assert seen.startswith(
        f"#{winner.number} won: val/f1_macro {winner.values[0]:.4f} with optim.lr={lr}"
    )
    share = 100 * direct_importances(trials, "maximize", 5, list(importances(record)))["optim.lr"]
    assert f"optim.lr mattered most: {share:.0f} % of the importance" in seen
    assert (
        "50 trials: 40 complete, 10 pruned; 500 epochs trained, 20 saved by pruning (4 %)" in seen
    )
    best = sorted(trials[:40], key=lambda t: -t.values[0])[:10]
    rows = table_cells(text)[0]
    assert [row[:3] for row in rows[1:]] == [
        [str(i + 1), f"#{t.number}", f"{t.values[0]:.4f}"] for i, t in enumerate(best)
    ]
    links = [
        c.attrs["href"]
        for t in tokens(text)
        if t.type == "inline"
        for c in t.children
        if c.type == "link_open"
    ]
    assert links == ["http://host:5000/#/experiments/1/runs/a_%28b%29"]


def test_winner_and_runner_up():
    first = {"loss": "focal", "loss.gamma": 2.0, "optim.lr": 0.01, "model.hidden": 8}
    second = {"loss": "poly", "optim.lr": 0.01, "model.hidden": 16}
    trials = [trial(0, value=0.9, params=first), trial(1, value=0.9, params=first, duplicate_of=0)]
    text = description_markdown(sweep(*trials, trial(2, value=0.88, params=second)), {})
    assert "#2 is second with 0.8800, 0.02 behind." in plain(text)
    assert [row[1] for row in table_cells(text)[0][1:]] == ["#0", "#2"]
    compared = next(table for table in table_cells(text) if table[0] == ["parameter", "#0", "#2"])
    assert compared[1:] == [
        ["loss", "focal", "poly"],
        ["loss.gamma", "2", "-"],
        ["model.hidden", "8", "16"],
    ]
    spread = [
        trial(0, value=0.9, params=first, seed_std=0.03, seed_values=(0.87, 0.93, 0.90)),
        trial(2, value=0.88, params=second, seed_std=0.03, seed_values=(0.91, 0.88, 0.85)),
    ]
    seen = plain(description_markdown(sweep(*spread, num_seeds=3), {}))
    assert "0.9000 ± 0.03 (3 seeds)" in seen
    # The differences are -0.04, 0.05 and 0.05; their standard deviation is sqrt(2) times the noise.
    assert "less than the noise between seeds (0.037): maybe chance" in seen
    assert "Noise between seeds: 0.037 (of 2 trials with several)." in seen


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([], "No trial has started yet."),
        ([trial(0, "running", None)], "No trial is complete yet."),
        ([trial(0, "failed", None)], "No trial completed, so none won."),
        ([trial(0), trial(1, "running", None)], "#0 leads so far"),
        ([trial(0), trial(1, "running", None)], "The sweep is not over: 1 trial running."),
        ([trial(0)], "Too few trials to tell which parameter mattered (1 complete, 8 are needed)."),
    ],
)
def test_what_is_said_of_a_young_sweep(trials, expected):
    assert expected in plain(description_markdown(sweep(*trials), {}))


def test_several_objectives():
    trials = [
        trial(0, values=(0.9, 12345.0)),
        trial(1, values=(0.8, 5.0)),
        trial(2, values=(0.7, 20000.0)),
    ]
    record = SweepRecord(
        "s", ("val/f1_macro", "num_parameters"), ("maximize", "minimize"), SPACE, trials
    )
    text = description_markdown(record, {})
    assert "num_parameters 12345. 2 trials are Pareto-optimal" in plain(text)
    assert [row[1:4] for row in table_cells(text)[0]] == [
        ["trial", "val/f1_macro", "num_parameters"],
        *[["#0", "0.9000", "12345"], ["#1", "0.8000", "5.0000"], ["#2", "0.7000", "20000"]],
    ]


ODD = [
    "a|b",
    "*x* _y_",
    "`tick`",
    "[a](http://b)",
    "<script>alert(1)</script>",
    "größe 日本",
    "~~z~~",
    "a\nb",
    "x\\",
    "&lt;",
    "``",
]


@pytest.mark.parametrize("odd", ODD)
def test_odd_names_and_values_are_seen_as_they_are(odd):
    record = sweep(trial(0, params={f"p{odd}": odd}), space={f"p{odd}": {"choices": [odd]}})
    text = description_markdown(record, {})
    shown = odd.replace("\n", " ")
    board, space = table_cells(text)
    assert len(board[1]) == len(board[0]) == 6
    assert (board[0][3], board[1][3]) == (f"p{shown}", shown)
    assert space[1] == [f"p{shown}", shown]
    assert "<script" not in re.sub("`.*`", "", text)
    assert f"p{shown}={shown}" in plain(text)


def test_the_description_always_fits():
    rng = random.Random(0)
    for num_params, width, num_trials in (
        (3, 10, 100),
        (40, 60, 50),
        (150, 250, 12),
        (1, 6000, 12),
    ):
        keys = [f"{'größe.' * (width // 6)}{i}" for i in range(num_params)]
        space = {key: {"choices": [f"{'|' * width}{j}" for j in range(40)]} for key in keys}
        trials = [
            trial(
                i,
                value=rng.random(),
                params={key: rng.choice(space[key]["choices"]) for key in keys},
            )
            for i in range(num_trials)
        ]
        links = {i: f"http://host/{'x' * 300}/{i}" for i in range(num_trials)}
        text = description_markdown(sweep(*trials, space=space), links)
        assert len(text) <= 8000
        assert "won" in text
        best = max(trials, key=lambda t: t.values[0])
        assert f"#{best.number} won" in plain(text)
        if num_params > 8:
            assert re.search(r"Shown: .*of \d+ parameters|more", plain(text))
