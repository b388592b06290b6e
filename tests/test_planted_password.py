"""Everything that a run and a sweep wrote, searched for passwords that were planted."""

import os
import sqlite3
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import Command

pytestmark = pytest.mark.slow

TYPED, EXPORTED = "s3c@ret/PW", "fromENVironment"
NOWHERE = "127.0.0.1:9"  # the discard port: nothing listens
URI = f"http://bob:{TYPED}@{NOWHERE}"
QUICK = ["trainer.epochs=1", "trainer.threads=1", "tracking.wait_seconds=2"]


@pytest.fixture
def holders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function: what commands printed -> where a planted password is."""
    monkeypatch.setenv("PLANTED", EXPORTED)

    def find(*done: "subprocess.CompletedProcess[str]") -> list[str]:
        secrets = [secret.encode() for secret in (TYPED, EXPORTED)]
        texts = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        texts |= {str(one.args): (one.stdout + one.stderr).encode() for one in done}
        return [place for place, text in texts.items() if any(s in text for s in secrets)]

    return find


def test_a_run(train: Command, tmp_path: Path, holders) -> None:
    typed = train("name=typed", f"tracking.uri={URI}", *QUICK)
    exported = train("name=env", "tracking.uri=http://bob:${oc.env:PLANTED}@127.0.0.1:9", *QUICK)
    assert (typed.returncode, exported.returncode) == (0, 0)
    stored = (tmp_path / "outputs/env/config.yaml").read_text()
    assert "uri: http://bob:${oc.env:PLANTED}@127.0.0.1:9" in stored
    store = f"sqlite:///{tmp_path}/m.db"
    sent = train("outputs/typed", "outputs/env", "--uri", store, script="sync.py")
    refused = train("outputs/typed", "--uri", URI, script="sync.py")
    assert (sent.returncode, refused.returncode) == (0, 1)
    tags = sqlite3.connect(tmp_path / "m.db").execute("SELECT value FROM tags WHERE key='command'")
    assert sorted("bob:" in value for (value,) in tags) == [True, True]
    assert holders(typed, exported, sent, refused) == []


def test_a_sweep(train: Command, holders) -> None:
    arguments = ["--multirun", "study=s", "sweep=grid", "optim.lr=0.01,0.1", "loss=cross_entropy"]
    plan = train(*arguments, f"tracking.uri={URI}", "hydra.sweeper.dry_run=true")
    typed = train(*arguments, f"tracking.uri={URI}", *QUICK)
    again = train("--multirun", "study=s", f"tracking.uri={URI}")
    assert (plan.returncode, typed.returncode) == (0, 0), typed.stderr
    assert holders(plan, typed, again) == []


def test_no_process_shows_it_in_its_arguments(tmp_path: Path) -> None:
    from visionsweep.tracking.process import start_uploader

    uploader = start_uploader(tmp_path / "run", URI, "e")
    process, deadline = psutil.Process(uploader.pid), time.monotonic() + 30
    # `Popen` returns a moment before the kernel has put the arguments in place.
    while not (arguments := process.cmdline()) and time.monotonic() < deadline:
        time.sleep(0.01)
    uploader.finish(0, lambda behind: None)
    assert os.fspath(tmp_path / "run") in arguments
    assert not any(TYPED in argument for argument in arguments)
