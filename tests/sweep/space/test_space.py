"""A search space: given parameters, its description, and how two spaces are compared."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.distributions import distribution_to_json, json_to_distribution

from tests.sweep.space.spaces import CONDITIONAL, SOME, conditional, trials, typed
from visionsweep.errors import ConfigError
from visionsweep.sweep.space.space import parse_space


@pytest.mark.parametrize(
    ("space", "value", "expected"),
    [
        ("1,2", 1, 1),
        ("1,2", "2", 2),
        ("1,2.5", 2.5, 2.5),
        ("'1',2", 1, "'1'"),
        ("1,'1'", 1, 1),
        ("1,'1'", "'1'", "'1'"),
        ("1,'1'", "1", "'1'"),
        ("true,1", True, "true"),
        ("true,1", 1, "1"),
        ("true,false", "false", False),
        ("0.01,0.1", "1e-2", 0.01),
        ("null,a", None, "null"),
        ("null,a", "null", "null"),
        ("'a b',c", "a b", "'a b'"),
        ("a,'a'", "'a'", "'a'"),
        ("1,1.0", 1.0, "1.0"),
        ("nan,1", float("nan"), float("nan")),
        ("'a b',c", "'a b'", "'a b'"),
        ("a\\,b,c", "a,b", "a\\,b"),
        ("[1,x],[2]", [1, "x"], "[1,x]"),
        ("focal,f1", "f1", "f1"),
        ("range(1,9,2)", 3, 3),
        ("range(1,9,2)", "3", 3),
        ("range(1,9,2)", 3.0, 3),
        ("range(0,1,0.1)", 0.30000000000000004, 0.30000000000000004),
        ("interval(0,1)", 1, 1.0),
        ("tag(log,interval(1e-5,1))", "1e-4", 1e-4),
    ],
)
def test_given_values_are_converted(space: str, value: Any, expected: Any) -> None:
    given = OmegaConf.create({"x": value}) if isinstance(value, list) else {"x": value}
    found = parse_space({"x": space}, None, []).check_params(given, "hydra.sweeper.enqueue[0]")
    assert typed(found["x"]) == typed(expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"losss": "focal"}, "losss is not searched; did you mean loss\\?$"),
        ({"loss": "focla"}, "loss=focla: expected one of focal, ce, poly; did you mean focal\\?$"),
        ({"n": 2}, "n=2: expected 0 .. 1, integers"),
        ({"n": 0.5}, "n=0.5: expected"),
        ({"n": True}, "n=True: expected"),
        ({"n": None}, "n=None: expected"),
        ({"lr": 1.5}, "lr=1.5: expected log 0.001 .. 1"),
        ({"lr": float("nan")}, "lr=nan: expected"),
        ({"lr": "fast"}, "lr=fast: expected"),
        ({"odd": 4}, "odd=4: expected 1 .. 7 in steps of 2"),
        ({"tenth": 0.25}, "tenth=0.25: expected 0 .. 0.9 in steps of 0.1"),
        (
            {"loss": "ce", "loss.gamma": 1},
            "loss.gamma=1 is active only when loss=focal,poly; give both",
        ),
        ({"loss.gamma": 1}, "loss.gamma=1 is active only when loss=focal,poly"),
        ({"flag": 1}, "flag=1: expected one of True, False"),
        ({"seed": 2}, "seed=2, but seed=1 is fixed"),
    ],
)
def test_bad_given_values_are_refused(given: dict[str, Any], message: str) -> None:
    more = {
        "lr": "tag(log,interval(0.001,1))",
        "odd": "range(1,9,2)",
        "tenth": "range(0,1,0.1)",
        "seed": 1,
        "flag": "true,false",
    }
    space = parse_space({**CONDITIONAL, **more}, None, [])
    with pytest.raises(ConfigError, match=f"^here: {message}"):
        space.check_params(given, "here")


def test_given_parameters_may_be_few() -> None:
    space = parse_space({**CONDITIONAL, "seed": 1}, None, [])
    given = {"n": 1, "loss.gamma": "2", "loss": "poly", "seed": "1"}
    assert list(space.check_params(given, "here").items()) == [
        ("loss", "poly"),
        ("loss.gamma", 2),
        ("n", 1),
    ]
    assert space.check_params({}, "here") == {}


@given(st.integers(0, 10**6))
@SOME
def test_drawn_parameters_are_accepted(seed: int) -> None:
    space = parse_space(
        {**CONDITIONAL, "a": "range(0,1,0.1)", "b": "'x y',null,[1]", "c": "interval(0,1)"},
        None,
        [],
    )
    params = space.suggest(trials(1, seed)[0])
    assert space.check_params(params, "here") == params


def test_describe() -> None:
    space = parse_space(
        {
            "optim.lr": "tag(log,interval(1e-4,0.1))",
            "loss": "focal,f1",
            "loss.gamma": {"space": "interval(0.5,5)", "when": ["loss=focal", "n=1,2"]},
            "n": "range(1,1000001)",
            "exact": "interval(0.123456789,1)",
            "k": "range(1,10,2)",
            "drop": "range(0,1,0.25)",
            "w": "tag(log,int(interval(1,64)))",
        },
        None,
        ["seed=1"],
    )
    assert space.describe() == [
        "optim.lr     log 0.0001 .. 0.1",
        "loss         focal | f1",
        "n            1 .. 1000000, integers",
        "loss.gamma   0.5 .. 5   when loss=focal and n=1,2",
        "exact        0.123456789 .. 1",
        "k            1 .. 9 in steps of 2",
        "drop         0 .. 0.75 in steps of 0.25",
        "w            log 1 .. 64, integers",
    ]
    assert parse_space(None, None, []).describe() == []


def test_fingerprint_is_plain_and_exact() -> None:
    arguments = ["s=1", "~t"]
    one = parse_space(CONDITIONAL, None, [*arguments, "lr=interval(0,1)", "z=nan,1"])
    stored = yaml.safe_load(yaml.safe_dump(one.fingerprint()))
    assert (
        stored
        == parse_space(
            CONDITIONAL, None, [*arguments, "lr=interval(0.0,1e0)", "z=nan,1"]
        ).fingerprint()
    )
    assert stored["fixed"] == {"s": "1"}
    assert stored["deletions"] == ["~t"]
    assert stored["searched"]["loss.gamma"] == {"choices": [0.5, 1, 2], "when": ["loss=focal,poly"]}
    assert stored["searched"]["lr"] == {
        "type": "float",
        "low": 0.0,
        "high": 1.0,
        "log": False,
        "step": None,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"lr": "interval(0,2)"},
        {"lr": "tag(log,interval(1,2))"},
        {"lr": "int(interval(0,1))"},
        {"n": "range(1,9,3)"},
        {"loss": "focal,f1,ce"},
        {"x": {"space": "1,2", "when": "loss=f1"}},
        {"x": "1,2"},
        {"seed": 2},
        {"more": 1},
        {"~y": None},
    ],
)
def test_fingerprint_shows_a_change(change: dict[str, Any]) -> None:
    params = {
        "lr": "interval(0,1)",
        "n": "range(1,9,2)",
        "loss": "focal,f1",
        "x": {"space": "1,2", "when": "loss=focal"},
        "seed": 1,
    }
    before = parse_space(params, None, []).fingerprint()
    assert parse_space({**params, **change}, None, []).fingerprint() != before
    assert parse_space(dict(params), None, []).fingerprint() == before


def test_distributions_survive_a_storage() -> None:
    for dimension in conditional().dimensions:
        assert (
            json_to_distribution(distribution_to_json(dimension.distribution))
            == dimension.distribution
        )
