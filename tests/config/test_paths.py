"""Paths on the command line, in Hydra's grammar."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from visionsweep.config.paths import quote, quote_path_override

VALUES = ["plain", "it's", "a\\'b", "a\\", "\\\\", "ends in \\'", "tab\there", 'say "hi"']
VALUES += ["~", "$x", "ü, (1)"]


@pytest.mark.parametrize("value", VALUES)
def test_hydra_reads_a_quoted_value_back(value: str) -> None:
    override = OverridesParser.create().parse_override(f"data.root={quote(value)}")
    assert override.value() == value


def test_only_paths_are_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    unchanged = ["loss=a (b)", "data.root='a b'", "data.root=${oc.env:HOME}/a b", "data.root=null"]
    assert [quote_path_override(argument) for argument in unchanged] == unchanged
    monkeypatch.setenv("HOME", "/home/me")
    assert quote_path_override("data.root=~/a b") == "data.root='/home/me/a b'"


def test_a_sweep_over_paths_stays_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = "data.path=x/a.csv,x/b.csv"
    assert quote_path_override(sweep, is_multirun=True) == sweep
    assert quote_path_override("data.path=x/a.csv,b.csv") == "data.path='x/a.csv,b.csv'"
    Path("a,b.csv").touch()
    assert quote_path_override("data.path=a,b.csv", is_multirun=True) == "data.path='a,b.csv'"
