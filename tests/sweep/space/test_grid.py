"""The grid, its size, and the probes before trial 0."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl
from hypothesis import assume, given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution

from tests.sweep.space.spaces import SOME, all_active, conditional, distributions, typed
from visionsweep.errors import ConfigError
from visionsweep.sweep.space import grid
from visionsweep.sweep.space.dimensions import Condition, Dimension, choices
from visionsweep.sweep.space.space import SearchSpace, parse_space


def test_grid_of_a_range_as_upstream() -> None:
    space = parse_space(
        None, None, ["x=range(-5.5,5.5,0.5)", "y=range(0,1,0.1)", "z=range(10,0,-3)", "w=1,2"]
    )
    columns = [OptunaSweeperImpl._to_grid_sampler_choices(d) for d in distributions(space).values()]
    assert [tuple(params.values()) for params in space.grid()] == list(itertools.product(*columns))


def test_conditional_grid_is_the_filtered_product() -> None:
    assert conditional().grid() == all_active()
    assert conditional().size() == len(all_active())


def test_repeated_choices_count_once() -> None:
    space = parse_space(None, None, ["a=x,y,x", "b=1,true,1.0,1"])
    assert [typed(params["b"]) for params in space.grid()[:3]] == [
        typed("1"),  # as text, since Python holds them for equal
        typed("true"),
        typed("1.0"),
    ]
    assert len(space.grid()) == space.size() == 6


def test_size_without_enumeration() -> None:
    space = parse_space(
        {
            "a": "range(1000000)",
            "b": "range(1000000)",
            "c": "x,y",
            "d": {"space": "range(1000000)", "when": "c=x"},
        },
        None,
        [],
    )
    assert space.size() == 10**12 * (10**6 + 1)


def test_an_interval_has_no_grid() -> None:
    space = parse_space(None, None, ["a=1,2", "lr=interval(0,1)"])
    assert space.size() is None
    with pytest.raises(ConfigError, match=r"lr: 0 \.\. 1 is continuous.*use lr=A,B,C"):
        space.grid()
    assert parse_space(None, None, ["n=tag(log,int(interval(1,4)))"]).grid() == [
        {"n": n} for n in (1, 2, 3, 4)
    ]
    assert parse_space(None, None, []).grid() == [{}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a,b,a", ["a", "b"]),
        ("range(20)", list(range(20))),
        ("range(21)", [0, 20]),
        (",".join(map(str, range(30))), list(range(30))),
        ("range(0,3,0.5)", [0, 0.5, 1, 1.5, 2, 2.5]),
        ("interval(0,3)", [0, 3]),
        ("interval(3,3)", [3]),
        ("tag(log,int(interval(1,64)))", [1, 64]),
    ],
)
def test_choices(value: str, expected: list[Any]) -> None:
    space = parse_space(None, None, [f"x={value}"])
    assert choices(space.dimensions[0].distribution) == expected


def pairs(params: dict[str, Any], keys: list[str]) -> set[tuple[tuple[str, str], ...]]:
    return set(
        itertools.combinations([(key, str(params[key])) for key in keys if key in params], 2)
    )


def check_probes(space: SearchSpace, groups: list[str]) -> list[dict[str, Any]]:
    """Check the probes, but not their number, by brute force on the grid."""
    found = space.probes(lambda key: key in groups)
    possible = space.grid()
    assert all(params in possible for params in found)
    assert len({tuple(params.items()) for params in found}) == len(found)
    assert {item for p in found for item in p.items()} == {
        item for p in possible for item in p.items()
    }
    ordered = [dimension.key for dimension in space.dimensions if dimension.key in groups]
    assert {pair for p in found for pair in pairs(p, ordered)} == {
        pair for p in possible for pair in pairs(p, ordered)
    }
    return found


def test_probes_are_few() -> None:
    arguments = [
        "a=range(6)",
        "b=range(5)",
        "c=range(5)",
        "d=range(5)",
        "e=range(5)",
        "n=1,2,3",
        "m=1,2",
    ]
    found = check_probes(parse_space(None, None, arguments), ["a", "b", "c", "d", "e"])
    # 30 pairs of a and b, two more n, one more m; the product has 22,500
    assert 30 <= len(found) <= 30 * 1.7 + 3


def test_a_dimension_that_is_no_group_varies_alone() -> None:
    space = parse_space(None, None, ["lr=interval(0,1)", "loss=a,b", "n=1,2,3"])
    assert space.probes(lambda key: key == "loss") == [
        {"lr": 0, "loss": "a", "n": 1},
        {"lr": 1, "loss": "a", "n": 1},
        {"lr": 0, "loss": "b", "n": 1},
        {"lr": 0, "loss": "a", "n": 2},
        {"lr": 0, "loss": "a", "n": 3},
    ]
    assert parse_space({"a": 1}, None, []).probes(lambda key: True) == [{}]


def test_of_very_many_pairs_a_sample_is_tried() -> None:
    options = ",".join(f"o{i}" for i in range(60))
    space = parse_space(None, None, [f"a={options}", f"b={options}", "c=1,2"])
    found = space.probes(lambda key: key in "ab")
    assert space.num_pairs(lambda key: key in "ab") == 3600
    assert grid.SAMPLED_PAIRS <= len(found) < 200
    for key, count in {"a": 60, "b": 60, "c": 2}.items():
        assert len({params[key] for params in found}) == count
    assert found == space.probes(lambda key: key in "ab")


def test_probes_reach_a_child_of_a_long_range() -> None:
    space = parse_space({"n": "range(100)", "x": {"space": "1,2", "when": "n=50"}}, None, [])
    assert space.probes(lambda key: False) == [
        {"n": 0},
        {"n": 99},
        {"n": 50, "x": 1},
        {"n": 50, "x": 2},
    ]


KEYS = "abcde"


@st.composite
def spaces(draw: Callable[..., Any]) -> SearchSpace:
    """Draw a space of up to five dimensions, each possibly under conditions on earlier ones."""
    found: list[Dimension] = []
    for key in KEYS[: draw(st.integers(1, 5))]:
        parents = (
            draw(st.lists(st.sampled_from(found), max_size=2, unique_by=lambda d: d.key))
            if found
            else []
        )
        when = tuple(
            Condition(
                p.key,
                tuple(
                    map(str, draw(st.lists(st.sampled_from(p.distribution.choices), min_size=1)))
                ),
            )
            for p in parents
        )
        count = draw(st.integers(1, 4))
        found.append(
            Dimension(key, CategoricalDistribution([f"{key}{i}" for i in range(count)]), when)
        )
    return SearchSpace(tuple(found), {}, ())


@given(spaces(), st.sets(st.sampled_from(KEYS)))
@SOME
def test_probes_of_any_space(space: SearchSpace, groups: set[str]) -> None:
    reachable = {key for params in space.grid() for key in params}
    assume(reachable == {dimension.key for dimension in space.dimensions})
    check_probes(space, sorted(groups))


@given(spaces())
@SOME
def test_grid_of_any_space(space: SearchSpace) -> None:
    expected: list[dict[str, Any]] = []
    for row in itertools.product(
        *(dimension.distribution.choices for dimension in space.dimensions)
    ):
        params: dict[str, Any] = {}
        for dimension, value in zip(space.dimensions, row, strict=True):
            if all(params.get(condition.key) in condition.values for condition in dimension.when):
                params[dimension.key] = value
        if params not in expected:
            expected.append(params)
    assert space.grid() == expected
    assert space.size() == len(expected)
