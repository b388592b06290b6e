"""`params: {zip: ...}`: keys that move together are one dimension."""

import itertools
import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import distribution_to_json, json_to_distribution

from tests.sweep.space.spaces import read, trials, typed
from visionsweep.errors import ConfigError
from visionsweep.sweep.space.space import SearchSpace, parse_space
from visionsweep.sweep.space.zip_names import choice_of, expand, keys_of, name_of

SIZES, RATES = [16, 32, 64], [0.001, 0.002, 0.004]
PAIR = {"size": SIZES, "lr": ["1e-3", 2e-3, 4e-3]}
NAME = "zip(size,lr)"


def space(zipped: Any, *arguments: str, **params: Any) -> SearchSpace:
    return parse_space({"zip": zipped, **params}, None, list(arguments))


def written(found: SearchSpace, params: dict[str, Any]) -> list[str]:
    return list(found.overrides(params))


def test_one_draw_picks_the_position_of_all_keys() -> None:
    found = space(PAIR, loss="focal,f1")
    drawn = [found.suggest(trial) for trial in trials(40)]
    pairs = {tuple(written(found, params)[:2]) for params in drawn}
    assert pairs == {(f"size={a}", f"lr={b}") for a, b in zip(SIZES, RATES, strict=True)}
    assert [dimension.key for dimension in found.dimensions] == [NAME, "loss"]
    assert found.searched_keys == ("size", "lr", "loss")


def test_optuna_sees_one_categorical_parameter_whose_choices_name_the_values() -> None:
    trial = trials(1)[0]
    space(PAIR).suggest(trial)
    assert list(trial.params) == [NAME]
    assert json.loads(trial.params[NAME]) in [[a, b] for a, b in zip(SIZES, RATES, strict=True)]
    distribution = trial.distributions[NAME]
    assert json_to_distribution(distribution_to_json(distribution)) == distribution


def test_a_grid_has_one_dimension_for_each_group() -> None:
    groups = [PAIR, {"a": ["x", "y"], "b": [True, None], "c": [[1, 2], [3]]}]
    found = space(groups, n="range(2)")
    wanted = [
        [f"size={size}", f"lr={lr}", f"a={a}", f"b={b}", f"c={c}", f"n={n}"]
        for (size, lr), (a, b, c), n in itertools.product(
            zip(SIZES, RATES, strict=True), [("x", True, "[1,2]"), ("y", "null", "[3]")], range(2)
        )
    ]
    assert [written(found, point) for point in found.grid()] == wanted
    assert found.size() == 12


@pytest.mark.parametrize(
    "values",
    [
        "16,32,64",
        "choice(16,32,64)",
        "range(16,65,16)",
        ["16", 32, 64],
    ],
)
def test_a_column_may_be_a_sweep_as_text(values: Any) -> None:
    sizes = [16, 32, 48, 64] if values == "range(16,65,16)" else SIZES
    lrs = list(map(str, range(len(sizes))))
    found = space({"size": values, "lr": lrs})
    assert [expand(point) for point in found.grid()] == [
        {"size": size, "lr": i} for i, size in enumerate(sizes)
    ]


def test_repeated_values_are_kept_and_repeated_positions_are_not() -> None:
    found = space({"a": [1, 1, 1, 2], "b": ["x", "y", "x", "x"]})
    assert [tuple(expand(p).values()) for p in found.grid()] == [(1, "x"), (1, "y"), (2, "x")]


def test_a_zip_of_one_key_is_an_ordinary_parameter() -> None:
    assert (
        space({"size": [16, 16, 32]}).fingerprint()
        == parse_space({"size": "16,32"}, None, []).fingerprint()
    )


# -- conditions


def test_a_condition_may_name_a_key_of_a_zip() -> None:
    found = space(
        {"loss": ["focal", "ce", "focal"], "lr": [1, 2, 3]},
        **{
            "gamma": {"space": "0.5,1", "when": "loss=focal"},
            "other": {"space": "a,b", "when": ["loss=focal", "lr=2,3"]},
        },
    )
    grid = [expand(point) for point in found.grid()]
    assert {(p["lr"], "gamma" in p, "other" in p) for p in grid} == {
        (1, True, False),
        (2, False, False),
        (3, True, True),
    }
    assert found.size() == len(grid) == 2 + 1 + 4
    for trial in trials(30):
        params = expand(found.suggest(trial))
        assert ("gamma" in params) == (params["loss"] == "focal")
    # every choice can be probed, with the parents that it needs
    probed = {(k, v) for point in found.probes(lambda _: False) for k, v in expand(point).items()}
    assert {("other", "a"), ("other", "b"), ("lr", 2), ("gamma", 1)} <= probed


def test_conditions_that_no_position_meets_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^other: when: .* never hold together"):
        space(
            {"loss": ["focal", "ce"], "lr": [1, 2]},
            other={"space": "a,b", "when": ["loss=focal", "lr=2"]},
        )
    with pytest.raises(ConfigError, match=r"^g: when: lr=3: not a value of lr: .*one of 1, 2"):
        space({"loss": ["focal", "ce"], "lr": [1, 2]}, g={"space": "1,2", "when": "lr=3"})


def test_a_zip_may_have_a_condition() -> None:
    found = space(
        {"space": {"gamma": [1, 2], "lr": [0.1, 0.2]}, "when": "loss=focal"}, loss="focal,ce"
    )
    assert [expand(point) for point in found.grid()] == [
        {"loss": "focal", "gamma": 1, "lr": 0.1},
        {"loss": "focal", "gamma": 2, "lr": 0.2},
        {"loss": "ce"},
    ]
    assert found.describe()[1] == "gamma   1 | 2   with lr   when loss=focal"


def test_a_pair_of_groups_is_probed_with_others() -> None:
    found = space({"loss": ["focal", "ce"], "lr": [1, 2]}, optim="sgd,adam")
    points = [expand(p) for p in found.probes(lambda key: key in ("loss", "optim"))]
    assert {(p["loss"], p["optim"]) for p in points} == set(
        itertools.product(["focal", "ce"], ["sgd", "adam"])
    )


# -- with the command line and the defaults


def test_a_plain_argument_takes_its_key_out_of_the_zip() -> None:
    three = {"size": SIZES, "lr": RATES, "wd": [0.1, 0.2, 0.3]}
    found = space(three, "lr=0.5")
    assert found.fixed == {"lr": "0.5"}
    assert [expand(point) for point in found.grid()] == [
        {"size": size, "wd": wd} for size, wd in zip(SIZES, [0.1, 0.2, 0.3], strict=True)
    ]
    found = space({"space": PAIR, "when": "loss=f1"}, "lr=0.5", loss="focal,f1")
    assert [expand(p).get("size") for p in found.grid()] == [None, *SIZES]
    assert found.dimensions[1].key == "size"


def test_params_replace_keys_and_zips_of_the_default() -> None:
    default = {"lr": "interval(0,1)", "loss": "focal,f1", "zip": {"a": [1, 2], "b": [3, 4]}}
    assert parse_space({"zip": None}, default, []).searched_keys == ("lr", "loss", "a", "b")
    assert parse_space({"zip": PAIR}, default, []).searched_keys == ("loss", "size", "lr")
    assert parse_space({"zip": PAIR}, default, ["x=1,2"]).searched_keys == ("size", "lr", "x")


def test_a_config_key_named_zip_is_still_reached() -> None:
    assert parse_space({"zip": "1,2"}, None, []).searched_keys == ("zip",)
    assert parse_space(None, None, ["zip=1,2"]).searched_keys == ("zip",)
    conditional = {"zip": {"space": "1,2", "when": "a=1"}, "a": "1,2"}
    assert parse_space(conditional, None, []).describe() == [
        "a     1 | 2",
        "zip   1 | 2   when a=1",
    ]
    assert parse_space({"zip": 3}, None, []).fixed == {"zip": "3"}


@pytest.mark.parametrize(
    ("params", "arguments", "message"),
    [
        ({"zip": {}}, [], r"hydra.sweeper.params.zip: is empty; expected \{key: \[values\]"),
        ({"zip": []}, [], r"hydra.sweeper.params.zip: is empty"),
        ({"zip": [{}]}, [], r"hydra.sweeper.params.zip: is empty"),
        ({"zip": [1, 2]}, [], r"hydra.sweeper.params.zip: expected .* 'zip: choice\(...\)'$"),
        (
            {"zip": {"a": [1, 2], "b": [1, 2, 3]}},
            [],
            "hydra.sweeper.params.zip: a has 2, b has 3 values; each key needs equally many$",
        ),
        ({"zip": {"a": [1, 2], "b": []}}, [], ".*zip: b: expected a list of values, got an empty"),
        ({"zip": {"a": [1], "b": {"c": 1}}}, [], ".*zip: b: expected a list of .* got a mapping"),
        ({"zip": {"a": "interval(0,1)"}}, [], r".*zip: a: .* got interval\(0,1\)$"),
        ({"zip": {"a": ["1,2", 3]}}, [], ".*zip: a: expected a list of values, got a=1,2 in it"),
        ({"zip": {"~a": [1, 2]}}, [], ".*zip: ~a: expected a list of values, got ~a=1 in it"),
        (
            {"zip": PAIR, "lr": "1,2"},
            [],
            "lr: moves with size in a zip, and is given by itself too; remove one$",
        ),
        ({"lr": 1, "zip": PAIR}, [], "lr: moves with size in a zip"),
        ({"zip": PAIR}, ["lr=1,2"], "lr: moves with size in a zip, and is given by itself too"),
        ({"zip": [PAIR, {"lr": [1, 2], "b": [1, 2]}]}, [], "lr: is in two zips; remove it"),
        (
            {"zip": {"space": PAIR, "if": "a=1"}},
            [],
            "hydra.sweeper.params.zip: if: stands beside `space`; move it there$",
        ),
        ({"zip": {"space": PAIR, "when": "lr=0.001"}}, [], ".* depend on each other$"),
        ({"zip": {"space": PAIR, "when": "a=1"}}, [], r"zip\(size,lr\): when: a=1: a is neither"),
    ],
)
def test_a_bad_zip_is_one_line(params: Any, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        parse_space(params, None, arguments)


# -- given parameters, and what is stored


def test_a_key_of_a_zip_brings_the_others() -> None:
    found = space(PAIR, n="1,2")
    for one in ({"size": 32}, {"lr": "2e-3"}, {"size": 32.0, "lr": 0.002}, {NAME: "[32, 0.002]"}):
        assert found.check_params(one, "here") == {"size": 32, "lr": 0.002}
    assert found.check_params({"n": 2}, "here") == {"n": 2}
    assert found.collapse({"n": 1, "lr": 0.002, "size": 32}) == {NAME: "[32, 0.002]", "n": 1}
    assert found.collapse({NAME: "[32, 0.002]"}) == {NAME: "[32, 0.002]"}
    assert found.collapse({"lr": 0.002, "size": 64}) == {"lr": 0.002, "size": 64}
    assert found.overrides({"lr": 0.002, "size": 32}) == ("size=32", "lr=0.002")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 32, "lr": 0.001}, r"size=32 lr=0.001: not at one position of zip\(size,lr\); "),
        ({"size": 33}, "size=33: expected one of 16, 32, 64"),
        ({"sizes": 32}, "sizes is not searched; did you mean size"),
        ({NAME: "[1, 2]"}, r"zip\(size,lr\)=\[1, 2\]: expected one of"),
    ],
)
def test_bad_given_values_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^here: {message}"):
        space(PAIR).check_params(given, "here")
    with pytest.raises(ConfigError, match=r"^here: a=1: 2 positions have it; give b too"):
        space({"a": [1, 1], "b": [1, 2]}).check_params({"a": 1}, "here")


VALUES = st.one_of(
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text("abß '\",[]=:\\", max_size=6).map(repr),
)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_any_values_survive_the_study(rows: list[tuple[Any, Any]]) -> None:
    choices = [choice_of(row) for row in rows]
    found = [expand({name_of(["a", "b"]): choice, "c": 1}) for choice in choices]
    assert [list(map(typed, params.values())) for params in found] == [
        [typed(a), typed(b), typed(1)] for a, b in rows
    ]
    assert keys_of(name_of(["a.b", "+c", "d@e"])) == ("a.b", "+c", "d@e")


def test_a_job_reads_what_was_listed() -> None:
    column = ["a", "'a b'", '"it\'s"', None, True, 1, 1.5, "1e-3", [1, "x y"]]
    found = space({"a": column, "n": list(range(len(column)))})
    got = [read(written(found, point)[0]) for point in found.grid()]
    assert got == ["a", "a b", "it's", None, True, 1, 1.5, 1e-3, [1, "x y"]]


def test_fingerprint_and_description_have_the_keys() -> None:
    found = space(PAIR, n={"space": "1,2", "when": "size=16,64"})
    assert found.describe() == [
        "size   16 | 32 | 64   with lr",
        "lr     0.001 | 0.002 | 0.004   with size",
        "n      1 | 2   when size=16,64",
    ]
    stored = yaml.safe_load(yaml.safe_dump(found.fingerprint()))["searched"]
    assert stored == {
        "size": {"choices": SIZES, "with": ["lr"]},
        "lr": {"choices": RATES, "with": ["size"]},
        "n": {"choices": [1, 2], "when": ["size=16,64"]},
    }
    turned = space({"size": SIZES, "lr": [4e-3, 2e-3, 1e-3]}).fingerprint()
    assert turned != space(PAIR).fingerprint()
