"""The README's table of groups is the one of conf/, and nothing in it is left to fill in."""

import re

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_choices_is_conf() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", README, flags=re.MULTILINE))
    for group in (
        "data",
        "model",
        "loss",
        "optim",
        "scheduler",
        "augment",
        "tracking",
        "experiment",
        "sweep",
    ):
        listed = {
            word
            for word in re.findall(r"`([a-z0-9_]+)`", rows[group])
            if word not in ("true", "false")
        }
        assert listed == {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}, group


def test_the_defaults_in_the_table_are_those_of_the_config() -> None:
    config = (ROOT / "conf/config.yaml").read_text(encoding="utf-8")
    defaults = dict(
        re.findall(r"^  - (?:override )?/?([a-z_]+): (\w+)", config, flags=re.MULTILINE)
    )
    for group, default in re.findall(
        r"^\| `(\w+)` \|.*?`(\w+)` \(default\)", README, flags=re.MULTILINE
    ):
        assert defaults[group] == default


def test_links_lead_somewhere() -> None:
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), (document, target)


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in README
