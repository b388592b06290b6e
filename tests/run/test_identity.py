"""What a run is called."""

from pathlib import Path

import pytest

from visionsweep.run.identity import ordered_values, run_title, score_text, trial_place

CHOICES = {"model": "cnn", "loss": "focal", "optim": "adamp"}
CONFIG = {"study": "faces", "optim": {"lr": 3e-4}}


@pytest.mark.parametrize(
    ("place", "title"),
    [
        ("multirun/faces/17", "#017 focal adamp lr=3e-4"),
        ("multirun/faces/7/seed_2", "#007 seed 2 focal adamp lr=3e-4"),
        ("multirun/faces/1234", "#1234 focal adamp lr=3e-4"),
        ("outputs/first", "first focal adamp lr=3e-4"),
        ("outputs/2026-11-25_04-35-36-123456", "11-25 04:35 focal adamp lr=3e-4"),
        (
            "multirun/other/17",
            "17 focal adamp lr=3e-4",
        ),  # a copy of a trial, resumed as a run of its own
    ],
)
def test_the_name_says_where_the_run_stands(place: str, title: str) -> None:
    assert run_title(CONFIG, Path("/home/ada") / place, CHOICES, {}) == title


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"trainer.accumulate": "4"}, "focal adamp lr=3e-4 accumulate=4"),
        ({"loss.gamma": "2.5", "optim.lr": "0.0003"}, "focal adamp lr=3e-4 gamma=2.5"),
        ({"model": "timm", "seed": "3"}, "focal adamp lr=3e-4 timm"),
        (
            {"data.note": "größer als die Gewöhnlichen"},
            "focal adamp lr=3e-4 note=größer als die Gewöhn...",
        ),
    ],
)
def test_the_name_says_what_was_searched(values: dict[str, object], words: str) -> None:
    assert run_title(CONFIG, Path("/home/ada/multirun/faces/0"), CHOICES, values) == f"#000 {words}"


@pytest.mark.parametrize(
    ("lr", "text"),
    [
        (0.1, "0.1"),
        (0.0312345, "0.0312"),
        (0.0031, "3.1e-3"),
        (1e-5, "1e-5"),
        (1, "1"),
        (25000.0, "2.5e4"),
    ],
)
def test_numbers_are_short(lr: float, text: str) -> None:
    config = {"study": "faces", "optim": {"lr": lr}}
    assert run_title(config, Path("/home/ada/multirun/faces/0"), CHOICES, {}).endswith(
        f" lr={text}"
    )


@pytest.mark.parametrize(
    ("metric", "text"),
    [("val/f1_macro", "f1=0.913"), ("val/loss", "loss=0.913"), ("val/f1_class/dog", "dog=0.913")],
)
def test_the_score_is_named(metric: str, text: str) -> None:
    assert score_text(metric, 0.9126) == text


def test_values_are_those_that_were_typed() -> None:
    overrides = ["loss=focal", "+loss.gamma='2'", "optim.lr=0.1", "name=a"]
    assert ordered_values(["optim.lr", "loss.gamma", "missing"], overrides) == {
        "optim.lr": "0.1",
        "loss.gamma": "2",
    }


def test_a_runs_place_in_its_sweep() -> None:
    assert trial_place(CONFIG, Path("/home/ada/multirun/faces/3")) == "3"
    assert trial_place(CONFIG, Path("/home/ada/multirun/faces/3/seed_1")) == "3/seed_1"
    assert trial_place(CONFIG, Path("/home/ada/outputs/faces")) is None
