"""Conditions: `when: key=value[,value]`, compared with conditions written in Python."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution

from tests.sweep.space.spaces import (
    CONDITIONAL,
    ORDER,
    SOME,
    all_active,
    conditional,
    distributions,
    read,
    trials,
)
from visionsweep.errors import ConfigError
from visionsweep.sweep.space.dimensions import Condition, Dimension
from visionsweep.sweep.space.space import parse_space


def test_parents_come_before_children() -> None:
    assert [dimension.key for dimension in conditional().dimensions] == ORDER
    assert conditional().dimensions[4].when == (
        Condition("optim", ("sgd",)),
        Condition("optim.nesterov", ("True",)),
        Condition("loss", ("ce", "poly")),
    )


@given(st.integers(0, 10**6))
@SOME
def test_draws_are_active_configurations(seed: int) -> None:
    space = conditional()
    trial = trials(1, seed)[0]
    params = space.suggest(trial)
    assert params in all_active()
    assert trial.params == params
    assert trial.distributions == {key: distributions(space)[key] for key in params}
    assert space.active(params) == params
    assert space.overrides(params) == tuple(f"{key}={value}" for key, value in params.items())


def test_inactive_parameters_are_dropped() -> None:
    full = dict(zip(ORDER, ["poly", 2, "sgd", False, 0.9, 5, 1], strict=True))
    kept = {
        "loss": "poly",
        "loss.gamma": 2,
        "optim": "sgd",
        "optim.nesterov": False,
        "n": 1,
    }  # warm: parent inactive
    assert conditional().active({**full, "other": 3}) == {**kept, "other": 3}
    assert conditional().overrides(full) == tuple(f"{key}={value}" for key, value in kept.items())
    assert conditional().active({"loss.gamma": 2}) == {}


def test_condition_on_a_float_range() -> None:
    space = parse_space(
        {"a": "range(0,1,0.1)", "b": {"space": "1,2", "when": "a=0.3,0.70"}}, None, []
    )
    assert space.active({"a": 0.1 + 0.2, "b": 1}) == {"a": 0.1 + 0.2, "b": 1}
    assert space.active({"a": 0.4, "b": 1}) == {"a": 0.4}
    assert space.size() == 10 + 2


@pytest.mark.parametrize(
    ("parent", "when", "values"),
    [
        ("'a b',c", "p=a b", ("'a b'",)),
        ("'a b',c", "p='a b'", ("'a b'",)),
        ("null,1", "p=null", ("null",)),
        ("true,1,1.5", "p=true", ("true",)),
        ("true,1,1.5", "p=1,1.5", ("1", "1.5")),
        ("[1,2],[3]", "p=[1,2]", ("[1,2]",)),
        ("range(1,9,2)", "p=range(3,6,2)", ("3", "5")),
        ("a,b", "p=a,a", ("a",)),
        ("a,b,c", "p=choice(c,a)", ("c", "a")),
        ("'1',2", "p=1", ("'1'",)),
    ],
)
def test_condition_values_are_choices(parent: str, when: str, values: tuple[str, ...]) -> None:
    space = parse_space({"p": parent, "x": {"space": "1,2", "when": when}}, None, [])
    assert space.dimensions[1].when == (Condition("p", values),)
    assert {str(params["p"]) for params in space.grid() if "x" in params} == set(values)


@pytest.mark.parametrize(
    ("loss", "kept"), [("loss=focal", True), ("loss='poly'", True), ("loss=ce", False)]
)
def test_a_fixed_parent_decides_its_conditions(loss: str, kept: bool) -> None:
    space = parse_space(CONDITIONAL, None, [loss])
    assert ("loss.gamma" in distributions(space)) is kept
    assert all(
        condition.key != "loss" for dimension in space.dimensions for condition in dimension.when
    )
    assert ("optim.momentum" in distributions(space)) is (loss != "loss=focal")
    assert ("warm" in distributions(space)) is (loss != "loss=focal")  # its parent is dropped


def test_a_fixed_child_has_no_condition() -> None:
    space = parse_space(CONDITIONAL, None, ["optim.momentum=0.9"])
    assert "optim.momentum" not in distributions(space)
    assert space.overrides({"loss": "focal"}) == ("loss=focal", "optim.momentum=0.9")
    # the condition of `warm` holds
    assert space.dimensions[-2] == Dimension("warm", CategoricalDistribution([5]))


def test_a_sweep_on_the_command_line_keeps_the_condition() -> None:
    space = parse_space(CONDITIONAL, None, ["loss.gamma=interval(1,2)"])
    assert space.dimensions[1] == Dimension(
        "loss.gamma", FloatDistribution(1, 2), (Condition("loss", ("focal", "poly")),)
    )
    with pytest.raises(
        ConfigError, match=r"loss.gamma: swept, but active only when loss=focal,poly, and loss=ce"
    ):
        parse_space(CONDITIONAL, None, ["loss.gamma=interval(1,2)", "loss=ce"])


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (5, "x=5"),
        ("a b", "x=a b"),
        ("'a,b'", "x='a,b'"),
        (None, "x=null"),
        ([1, "b"], "x=[1,'b']"),
        ("a\\,b", "x=a\\,b"),
        (True, "x=True"),
    ],
)
def test_a_plain_value_under_a_condition(written: Any, text: str) -> None:
    space = parse_space({"p": "a,b", "x": {"space": written, "when": "p=a"}}, None, [])
    assert [space.overrides(params) for params in space.grid()] == [("p=a", text), ("p=b",)]
    fixed = parse_space({"x": {"space": written}}, None, [])
    assert fixed.dimensions == ()
    assert read(fixed.overrides({})[0]) == read(text)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("losss=focal", "x: when: losss=focal: losss is neither .*; did you mean loss\\?$"),
        ("qq=1", "x: when: qq=1: qq is neither .*set qq=..., or remove x"),
        ("loss=focl", "not a value of loss: expected one of focal, ce.*did you mean focal"),
        ("lr=1", "x: when: lr=1: lr is drawn from an interval"),
        ("n=7", "x: when: n=7: not a value of n: expected 0 .. 4, integers"),
        ("x=1", "x: when: the conditions depend on each other"),
        ("y=1", "x, y: when: the conditions depend on each other"),
        (["loss=focal", "loss=ce"], "x: when: loss=focal and its other .* never hold"),
        (["loss=focal", "z=1"], "x: when: loss=focal and its other .* never hold"),
        ("loss", "x: when: loss: not a valid override"),
        ("~loss", "x: when: expected 'key=value"),
        ("n=interval(1,2)", "x: when: expected 'key=value"),
        (None, "x: when: expected 'key=value' or a list of them, got None"),
        ([], "x: when: expected 'key=value'"),
        ({"loss": "focal"}, "x: when: expected 'key=value'"),
    ],
)
def test_bad_conditions_are_refused(when: Any, message: str) -> None:
    params = {
        "x": {"space": "1,2", "when": when},
        "loss": "focal,ce",
        "lr": "interval(0,1)",
        "n": "range(5)",
        "y": {"space": "1,2", "when": "x=1" if when == "y=1" else "n=1"},
        "z": {"space": "1,2", "when": "loss=ce"},
    }
    for given_params in (params, OmegaConf.create(params)):
        with pytest.raises(ConfigError, match=message):
            parse_space(given_params, None, [])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("x", {"space": "1,2", "whem": "loss=a"}, "x: expected .*got the keys space, whem"),
        ("x", {"when": "loss=a"}, "x: expected .*got the keys when"),
        ("x", {"space": {"a": 1}}, "x: space: expected an override's right side"),
        ("x", {"space": "foo(1)", "when": "loss=a"}, "x=foo.*Unknown function"),
        ("~x", {"space": None, "when": "loss=a"}, "~x: deletions .* take no `when`"),
    ],
)
def test_bad_spaces_under_a_condition_are_refused(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_space({"loss": "a,b", key: value}, None, [])


def test_a_misspelt_choice_of_a_fixed_parent_is_found() -> None:
    params = {"loss": "focal,ce", "x": {"space": "1,2", "when": "loss=focl"}}
    with pytest.raises(ConfigError, match="did you mean focal"):
        parse_space(params, None, ["loss=ce"])
    space = parse_space(
        {"loss": "focal,ce", "x": {"space": "1,2", "when": "loss=poly"}}, None, ["loss=poly"]
    )
    assert list(distributions(space)) == ["x"]
    space = parse_space(
        {"lr": "interval(0,1)", "x": {"space": "1,2", "when": "lr=0.5,0.7"}}, None, ["lr=0.5"]
    )
    assert list(distributions(space)) == ["x"]


def test_a_parent_in_ignored_defaults_is_named() -> None:
    with pytest.raises(
        ConfigError, match="x: when: loss=focal: loss is neither searched nor fixed"
    ):
        parse_space({"x": {"space": "1,2", "when": "loss=focal"}}, {"loss": "focal,ce"}, ["n=1,2"])
