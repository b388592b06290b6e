"""The search space: equal to upstream's where upstream can say it, conditions against hand-written ones."""

import itertools
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import hydra
import optuna
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl, create_params_from_overrides
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)

from visionsweep.errors import ConfigError
from visionsweep.sweep.space.space import (
    Condition,
    Dimension,
    SearchSpace,
    parse_space,
    warnings_of,
)

optuna.logging.set_verbosity(optuna.logging.WARNING)

# Every form of upstream's documentation and of Hydra's grammar.
OVERRIDES = {
    "choice": ["x=choice(-5.0, 0.0, 5.0)", "y=choice(0, 1, 2, 3)"],
    "simple choice": ["loss=focal,f1", "n=1,2,4"],
    "choice of bools": ["x=choice(true, False)"],
    "choice with null": ["x=null,1", "y=null,a"],
    "mixed types": ["x=1,2.5,a,true,null"],
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
    """Return upstream's distributions, without those of fixed parameters as in its `sweep`, and what is fixed."""
    searched, fixed, overrides = create_params_from_overrides(arguments)
    return {key: value for key, value in searched.items() if key not in fixed}, fixed, overrides


def upstream_jobs(parsed: Any, trials: list[optuna.Trial]) -> list[tuple[str, ...]]:
    sweeper = OptunaSweeperImpl(None, "minimize", None, None, len(trials), 1, 0.0, None, None)
    return [tuple(job) for job in sweeper._configure_trials(trials, *parsed)]


def trials(count: int, seed: int = 0) -> list[optuna.Trial]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [study.ask() for _ in range(count)]


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    return {dimension.key: dimension.distribution for dimension in space.dimensions}


def typed(value: Any) -> Any:
    """Return a value that differs where the types do: 1, 1.0 and True are equal to Python."""
    return (type(value).__name__, repr(value))


def read(override: str) -> Any:
    """Return what a job reads of an override."""
    parsed = OverridesParser.create().parse_override(override)
    assert not parsed.is_sweep_override(), override
    return parsed.value()


@pytest.mark.parametrize("arguments", OVERRIDES.values(), ids=OVERRIDES)
def test_command_line_as_upstream(arguments: list[str]) -> None:
    random.seed(
        arguments[0] if arguments else 0
    )  # a shuffled order is drawn from the override's text
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


def test_yaml_values_that_are_no_strings() -> None:
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


def test_command_line_over_params() -> None:
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


def test_sweep_after_a_plain_value_counts() -> None:
    # Meant deviation: upstream keeps a=1 and drops the sweep without a word.
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
        ("x=glob(*)", "name the choices instead"),
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


# --- a drawn value is read back as what was written -------------------------------------------------------------------

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
@settings(deadline=None)
def test_choices_round_trip(values: list[Any], quote: Quote, seed: int) -> None:
    space = parse_space(None, None, [f"x={','.join(quoted(value, quote) for value in values)}"])
    found = [read(space.overrides(params)[0]) for params in space.grid()]
    assert [typed(value) for value in found] == [typed(value) for value in values]
    drawn = space.suggest(trials(1, seed)[0])
    assert typed(read(space.overrides(drawn)[0])) in [typed(value) for value in values]


@given(st.lists(st.text("ab \\()[]{}:=,\t", min_size=1), min_size=2, max_size=4, unique=True))
@settings(deadline=None)
def test_escaped_choices_round_trip(values: list[str]) -> None:
    # Meant deviation: upstream takes the escapes away, and a\,b becomes a sweep inside of a job.
    escaped = ["".join(c if c in "ab" else f"\\{c}" for c in value) for value in values]
    for form in (f"x={','.join(escaped)}", f"x=choice({','.join(escaped)})"):
        space = parse_space(None, None, [form])
        assert [read(space.overrides(params)[0]) for params in space.grid()] == values


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.integers(0, 5))
@settings(deadline=None)
def test_intervals_round_trip(low: float, high: float, seed: int) -> None:
    assume(low <= high)
    space = parse_space(None, None, [f"x=interval({low},{high})"])
    value = space.suggest(trials(1, seed)[0])["x"]
    assert low <= value <= high
    assert typed(read(space.overrides({"x": value})[0])) == typed(value)


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-9, 9), st.integers(0, 3))
@settings(deadline=None)
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
@settings(deadline=None)
def test_float_range_is_half_open(start: int, stop: int, step: int, places: int, seed: int) -> None:
    assume(step and range(start, stop, step))
    decimal = [Decimal(value).scaleb(-places) for value in range(start, stop, step)]
    text = ",".join(f"{Decimal(value).scaleb(-places):f}" for value in (start, stop, step))
    space = parse_space(None, None, [f"x=range({text})"])
    assert [params["x"] for params in space.grid()] == sorted(float(value) for value in decimal)
    drawn = space.suggest(trials(1, seed)[0])["x"]
    assert min(abs(drawn - float(value)) for value in decimal) < 1e-9


def test_grid_of_a_range_as_upstream() -> None:
    space = parse_space(
        None, None, ["x=range(-5.5,5.5,0.5)", "y=range(0,1,0.1)", "z=range(10,0,-3)", "w=1,2"]
    )
    columns = [OptunaSweeperImpl._to_grid_sampler_choices(d) for d in distributions(space).values()]
    assert [tuple(params.values()) for params in space.grid()] == list(itertools.product(*columns))


# --- conditions -------------------------------------------------------------------------------------------------------

CONDITIONAL = {
    "loss.gamma": {"space": "choice(0.5,1,2)", "when": "loss=focal,poly"},  # before its parent
    "loss": "choice(focal,ce,poly)",
    "optim": "sgd,adam",
    "optim.nesterov": {"space": "choice(true,false)", "when": ["optim=sgd"]},
    "optim.momentum": {
        "space": "choice(0.8,0.9)",
        "when": ["optim=sgd", "optim.nesterov=true", "loss=ce,poly"],
    },
    "warm": {"space": 5, "when": "optim.momentum=0.9"},
    "n": "range(2)",
}
ORDER = ["loss", "loss.gamma", "optim", "optim.nesterov", "optim.momentum", "warm", "n"]


def is_active(key: str, p: dict[str, Any]) -> bool:
    """Return what CONDITIONAL says, written by hand."""
    nesterov = p["optim"] == "sgd"
    momentum = nesterov and p["optim.nesterov"] is True and p["loss"] in ("ce", "poly")
    return {
        "loss.gamma": p["loss"] in ("focal", "poly"),
        "optim.nesterov": nesterov,
        "optim.momentum": momentum,
        "warm": momentum and p["optim.momentum"] == 0.9,
    }.get(key, True)


def all_active() -> list[dict[str, Any]]:
    columns = [
        ["focal", "ce", "poly"],
        [0.5, 1, 2],
        ["sgd", "adam"],
        [True, False],
        [0.8, 0.9],
        [5],
        [0, 1],
    ]
    found: list[dict[str, Any]] = []
    for row in itertools.product(*columns):
        full = dict(zip(ORDER, row, strict=True))
        kept = {key: value for key, value in full.items() if is_active(key, full)}
        if kept not in found:
            found.append(kept)
    return found


def conditional() -> SearchSpace:
    return parse_space(OmegaConf.create(CONDITIONAL), None, [])


def test_parents_stand_before_children() -> None:
    assert [dimension.key for dimension in conditional().dimensions] == ORDER
    assert conditional().dimensions[4].when == (
        Condition("optim", ("sgd",)),
        Condition("optim.nesterov", ("True",)),
        Condition("loss", ("ce", "poly")),
    )


def test_conditional_grid_is_the_filtered_product() -> None:
    assert conditional().grid() == all_active()
    assert conditional().size() == len(all_active())


def test_repeated_choices_count_once() -> None:
    space = parse_space(None, None, ["a=x,y,x", "b=1,true,1.0,1"])
    assert [typed(params["b"]) for params in space.grid()[:3]] == [
        typed(1),
        typed(True),
        typed(1.0),
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
    with pytest.raises(ConfigError, match=r"lr: 0 \.\. 1 is continuous.*write lr=A,B,C"):
        space.grid()
    assert parse_space(None, None, ["n=tag(log,int(interval(1,4)))"]).grid() == [
        {"n": n} for n in (1, 2, 3, 4)
    ]
    assert parse_space(None, None, []).grid() == [{}]


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
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
        ("true,1,1.5", "p=true", ("True",)),
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
def test_condition_on_a_fixed_value_is_decided(loss: str, kept: bool) -> None:
    space = parse_space(CONDITIONAL, None, [loss])
    assert ("loss.gamma" in distributions(space)) is kept
    assert all(
        condition.key != "loss" for dimension in space.dimensions for condition in dimension.when
    )
    assert ("optim.momentum" in distributions(space)) is (loss != "loss=focal")
    assert ("warm" in distributions(space)) is (loss != "loss=focal")  # its parent is dropped


def test_a_fixed_child_is_fixed_for_all() -> None:
    space = parse_space(CONDITIONAL, None, ["optim.momentum=0.9"])
    assert "optim.momentum" not in distributions(space)
    assert space.overrides({"loss": "focal"}) == ("loss=focal", "optim.momentum=0.9")
    assert space.dimensions[-2] == Dimension(
        "warm", CategoricalDistribution([5])
    )  # its condition holds


def test_a_sweep_on_the_command_line_keeps_the_condition() -> None:
    space = parse_space(CONDITIONAL, None, ["loss.gamma=interval(1,2)"])
    assert space.dimensions[1] == Dimension(
        "loss.gamma", FloatDistribution(1, 2), (Condition("loss", ("focal", "poly")),)
    )
    with pytest.raises(
        ConfigError,
        match=r"loss.gamma: swept over, but active only when loss=focal,poly, and loss=ce",
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
    ("child", "message"),
    [
        (
            {"space": "1,2", "when": "losss=focal"},
            "x: when: losss=focal: losss is neither .*; did you mean loss\\?$",
        ),
        (
            {"space": "1,2", "when": "qq=1"},
            "x: when: qq=1: qq is neither .*write qq=..., or leave x out",
        ),
        (
            {"space": "1,2", "when": "loss=focl"},
            "not a value of loss: expected one of focal, ce.*did you mean focal",
        ),
        ({"space": "1,2", "when": "lr=1"}, "x: when: lr=1: lr is drawn from an interval"),
        (
            {"space": "1,2", "when": "n=7"},
            "x: when: n=7: not a value of n: expected 0 .. 4, integers",
        ),
        ({"space": "1,2", "when": "x=1"}, "x: when: the conditions wait for each other"),
        ({"space": "1,2", "when": "y=1"}, "x, y: when: the conditions wait for each other"),
        (
            {"space": "1,2", "when": ["loss=focal", "loss=ce"]},
            "x: when: loss=focal and its other .* never hold",
        ),
        (
            {"space": "1,2", "when": ["loss=focal", "z=1"]},
            "x: when: loss=focal and its other .* never hold",
        ),
        ({"space": "1,2", "when": "loss"}, "x: when: loss: not an override"),
        ({"space": "1,2", "when": "~loss"}, "x: when: expected 'key=value"),
        ({"space": "1,2", "when": "n=interval(1,2)"}, "x: when: expected 'key=value"),
        (
            {"space": "1,2", "when": None},
            "x: when: expected 'key=value' or a list of such, got None",
        ),
        ({"space": "1,2", "when": []}, "x: when: expected 'key=value'"),
        ({"space": "1,2", "when": {"loss": "focal"}}, "x: when: expected 'key=value'"),
        ({"space": "1,2", "whem": "loss=focal"}, "x: expected .*got the keys space, whem"),
        ({"when": "loss=focal"}, "x: expected .*got the keys when"),
        ({"space": {"a": 1}}, "x: space: expected an override's right side"),
        ({"space": "foo(1)", "when": "loss=focal"}, "x=foo.*Unknown function"),
    ],
)
def test_bad_conditions_are_refused(child: dict[str, Any], message: str) -> None:
    params = {
        "x": child,
        "loss": "focal,ce",
        "lr": "interval(0,1)",
        "n": "range(5)",
        "y": {"space": "1,2", "when": "x=1" if child.get("when") == "y=1" else "n=1"},
        "z": {"space": "1,2", "when": "loss=ce"},
    }
    for params_given in (params, OmegaConf.create(params)):
        with pytest.raises(ConfigError, match=message):
            parse_space(params_given, None, [])


def test_a_misspelt_choice_is_found_beside_a_fixed_parent() -> None:
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


def test_a_deletion_has_no_condition() -> None:
    with pytest.raises(ConfigError, match=r"~x: a deletion .* takes no `when`"):
        parse_space({"loss": "a,b", "~x": {"space": None, "when": "loss=a"}}, None, [])


def test_a_parent_in_dropped_defaults_is_named() -> None:
    with pytest.raises(
        ConfigError, match="x: when: loss=focal: loss is neither searched nor given a value"
    ):
        parse_space({"x": {"space": "1,2", "when": "loss=focal"}}, {"loss": "focal,ce"}, ["n=1,2"])


# --- given parameters -------------------------------------------------------------------------------------------------


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
        ("true,1", True, True),
        ("true,1", 1, 1),
        ("true,false", "false", False),
        ("0.01,0.1", "1e-2", 0.01),
        ("null,a", None, "null"),
        ("null,a", "null", "null"),
        ("'a b',c", "a b", "'a b'"),
        ("a,'a'", "'a'", "'a'"),
        ("1,1.0", 1.0, 1.0),
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
@settings(max_examples=30, deadline=None)
def test_drawn_parameters_are_accepted(seed: int) -> None:
    space = parse_space(
        {**CONDITIONAL, "a": "range(0,1,0.1)", "b": "'x y',null,[1]", "c": "interval(0,1)"},
        None,
        [],
    )
    params = space.suggest(trials(1, seed)[0])
    assert space.check_params(params, "here") == params


# --- before trial 0 ---------------------------------------------------------------------------------------------------


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
    assert space.choices(space.dimensions[0]) == expected


def pairs(params: dict[str, Any], keys: list[str]) -> set[tuple[tuple[str, str], ...]]:
    return set(
        itertools.combinations([(key, str(params[key])) for key in keys if key in params], 2)
    )


def check_probes(space: SearchSpace, groups: list[str]) -> list[dict[str, Any]]:
    """Check all but the number: by brute force on the grid of the space's choices."""
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


def test_probes_of_a_conditional_space() -> None:
    found = check_probes(conditional(), ["loss", "optim"])
    assert len(found) <= 11  # 6 pairs, and what they do not hold


def test_probes_hold_pairs_of_conditional_groups() -> None:
    params = {
        "model": "a,b,c",
        "head": {"space": "linear,mlp", "when": "model=a,b"},
        "act": {"space": "relu,gelu", "when": "head=mlp"},
        "loss": "x,y,z",
        "size": {"space": "1,2", "when": ["act=gelu", "model=b"]},
    }
    check_probes(parse_space(params, None, []), ["model", "head", "act", "loss"])
    check_probes(parse_space(params, None, []), [])


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
    assert (
        30 <= len(found) <= 30 * 1.7 + 3
    )  # 30 pairs of a and b; then two more n, one more m; the product has 22,500


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
@settings(deadline=None)
def test_probes_of_any_space(space: SearchSpace, groups: set[str]) -> None:
    reachable = {key for params in space.grid() for key in params}
    assume(reachable == {dimension.key for dimension in space.dimensions})
    check_probes(space, sorted(groups))


@given(spaces())
@settings(deadline=None)
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


# --- for people, and for comparison -----------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("value", "warning"),
    [
        (
            "interval(0.0001,0.1)",
            "optim.lr: interval(0.0001,0.1) is linear over 3 decades: 90% of the draws lie above 0.01; "
            "write tag(log, interval(0.0001,0.1))",
        ),
        (
            "int(interval(1,501))",
            "optim.lr: int(interval(1,501)) is linear over 2.7 decades: 90% of the draws lie above 50.1; "
            "write tag(log, int(interval(1,501)))",
        ),
        (
            "tag(log,range(1,9))",
            "optim.lr: tag(log, ...) changes nothing on a range; write tag(log, interval(...))",
        ),
        ("interval(0.001,0.1)", None),
        ("interval(0.0007,0.07)", None),  # 100.00000000000001 to Python
        ("interval(0,0.1)", None),
        ("interval(-1,1000)", None),
        ("tag(log,interval(0.0001,0.1))", None),
        ("range(1,1000)", None),
        ("1,1000", None),
        ("tag(log,choice(1,2))", None),
    ],
)
def test_warnings(value: str, warning: str | None) -> None:
    space = parse_space({"optim.lr": value}, None, [])
    assert warnings_of(space) == ([warning] if warning else [])
    assert warnings_of(parse_space({"optim.lr": value}, None, ["optim.lr=1"])) == []
    if warning and "write tag(log, int(" in warning:
        better = parse_space({"optim.lr": warning.split("; write ")[1]}, None, [])
        assert distributions(better) == {"optim.lr": IntDistribution(1, 501, log=True)}


def test_distributions_survive_a_storage() -> None:
    for dimension in conditional().dimensions:
        assert (
            json_to_distribution(distribution_to_json(dimension.distribution))
            == dimension.distribution
        )
