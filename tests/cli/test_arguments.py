"""The arguments of `train` before Hydra reads them."""

import json
from pathlib import Path

import pytest

from visionsweep.cli.arguments import prepare_arguments
from visionsweep.rundir.layout import CONFIG, ENVIRONMENT


def make_run(directory: Path, config: str, overrides: list[str]) -> None:
    directory.mkdir()
    (directory / CONFIG).write_text(config)
    (directory / ENVIRONMENT).write_text(json.dumps({"overrides": overrides}))


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_resume_becomes_the_overrides_of_the_run_in_its_directory(
    prefix: str, tmp_path: Path
) -> None:
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
    arguments = prepare_arguments([f"{prefix}resume={tmp_path}/first", "trainer.device=cpu"])
    assert arguments == [
        "model=timm",
        "model.pretrained=true",  # not a path: unchanged
        "name='first'",
        "study='s'",
        "data.root='/a/my photos'",
        f"resume='{tmp_path}/first'",
        f"hydra.run.dir='{tmp_path}/first'",
        "trainer.device=cpu",
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config-path", "mine", "seed=1"], ["--config-path", "{cwd}/mine", "seed=1"]),
        (["-cp=mine"], ["-cp={cwd}/mine"]),
        (["-cp", "pkg://mine"], ["-cp", "pkg://mine"]),
    ],
)
def test_a_config_path_starts_from_the_current_directory(
    arguments: list[str], expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert prepare_arguments(arguments) == [word.format(cwd=tmp_path) for word in expected]


def test_a_password_is_asked_for_again_when_a_run_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "first", "name: first\n", ["+tracking.uri=http://bob:***@lab", "seed=1"])
    resume = f"resume={tmp_path}/first"
    with pytest.raises(SystemExit):
        prepare_arguments([resume])
    assert capsys.readouterr().err == (
        "error: resume: tracking.uri held a password, which is not stored; give it again: "
        f"visionsweep train {resume} tracking.uri=...\n"
    )
    given = "tracking.uri=http://bob:secret@lab"
    arguments = prepare_arguments([resume, given])
    assert (arguments[0], arguments[-1]) == ("seed=1", given)
    assert not any("***" in argument for argument in arguments)


def test_interpolations_of_a_resumed_run_are_read_again(tmp_path: Path) -> None:
    config = "name: first\ndata: {root: '${oc.env:NOT_SET}/x'}\n"
    make_run(tmp_path / "first", config, ["'tracking.uri=${oc.env:URI}'"])
    arguments = prepare_arguments([f"resume={tmp_path}/first"])
    assert arguments[0] == "'tracking.uri=${oc.env:URI}'"
    assert "data.root='${oc.env:NOT_SET}/x'" in arguments
