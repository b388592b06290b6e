"""Settings of Hydra that reach beyond a run are refused."""

from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from visionsweep.config.hydra_settings import check_hydra_settings, check_logging
from visionsweep.errors import ConfigError

GUARD = {"visionsweep": {"_target_": "visionsweep.callback.RunCallback"}}


def check(**changes: Any) -> None:
    settings = {
        "job": {"env_set": {}, "env_copy": []},
        "output_subdir": ".hydra",
        "callbacks": GUARD,
    }
    check_hydra_settings(OmegaConf.create({**settings, **changes}))


def test_the_defaults_pass() -> None:
    check()
    check(output_subdir=None)
    check(callbacks={"own": {"_target_": "mypkg.Callback"}, **GUARD})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"job": {"env_set": {"PATH": "/x"}, "env_copy": []}}, r"hydra\.job\.env_set: .* PATH"),
        ({"job": {"env_set": {"A": "1"}, "env_copy": ["A"]}}, r"hydra\.job\.env_copy: .* A"),
        ({"output_subdir": "../.."}, r"hydra\.output_subdir: .*'\.\./\.\.'"),
        ({"output_subdir": ".."}, r"hydra\.output_subdir: "),
        ({"output_subdir": "/etc"}, r"hydra\.output_subdir: "),
        ({"callbacks": {}}, r"hydra\.callbacks: .* is missing"),
        ({"callbacks": {"visionsweep": {"_target_": "mypkg.Callback"}}}, r"hydra\.callbacks: "),
    ],
)
def test_a_setting_that_reaches_beyond_the_run_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(**changes)


@pytest.mark.parametrize(
    ("name", "is_right"),
    [
        ("train.log", True),
        ("deep/train.log", True),
        ("events.jsonl", False),
        ("../thesis.log", False),
        ("linked.log", False),
        ("/etc/passwd", False),
    ],
)
def test_only_logs_of_the_run_are_written(
    name: str, is_right: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "linked.log").symlink_to(tmp_path / "thesis.log")
    config = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(run_dir)}}})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config)
    logging = {"handlers": {"file": {"class": "logging.FileHandler", "filename": run_dir / name}}}
    if is_right:
        check_logging(logging)
        return
    with pytest.raises(ConfigError, match="handler file: expected a file"):
        check_logging(logging)


def test_before_a_run_no_log_file_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    check_logging({"handlers": {"console": {"class": "logging.StreamHandler"}}})
    with pytest.raises(ConfigError, match="expected a file"):
        check_logging({"handlers": {"file": {"filename": "x.log"}}})
