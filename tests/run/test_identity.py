"""The name of a run, and the parameters that it records."""

from pathlib import Path
from typing import Any

import pytest

from visionsweep.config.schema import Config
from visionsweep.run.context import RunContext, typed_values
from visionsweep.run.identity import run_params, run_title, score_text
from visionsweep.sweep.trial import NoTrial


def make_context(place: str, searched: dict[str, str] | None = None, lr: Any = 3e-4) -> RunContext:
    return RunContext(
        run_dir=Path("/home/ada") / place,
        config=Config(study="faces", optim={"lr": lr}),
        stored={},
        trial=NoTrial(),
        first_start=None,
        choices={"model": "cnn", "loss": "focal", "optim": "adamp"},
        overrides=[],
        searched=searched or {},
    )


@pytest.mark.parametrize(
    ("directory", "place", "end"),
    [
        ("multirun/faces/17", "17", "#017"),
        ("multirun/faces/7/seed_2", "7/seed_2", "#007 seed 2"),
        ("multirun/faces/1234", "1234", "#1234"),
        ("outputs/2026-11-25_04-35-36-123456", None, "11-25 04:35"),
    ],
)
def test_a_name_ends_with_the_place_of_the_run(directory: str, place: str | None, end: str) -> None:
    context = make_context(directory)
    assert context.place == place
    assert run_title(context) == f"focal adamp lr=0.0003 {end}"
    assert run_title(context, "0.913") == f"0.913 focal adamp lr=0.0003 {end}"


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        ("outputs/first", "first"),
        ("outputs/faces", "faces"),
        ("multirun/other/17", "17"),  # a copy of a trial, resumed as a single run
    ],
)
def test_a_name_that_was_chosen_comes_right_after_the_score(directory: str, name: str) -> None:
    context = make_context(directory)
    assert run_title(context) == f"{name} focal adamp lr=0.0003"
    assert run_title(context, "0.913 pruned") == f"0.913 pruned {name} focal adamp lr=0.0003"


@pytest.mark.parametrize(
    ("searched", "words"),
    [
        ({"trainer.accumulate": "4"}, "focal adamp lr=0.0003 accumulate=4"),
        ({"loss.gamma": "2.5", "optim.lr": "3e-4"}, "focal adamp lr=0.0003 gamma=2.5"),
        ({"loss.gamma": "2.123456"}, "focal adamp lr=0.0003 gamma=2.12"),
        ({"model": "timm", "seed": "3"}, "focal adamp lr=0.0003 timm"),
        ({"data.note": "x" * 30}, "focal adamp lr=0.0003 note=xxxxxxxxxxx...xxxxxxxxxx"),
    ],
)
def test_a_name_has_what_was_searched(searched: dict[str, str], words: str) -> None:
    assert run_title(make_context("multirun/faces/0", searched)) == f"{words} #000"


@pytest.mark.parametrize(
    ("metric", "text"),
    [("val/f1_macro", "0.913"), ("val/loss", "loss=0.913"), ("val/f1_class/dog", "dog=0.913")],
)
def test_a_score_other_than_f1_is_named(metric: str, text: str) -> None:
    assert score_text(metric, 0.9126) == text


def test_the_columns_of_the_table_have_short_names() -> None:
    context = make_context("outputs/first")
    context.stored.update(
        {"optim": {"lr": 0.002741850438758386}, "trainer": {"epochs": 20, "accumulate": 4}}
    )
    params = run_params(context)
    shown = {key: params[key] for key in ("loss", "lr", "optim", "accumulate", "epochs")}
    expected = {"loss": "focal", "lr": "0.00274", "optim": "adamp", "accumulate": "4"}
    assert shown == expected | {"epochs": "20"}
    assert params["optim.lr"] == 0.002741850438758386  # in full under its own name


def test_an_optimizer_without_a_learning_rate_has_none_in_the_table() -> None:
    assert "lr" not in run_params(make_context("outputs/first", lr=None))


def test_values_are_those_that_were_typed() -> None:
    overrides = ["loss=focal", "+loss.gamma='2'", "optim.lr=0.1", "name=a"]
    values = typed_values(["optim.lr", "loss.gamma", "missing"], overrides)
    assert list(values.items()) == [("optim.lr", "0.1"), ("loss.gamma", "2")]
