"""What files hold of a config with passwords."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from visionsweep.config.secrets import (
    hide_from_hydra,
    mask_key,
    masked_config,
    without_secrets,
)


def test_text_from_the_environment_is_stored_as_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", "s3cret")
    monkeypatch.setenv("URI", "http://bob:s3cret@lab")
    config = OmegaConf.create(
        {
            "uri": "${oc.env:URI}",
            "chained": "x-${.part}",
            "part": "${oc.env:PLANTED}",
            "of_node": "${below}",
            "below": {"key": "${oc.env:PLANTED}", "names": ["a", "${oc.env:PLANTED}"]},
            "plain": "${other}",
            "other": "blue",
            "typed": "http://bob:s3cret@lab",
            "in_part": "http://bob:${oc.env:PLANTED}@lab",
            "count": "${oc.decode:${oc.env:COUNT,3}}",
        }
    )
    stored = without_secrets(config, OmegaConf.to_container(config, resolve=True))
    assert "s3cret" not in str(stored)
    typed = {"key": "${oc.env:PLANTED}", "names": ["a", "${oc.env:PLANTED}"]}
    assert stored == {
        "uri": "${oc.env:URI}",
        "chained": "x-${.part}",
        "part": "${oc.env:PLANTED}",
        "of_node": typed,
        "below": typed,
        "plain": "blue",
        "other": "blue",
        "typed": "http://bob:***@lab",
        "in_part": "http://bob:${oc.env:PLANTED}@lab",
        "count": 3,
    }


def test_hydra_gets_no_password_but_its_environment() -> None:
    hydra = {"overrides": {"task": ["a=http://u:p@h"]}, "job": {"env_set": {"A": "http://u:p@h"}}}
    config = OmegaConf.create({"hydra": hydra, "uri": "http://u:p@h", "seed": "${oc.env:SEED}"})
    copy = OmegaConf.to_container(masked_config(config))
    assert copy == {
        "hydra": {"overrides": {"task": ["a=http://u:***@h"]}, "job": hydra["job"]},
        "uri": "http://u:***@h",
        "seed": "${oc.env:SEED}",
    }
    assert config.uri == "http://u:p@h"
    del config["hydra"], config["uri"]
    assert masked_config(config) is config


def test_files_that_must_hold_a_password_are_for_the_user_alone(tmp_path: Path) -> None:
    hydra = {"output_subdir": ".hydra", "overrides": {"task": ["a=http://u:p@h"]}}
    config = OmegaConf.create({"hydra": hydra, "a": "http://u:p@h"})
    hide_from_hydra(config, tmp_path)
    assert config.hydra.overrides.task == ["a=http://u:***@h"]
    assert config.a == "http://u:p@h"  # the task function needs it
    files = list((tmp_path / ".hydra").iterdir())
    assert len(files) == 3
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_a_value_that_nothing_needs_is_masked_but_not_an_interpolation() -> None:
    config = OmegaConf.create({"a": {"typed": "http://u:p@h", "exported": "${oc.env:NOT_SET}"}})
    for key in ("a.typed", "a.exported"):
        mask_key(config, key)
    assert OmegaConf.to_container(config.a) == {
        "typed": "http://u:***@h",
        "exported": "${oc.env:NOT_SET}",
    }
