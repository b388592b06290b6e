"""Every wrong config node is an error of one line that names its key."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypedDict

import pytest
import torch
from torch import nn

from visionsweep.config import allowed
from visionsweep.config.build import build
from visionsweep.errors import ConfigError


class Target:
    """What the tests build: every kind of annotation that configs meet."""

    def __init__(
        self,
        number: float = 1.0,
        count: int = 1,
        flag: bool = False,
        text: str = "a",
        choice: Literal["a", "b"] = "a",
        items: Sequence[float] | str = "none",
        maybe: int | None = None,
        legacy=0,
        *,
        runtime: int = 0,
    ) -> None:
        self.arguments = {k: v for k, v in locals().items() if k != "self"}


def make(node: dict[str, Any], monkeypatch: pytest.MonkeyPatch, **runtime: Any) -> Any:
    monkeypatch.setattr(allowed, "_GIVEN", f"{__name__}.*")
    return build({"_target_": f"{__name__}.Target", **node}, "group", **runtime)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            {"numbr": 1},
            "group.numbr: Target takes number, count, flag, text, choice, items, maybe, legacy",
        ),
        ({"number": "1e-3x"}, "group.number: expected a number, got '1e-3x'"),
        ({"number": True}, "group.number: expected a number, got True"),
        ({"count": 1.5}, "group.count: expected a whole number, got 1.5"),
        ({"flag": "yes"}, "group.flag: expected true or false, got 'yes'"),
        ({"flag": 1}, "group.flag: expected true or false, got 1"),
        ({"text": 3}, "group.text: expected text, got 3"),
        ({"choice": "c"}, "group.choice: expected one of a, b, got 'c'"),
        ({"items": [1, "x"]}, "group.items: expected a list of (a number) or text, got [1, 'x']"),
        ({"maybe": "3"}, "group.maybe: expected a whole number or null, got '3'"),
        ({"legacy": "0"}, "group.legacy: expected a number, got '0'"),
        ({"number": None}, "group.number: expected a number, got None"),
        ({"runtime": 3}, "group.runtime: Target takes number"),
    ],
)
def test_a_wrong_setting_is_one_line(
    node: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError) as error:
        make(node, monkeypatch, runtime=1)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_right_settings_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    node = {
        "number": 2,
        "count": 3,
        "choice": "b",
        "items": [0.5, 1],
        "maybe": None,
        "legacy": 1e-4,
    }
    built = make(node, monkeypatch, runtime=7, not_wanted=8)
    assert built.arguments == {
        **{"number": 2, "count": 3, "flag": False, "text": "a", "choice": "b", "items": [0.5, 1]},
        **{"maybe": None, "legacy": 1e-4, "runtime": 7},
    }


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",
        "torch.hub.load",
        "builtins.eval",
        "visionsweep.tracking.process.start_uploader",
    ],
)
def test_a_foreign_target_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match=r"loss\._target_: .* is not allowed"):
        build({"_target_": target}, "loss")


def test_a_misspelt_target_is_named() -> None:
    with pytest.raises(ConfigError, match=r"loss\._target_: cannot import '.*\.PolyLos'"):
        build({"_target_": "visionsweep.losses.poly.PolyLos"}, "loss")


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.out_features: required by Linear, but not set"):
        build({"_target_": "torch.nn.Linear", "in_features": 3}, "model")


def test_nested_nodes_are_built_with_the_same_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = {"_target_": f"{__name__}.Target", "count": 2}
    monkeypatch.setattr(allowed, "_GIVEN", f"{__name__}.*")
    held = build({"_target_": f"{__name__}.hold", "steps": {"a": inner}}, "group", runtime=5)
    assert held["a"].arguments["count"] == 2
    assert held["a"].arguments["runtime"] == 5


class Sized(Protocol):
    def __len__(self) -> int: ...


class Options(TypedDict, total=False):
    a: int


def loose(
    note: Any,
    notes: dict[str, Any] | None = None,
    either: int | Any = 0,
    sized: Sized | None = None,
    options: Options | None = None,
    pair: tuple = (),
) -> dict[str, Any]:
    """Return the arguments: annotations that do not say what fits."""
    return locals()


def test_annotations_that_cannot_be_checked_take_any_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(allowed, "_GIVEN", f"{__name__}.*")
    node = {"note": "x", "notes": {"a": [1]}, "either": "y", "sized": "z", "options": {"a": 1}}
    node["pair"] = [1, 2]
    assert build({"_target_": f"{__name__}.loose", **node}, "group") == node


def hold(steps: dict[str, Any], runtime: int) -> dict[str, Any]:
    """Return `steps` as they came."""
    return steps


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "torch.optim.AdamW", "lr": "1e-3x"}, "optim.lr: expected a number"),
        ({"_target_": "torch.optim.AdamW", "betas": [0.9]}, "optim.betas: expected a list of"),
        (
            {"_target_": "torch.optim.SGD", "momentun": 0.9},
            "optim.momentun: SGD takes lr, momentum",
        ),
    ],
)
def test_library_signatures_are_checked_too(node: dict[str, Any], message: str) -> None:
    parameters: Callable[[], Any] = nn.Linear(2, 2).parameters
    with pytest.raises(ConfigError) as error:
        build(node, "optim", params=parameters())
    assert message in str(error.value)


def test_a_library_class_is_built() -> None:
    optimizer = build(
        {"_target_": "torch.optim.AdamW", "lr": 0.1}, "optim", params=nn.Linear(2, 2).parameters()
    )
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["lr"] == 0.1
