"""Several processes open a fresh SQLite database together: with MLflow alone, that breaks it.

`VISIONSWEEP_REPEATS=20` tries it 20 times (8 s each on two cores).
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tracking.trials import compare
from visionsweep.tracking.process import start_uploader
from visionsweep.tracking.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # Raised inside mlflow and its dependencies; connections of its pool.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TRIALS = Path(__file__).with_name("trials.py")
NUM_WORKERS = 4
NUM_TRIALS = 40
ERROR = re.compile(r"\b(error|exception|traceback|locked|refused|not sent|retry)\b", re.IGNORECASE)

# A worker of a sweep: one trial after the other.
WORKER = """
import sys
from pathlib import Path
from tests.tracking.trials import ENDS, train
worker, num_workers, directories = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
for number in range(worker, len(directories), num_workers):
    train(Path(directories[number]), seed=1, ending=ENDS[number % len(ENDS)], sleep_seconds=0.005)
"""

# Dies in the middle of one of MLflow's migrations: the statement is done, its version not written.
DYING = """
import os, sys
import sqlalchemy
from visionsweep.tracking.store import Store
count = 0
def before(connection, cursor, statement, *more):
    global count
    count += statement.lstrip().upper().startswith("UPDATE ALEMBIC_VERSION")
    if count == 20:
        os._exit(9)
sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", before)
Store(sys.argv[1]).client
"""


def test_a_death_while_the_database_is_created_leaves_none(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert subprocess.run([sys.executable, "-c", DYING, uri], check=False).returncode == 9
    assert not (tmp_path / "mlflow.db").exists()
    run_id = Store(uri).ensure_run("e", "uid", "name", None, {})
    assert Store(uri).ensure_run("e", "uid", "name", None, {}) == run_id
    assert {path.name for path in tmp_path.iterdir()} <= {
        *("mlflow.db", "mlflow.db-wal", "mlflow.db-shm", "mlflow.db.lock", "mlartifacts")
    }


@pytest.mark.parametrize("repeat", range(int(os.environ.get("VISIONSWEEP_REPEATS", "2"))))
def test_uploaders_share_a_fresh_database(repeat, tmp_path):
    """Four workers write 40 trials while four uploaders create the database: nothing is lost."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    # Seeds of a trial have the records of a sweep, without its page.
    groups = [tmp_path / "multirun" / "s" / str(number) for number in range(NUM_WORKERS)]
    run_dirs = [groups[number % NUM_WORKERS] / f"seed_{number}" for number in range(NUM_TRIALS)]
    uploaders = [start_uploader(group, uri, "seed 1") for group in groups]
    command = [sys.executable, "-c", WORKER]
    workers = [
        subprocess.Popen(
            [*command, str(number), str(NUM_WORKERS), *map(str, run_dirs[::-1])],
            cwd=Path(__file__).parents[2],
        )
        for number in range(NUM_WORKERS)
    ]
    assert [worker.wait() for worker in workers] == [0] * NUM_WORKERS
    assert [uploader.finish(120, lambda behind: None) for uploader in uploaders] == [
        0
    ] * NUM_WORKERS
    for group in groups:
        log = (group / "uploader.log").read_text()
        assert not [line for line in log.splitlines() if ERROR.search(line)], log

    from mlflow import MlflowClient

    assert compare(MlflowClient(uri), "seed 1", run_dirs, tmp_path / "mlartifacts") == []
    assert len(list((tmp_path / "multirun").rglob("events.jsonl"))) == NUM_TRIALS
