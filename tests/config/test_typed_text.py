"""Text on the command line, in Hydra's grammar."""

import collections.abc
import dataclasses
import importlib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.conftest import ROOT
from visionsweep.config.build import _hints
from visionsweep.config.schema import Config
from visionsweep.config.typed_text import _WORDS, quote, quote_override

VALUES = ["plain", "it's", "a\\'b", "a\\", "\\\\", "ends in \\'", "tab\there", 'say "hi"']
VALUES += ["~", "$x", "ü, (1)"]


@pytest.mark.parametrize("value", VALUES)
def test_hydra_reads_a_quoted_value_back(value: str) -> None:
    override = OverridesParser.create().parse_override(f"data.root={quote(value)}")
    assert override.value() == value


def test_text_in_a_list_stays_what_was_typed() -> None:
    parse = OverridesParser.create().parse_override
    for key in ("data.label", "data.classes", "data.keep_labels", "data.drop_labels"):
        assert parse(quote_override(f"{key}=[1e3,Skip, 0]")).value() == ["1e3", "Skip", "0"]
        assert parse(quote_override(f"{key}=['a, b',c]")).value() == ["a, b", "c"]
    studies = "hydra.sweeper.warm_start=[multirun/a,2026_11_28]"
    assert parse(quote_override(studies)).value() == ["multirun/a", "2026_11_28"]


def test_other_values_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    unchanged = ["loss=a (b)", "data.root='a b'", "data.root=${oc.env:HOME}/a b", "data.root=null"]
    assert [quote_override(argument) for argument in unchanged] == unchanged
    monkeypatch.setenv("HOME", "/home/me")
    assert quote_override("data.root=~/a b") == "data.root='/home/me/a b'"


def test_a_sweep_over_paths_stays_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = "data.path=x/a.csv,x/b.csv"
    long = f"study={'n' * 300}"
    assert quote_override(long, is_multirun=True) == long
    assert quote_override(sweep, is_multirun=True) == sweep
    assert quote_override("data.path=x/a.csv,b.csv") == "data.path='x/a.csv,b.csv'"
    Path("a,b.csv").touch()
    assert quote_override("data.path=a,b.csv", is_multirun=True) == "data.path='a,b.csv'"


@pytest.mark.parametrize(
    "value",
    [
        *("2026_11_28", "1e3", "-5", "+1", ".5", "5.", "1_0.0_1E-1_0", "inf", "-NaN", "true"),
        *("False", "null", "NULL", "0x1f", "007", "1e", "1.2.3", "none", "a b", "x,y", "a=b", "ü"),
    ],
)
def test_a_name_stays_what_was_typed(value: str) -> None:
    parse = OverridesParser.create().parse_override
    for key in ("name", "study", "tracking.experiment", "hydra.run.dir", "+optim.name"):
        assert parse(quote_override(f"{key}={value}")).value() == value
    assert parse(quote_override(f"data.root={value}")).value() == (
        None if value == "null" else value
    )


def test_words_that_are_no_text_stay() -> None:
    for argument in ("model.pretrained=true", "tracking.uri=null", "resume=null", "optim.lr=1e3"):
        assert quote_override(argument) == argument


def test_names_to_sweep_over_stay_what_was_typed() -> None:
    def values(argument: str) -> list[object]:
        override = OverridesParser.create().parse_override(
            quote_override(argument, is_multirun=True)
        )
        return list(override.sweep_string_iterator())

    assert values("model.name=1e3,a,2_0") == ["'1e3'", "a", "'2_0'"]
    assert values("model.name=choice(a,b)") == ["a", "b"]
    override = OverridesParser.create().parse_override(quote_override("data.classes=[1_0, yes, 2]"))
    assert override.value() == ["1_0", "yes", "2"]
    override = OverridesParser.create().parse_override(quote_override("data.label=[cat,1e3]"))
    assert override.value() == ["cat", "1e3"]
    assert quote_override("data.label=['a b',cat]") == "data.label=['a b',cat]"


def test_every_text_key_of_the_schema_is_known() -> None:
    """Of literals, such as trainer.precision, no value looks like a number.

    split.fold is a number or a word: a number stays one.
    """

    def text_keys(kind: Any, prefix: str = "") -> Iterator[str]:
        for name, hint in typing.get_type_hints(kind).items():
            if dataclasses.is_dataclass(hint):
                yield from text_keys(hint, f"{prefix}{name}.")
            elif int in typing.get_args(hint):
                continue
            elif str in (hint, *typing.get_args(hint)) and typing.get_origin(hint) is not dict:
                yield f"{prefix}{name}"

    assert set(text_keys(Config)) <= set(_WORDS)


def test_every_text_key_of_a_component_is_known() -> None:
    for path in (ROOT / "conf").glob("*/*.yaml"):
        node = yaml.safe_load(path.read_text()) or {}
        if "_target_" not in node:
            continue
        module, _, name = node["_target_"].rpartition(".")
        hints = _hints(getattr(importlib.import_module(module), name))
        for argument, hint in hints.items():
            is_mapping = typing.get_origin(hint) is collections.abc.Mapping
            # A word or numbers, such as data.background=white or [0,0,0]: no text is a number.
            has_numbers = collections.abc.Sequence[int] in typing.get_args(hint)
            if str in (hint, *typing.get_args(hint)) and not is_mapping and not has_numbers:
                assert f"{path.parent.name}.{argument}" in _WORDS
