"""What `train.py` does to its arguments before Hydra reads them."""

import json
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from visionsweep.cli import prepare_arguments
from visionsweep.config.paths import difference, quote, quote_path_override


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "it's",
        "a\\'b",
        "a\\",
        "\\\\",
        "ends in \\'",
        "tab\there",
        'say "hi"',
        "~",
        "$x",
        "ü, (1)",
    ],
)
def test_a_quoted_value_is_read_back_by_hydra(value: str) -> None:
    override = OverridesParser.create().parse_override(f"data.root={quote(value)}")
    assert override.value() == value


def test_only_paths_are_quoted() -> None:
    assert quote_path_override("loss=a (b)") == "loss=a (b)"
    assert quote_path_override("data.root='a b'") == "data.root='a b'"
    assert quote_path_override("data.root=${oc.env:HOME}/a b") == "data.root=${oc.env:HOME}/a b"
    assert quote_path_override("data.root=null") == "data.root=null"


def test_a_sweep_over_paths_stays_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        quote_path_override("data.path=x/a.csv,x/b.csv", is_multirun=True)
        == "data.path=x/a.csv,x/b.csv"
    )
    assert quote_path_override("data.path=x/a.csv,b.csv") == "data.path='x/a.csv,b.csv'"
    Path("a,b.csv").touch()
    assert quote_path_override("data.path=a,b.csv", is_multirun=True) == "data.path='a,b.csv'"


def make_run(directory: Path, config: str, overrides: list[str]) -> None:
    directory.mkdir()
    (directory / "config.yaml").write_text(config)
    (directory / "environment.json").write_text(json.dumps({"overrides": overrides}))


def test_resume_composes_the_run_again_in_its_directory_with_its_paths(tmp_path: Path) -> None:
    config = (
        "name: first\nstudy: s\nmodel: {pretrained: true}\ndata: {root: /a/my photos, path: null}\n"
    )
    typed = [
        "model=timm",
        "model.pretrained=true",
        "data.root=my photos",
        "name=first",
        "hydra.run.dir=x",
    ]
    make_run(tmp_path / "first", config, typed)
    arguments = prepare_arguments([f"resume={tmp_path}/first", "trainer.device=cpu"])
    assert arguments == [
        "model=timm",
        "model.pretrained=true",  # no path: it stays as it was typed
        "name='first'",
        "study='s'",
        "data.root='/a/my photos'",
        f"resume='{tmp_path}/first'",
        f"hydra.run.dir='{tmp_path}/first'",
        "trainer.device=cpu",
    ]


@pytest.mark.parametrize("prefix", ["+", "++"])
def test_resume_is_understood_with_a_plus(prefix: str, tmp_path: Path) -> None:
    make_run(tmp_path / "first", "name: first\nstudy: s\n", [])
    assert f"hydra.run.dir='{tmp_path}/first'" in prepare_arguments(
        [f"{prefix}resume={tmp_path}/first"]
    )


def test_a_difference_is_named_leaf_by_leaf() -> None:
    stored = {"a": {"b": 1, "c": [1, 2]}, "d": 0}
    assert difference(stored, {"a": {"b": 1, "c": [1, 2]}, "d": 0}) == {}
    assert difference(stored, {"a": {"b": 2, "c": [1]}, "e": None}) == {
        "a.b": (1, 2),
        "a.c": ([1, 2], [1]),
        "d": (0, "(not set)"),
        "e": ("(not set)", None),
    }
    assert difference({"a": 1}, {"a": True}) == {"a": (1, True)}
