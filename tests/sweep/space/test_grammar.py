"""Overrides as a search space: the same as upstream's, and read back by a job as written."""

import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import hydra
import optuna
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl, create_params_from_overrides
from hypothesis import assume, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    distribution_to_json,
)

from tests.sweep.space.spaces import SOME, distributions, read, trials, typed
from visionsweep.errors import ConfigError
from visionsweep.sweep.space.space import parse_space, warnings_of

# Every form in upstream's documentation and Hydra's grammar.
OVERRIDES = {
    "choice": ["x=choice(-5.0, 0.0, 5.0)", "y=choice(0, 1, 2, 3)"],
    "simple choice": ["loss=focal,f1", "n=1,2,4"],
    "choice of bools": ["x=choice(true, False)"],
    "choice with null": ["x=null,1", "y=null,a"],
    "mixed types": ["x=1,2.5,a,false,null"],
    "quoted": ["x='a, b',\"it's\",'c=d'", "y=choice(\"a b\", 'it\\'s')"],
    "words with spaces": ["x=a b,c d"],
    "lists": ["x=[1,2],[3,[4,null]]", "y=choice([],['a b',c])"],
    "dicts": ["x={a:1,b:[x,y]},{a:2}"],
    "interpolation": ["x=${y},2", "z=${y}"],
    "range": ["x=range(5)", "y=range(1,5)", "z=range(-5,6,3)"],
    "range by name": ["x=range(start=1,stop=10,step=2)"],
    "negative step": ["x=range(10,0,-3)", "y=range(1.0,0.0,-0.25)"],
    "float range": ["x=range(-5.5,5.5,step=0.5)", "y=range(0,1,0.1)", "z=range(1.5,5)"],
    "range of one": ["x=range(1)", "y=range(0.5,0.6,0.5)"],
    "coarse float range": ["x=range(1e16,1.0000000000000004e16,1.0)"],
    "shuffled range": ["x=shuffle(range(-5, 5))"],
    "shuffled choice": ["x=shuffle(a,b,c,d,e,f)"],
    "cast range": ["x=float(range(1,4))", "y=int(range(0,2,0.5))"],
    "sorted": [
        "x=sort(3,1,2)",
        "y=sort(choice(b,a),reverse=true)",
        "z=sort(range(1,10,2),reverse=true)",
    ],
    "interval": ["x=interval(-5.0,5.0)", "y=interval(0,10)"],
    "int interval": [
        "x=int(interval(-5.0,5.0))",
        "y=tag(log,int(interval(1,64)))",
        "z=int(tag(log,interval(1,64)))",
    ],
    "log interval": ["x=tag(log, interval(1e-4, 1e-1))", "y=tag(mine, log, interval(1, 10))"],
    "tagged choice": ["x=tag(t1,choice(a,b))", "y=tag(t1,range(1,3))"],
    "casts": ["x=str(a,b)", "y=int(3.7,2.1)", "z=float(1,2)", "w=bool(1,0)"],
    "plain": [
        "lr=1e-3",
        "a=true",
        "b=null",
        "c=a b",
        "d='x,y'",
        "e=[1,a]",
        "f={k:1}",
        "g=",
        "h=str(1)",
        "i=a\\,b",
    ],
    "prefixes": ["+a=1,2", "++b=range(3)", "+c=5", "++d=null", "~e", "~f=3"],
    "groups": ["db=mysql,postgresql", "db/engine@backup=a,b", "+db@extra=mysql", "~db@old"],
    "same key": ["x=1,2", "x=3,4,5", "y=1", "y=2", "z=1,2", "z=7"],
    "plus and plain": ["a=1,2", "+a=3,4"],
    "nothing": [],
}


def upstream(arguments: list[str]) -> tuple[dict[str, BaseDistribution], dict[str, Any], list[str]]:
    """Return upstream's distributions, without fixed parameters, and what is fixed."""
    searched, fixed, overrides = create_params_from_overrides(arguments)
    return {key: value for key, value in searched.items() if key not in fixed}, fixed, overrides


def upstream_jobs(parsed: Any, trials: list[optuna.Trial]) -> list[tuple[str, ...]]:
    sweeper = OptunaSweeperImpl(None, "minimize", None, None, len(trials), 1, 0.0, None, None)
    return [tuple(job) for job in sweeper._configure_trials(trials, *parsed)]


@pytest.mark.parametrize("arguments", OVERRIDES.values(), ids=OVERRIDES)
def test_command_line_as_upstream(arguments: list[str]) -> None:
    random.seed(arguments[0] if arguments else 0)  # the order of shuffle(...) depends on it
    expected = upstream(arguments)
    space = parse_space(None, None, arguments)
    assert (distributions(space), space.fixed, list(space.fixed_overrides)) == expected
    assert list(distributions(space)) == list(expected[0])
    for key, distribution in expected[0].items():  # 1 == True == 1.0 in the comparison above
        assert distribution_to_json(distributions(space)[key]) == distribution_to_json(distribution)
    assert [space.overrides(space.suggest(trial)) for trial in trials(20)] == upstream_jobs(
        expected, trials(20)
    )


@pytest.mark.parametrize("arguments", OVERRIDES.values(), ids=OVERRIDES)
def test_yaml_as_upstream(arguments: list[str]) -> None:
    params = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    given = [f"{key}={value}" for key, value in params.items()]
    random.seed(given[0] if given else 0)
    expected = upstream(given)
    space = parse_space(params, None, [])
    assert (distributions(space), space.fixed, list(space.fixed_overrides)) == expected


def test_yaml_values_that_are_not_strings() -> None:
    params = yaml.safe_load(
        "{a: 1, b: 0.001, c: true, d: [1, 'x y', false], e: 'choice(1,2)', 'f': [], g: -1.5e-7}"
    )
    expected = upstream([f"{key}={value}" for key, value in OmegaConf.create(params).items()])
    for params_given in (params, OmegaConf.create(params)):
        space = parse_space(params_given, None, [])
        assert (distributions(space), space.fixed, list(space.fixed_overrides)) == expected


def test_yaml_null_is_null() -> None:
    space = parse_space({"a": None, "b": [None, "it's", {"k": None}], "~c": None}, None, [])
    assert space.overrides({}) == ("a=null", """b=[null,"it's",{k:null}]""", "~c")
    assert read(space.overrides({})[0]) is None
    assert read(space.overrides({})[1]) == [None, "it's", {"k": None}]


def test_interpolations_of_params_are_resolved() -> None:
    config = OmegaConf.create(
        {"low": 0.5, "params": {"a": "interval(${low},5)", "b": "${low}"}, "bad": {"a": "${no}"}}
    )
    space = parse_space(config.params, None, [])
    assert distributions(space) == {"a": FloatDistribution(0.5, 5)}
    assert space.fixed == {"b": "0.5"}
    with pytest.raises(ConfigError, match=r"hydra.sweeper.params: .*no"):
        parse_space(config.bad, None, [])


def test_the_command_line_replaces_params() -> None:
    params = {"a": "1,2", "b": "interval(0,1)", "c": "3,4", "d": 5}
    arguments = ["c=9", "b=tag(log,interval(1,2))", "e=x,y"]
    space = parse_space(params, None, arguments)
    assert distributions(space) == upstream([f"{k}={v}" for k, v in params.items()] + arguments)[0]
    assert distributions(space) == {
        "a": CategoricalDistribution([1, 2]),
        "b": FloatDistribution(1, 2, log=True),
        "e": CategoricalDistribution(["x", "y"]),
    }
    assert space.fixed == {"d": "5", "c": "9"}


def test_a_sweep_replaces_an_earlier_plain_value() -> None:
    # Intended difference: upstream keeps a=1 and silently drops the sweep.
    space = parse_space({"a": 1}, None, ["a=1,2"])
    assert (distributions(space), space.fixed) == ({"a": CategoricalDistribution([1, 2])}, {})


def test_default_params() -> None:
    defaults = {"lr": "interval(1,2)", "loss": "a,b", "n": 3}
    plain = parse_space({"loss": "c,d"}, defaults, ["lr=1e-3", "~x"])
    assert distributions(plain) == {"loss": CategoricalDistribution(["c", "d"])}
    assert plain.overrides({"loss": "c"}) == ("loss=c", "n=3", "lr=0.001", "~x")
    swept = parse_space({"loss": "c,d"}, defaults, ["lr=1e-3", "x=range(3)"])
    assert list(distributions(swept)) == ["loss", "x"]
    assert swept.fixed == {"lr": "0.001"}
    assert parse_space(None, defaults, ["lr=choice(1,2)"]).fixed == {}


@pytest.mark.parametrize(
    "text", ["x=shuffle(range(50))", "x=shuffle(1,2,3,4,5,6,7,8,9)", "x=shuffle([1,2,3,4,5,6,7,8])"]
)
def test_shuffled_order_is_the_same_in_every_process(text: str) -> None:
    random.seed(1)
    before = random.getstate()
    first = parse_space(None, None, [text])
    assert random.getstate() == before
    random.seed(2)
    assert parse_space(None, None, [text]) == first


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("x=interval(0,", r"x=interval\(0,: .*no viable alternative"),
        ("x=choice(null,1)", "NoneType is incompatible"),
        ("x=foo(1)", "x=foo.*Unknown function 'foo'$"),
        ("x=a,,b", "extraneous input ','"),
        ("x=a~b", "token recognition error"),
        ("x=interval(5,1)", "x=interval.*low <= high"),
        ("x=tag(log,interval(0,1))", "low > 0"),
        ("x=tag(log,int(interval(0,10)))", "low >= 1"),
        ("x=range(1,5,0)", "nonzero step"),
        ("x=range(5,1)", "at least one value"),
        ("x=range(0,inf)", "nothing to draw"),
        ("x=interval(0,inf)", "two finite ends"),
        ("x=glob(*)", "list the choices instead"),
    ],
)
def test_bad_grammar_is_refused(override: str, message: str) -> None:
    for params, arguments in ((None, [override]), ({"x": override[2:]}, [])):
        with pytest.raises(ConfigError, match=message) as caught:
            parse_space(params, None, arguments)
        assert "\n" not in str(caught.value)


def test_glob_over_a_config_group(tmp_path: Path) -> None:
    for name in ("focal", "f1", "poly", "ce"):
        (tmp_path / "loss").mkdir(exist_ok=True)
        (tmp_path / "loss" / f"{name}.yaml").write_text("a: 1\n")
    (tmp_path / "config.yaml").write_text("defaults: [loss: ce]\n")
    with hydra.initialize_config_dir(str(tmp_path)):
        loader = GlobalHydra.instance().config_loader()
        space = parse_space({"loss": "glob(*)"}, None, [], loader)
        some = parse_space(None, None, ["loss@other=glob([f*,p*],exclude=f1)"], loader)
        with pytest.raises(ConfigError, match=r"loss=glob\(x\*\): no config of the group loss"):
            parse_space(None, None, ["loss=glob(x*)"], loader)
    assert distributions(space) == {"loss": CategoricalDistribution(["ce", "f1", "focal", "poly"])}
    assert distributions(some) == {"loss@other": CategoricalDistribution(["focal", "poly"])}


def test_list_extension_is_kept() -> None:
    with pytest.warns(UserWarning, match="extend_list"):
        space = parse_space(None, None, ["x=extend_list(1,2)"])
    assert space.overrides({}) == ("x=extend_list(1,2)",)


SCALARS = st.one_of(
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.text(st.characters(max_codepoint=126, min_codepoint=32)),
)


def quoted(value: Any, quote: Quote) -> str:
    if isinstance(value, str):
        return QuotedString(value, quote).with_quotes()
    return "null" if value is None else str(value)


@given(
    st.lists(SCALARS, min_size=2, max_size=5, unique_by=typed),
    st.sampled_from(Quote),
    st.integers(0, 3),
)
@SOME
def test_choices_round_trip(values: list[Any], quote: Quote, seed: int) -> None:
    space = parse_space(None, None, [f"x={','.join(quoted(value, quote) for value in values)}"])
    found = [read(space.overrides(params)[0]) for params in space.grid()]
    assert [typed(value) for value in found] == [typed(value) for value in values]
    drawn = space.suggest(trials(1, seed)[0])
    assert typed(read(space.overrides(drawn)[0])) in [typed(value) for value in values]


@given(st.lists(st.text("ab \\()[]{}:=,\t", min_size=1), min_size=2, max_size=4, unique=True))
@SOME
def test_escaped_choices_round_trip(values: list[str]) -> None:
    # Intended difference: upstream loses the escapes, so that a job reads a\,b as a sweep.
    escaped = ["".join(c if c in "ab" else f"\\{c}" for c in value) for value in values]
    for form in (f"x={','.join(escaped)}", f"x=choice({','.join(escaped)})"):
        space = parse_space(None, None, [form])
        assert [read(space.overrides(params)[0]) for params in space.grid()] == values


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.integers(0, 5))
@SOME
def test_intervals_round_trip(low: float, high: float, seed: int) -> None:
    assume(low <= high)
    space = parse_space(None, None, [f"x=interval({low},{high})"])
    value = space.suggest(trials(1, seed)[0])["x"]
    assert low <= value <= high
    assert typed(read(space.overrides({"x": value})[0])) == typed(value)


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-9, 9), st.integers(0, 3))
@SOME
def test_int_range_is_half_open(start: int, stop: int, step: int, seed: int) -> None:
    assume(step and range(start, stop, step))
    space = parse_space(None, None, [f"x=range({start},{stop},{step})"])
    assert [params["x"] for params in space.grid()] == sorted(range(start, stop, step))
    assert space.size() == len(range(start, stop, step))
    assert space.suggest(trials(1, seed)[0])["x"] in range(start, stop, step)


@given(
    st.integers(-500, 500),
    st.integers(-500, 500),
    st.integers(-90, 90),
    st.integers(1, 4),
    st.integers(0, 3),
)
@SOME
def test_float_range_is_half_open(start: int, stop: int, step: int, places: int, seed: int) -> None:
    assume(step and range(start, stop, step))
    decimal = [Decimal(value).scaleb(-places) for value in range(start, stop, step)]
    text = ",".join(f"{Decimal(value).scaleb(-places):f}" for value in (start, stop, step))
    space = parse_space(None, None, [f"x=range({text})"])
    assert [params["x"] for params in space.grid()] == sorted(float(value) for value in decimal)
    drawn = space.suggest(trials(1, seed)[0])["x"]
    assert min(abs(drawn - float(value)) for value in decimal) < 1e-9


@pytest.mark.parametrize(
    ("value", "warning", "better"),
    [
        (
            "interval(0.0001,0.1)",
            "linear over 3 decades: 90% of the draws are above 0.01",
            "tag(log, interval(0.0001,0.1))",
        ),
        (
            "int(interval(1,501))",
            "linear over 2.7 decades: 90% of the draws are above 50.1",
            "tag(log, int(interval(1,501)))",
        ),
        ("tag(log,range(1,9))", "no effect on a range", "tag(log, interval(...))"),
    ],
)
def test_probable_mistakes_are_warned_of(value: str, warning: str, better: str) -> None:
    space = parse_space({"optim.lr": value}, None, [])
    assert len(warnings_of(space)) == 1
    assert warnings_of(space)[0].startswith("optim.lr: ")
    assert warning in warnings_of(space)[0]
    assert warnings_of(space)[0].endswith(f"; use {better}")
    assert warnings_of(parse_space({"optim.lr": value}, None, ["optim.lr=1"])) == []
    if "..." not in better:
        assert warnings_of(parse_space({"optim.lr": better}, None, [])) == []


@pytest.mark.parametrize(
    "value",
    [
        "interval(0.001,0.1)",
        "interval(0.0007,0.07)",  # a ratio of 100.00000000000001
        "interval(0,0.1)",
        "interval(-1,1000)",
        "range(1,1000)",
        "1,1000",
        "tag(log,choice(1,2))",
    ],
)
def test_nothing_else_is_warned_of(value: str) -> None:
    assert warnings_of(parse_space({"optim.lr": value}, None, [])) == []
