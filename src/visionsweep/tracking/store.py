"""A tracking store, through MlflowClient: every MLflow call but the export of a model is made here.

Each method may be repeated: a second call with the same arguments changes nothing. Errors of MLflow pass
through; the caller waits and tries again.
"""

import contextlib
import fcntl
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

from visionsweep.rundir.journal import Record
from visionsweep.tracking.ack import without_password
from visionsweep.tracking.entities import MAX_TAG, finite_or_nan, param_value, safe_key, shortened

UID_TAG = "visionsweep.uid"
STATE_TAG = "visionsweep.state"
WINNER_TAG = "visionsweep.winner"
SQLITE = "sqlite:///"

log = logging.getLogger(__name__)


class RunDeletedError(Exception):
    """Somebody deleted the run in MLflow."""


class RunMissingError(Exception):
    """The store does not know the run: another database stands behind the same address."""


class Store:
    """One tracking URI; the connection is made at the first use, so before that the server may be away."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client: MlflowClient | None = None
        self._experiments: dict[str, str] = {}

    @property
    def client(self) -> MlflowClient:
        """The MLflow client, connected."""
        if self._client is None:
            with _first_touch(self.uri):  # the constructor opens the database already
                client = MlflowClient(self.uri, registry_uri=self.uri)
                client.search_experiments(max_results=1)
            self._client = client
        return self._client

    def forget(self) -> None:
        """Ask again for what was learned before a failure: the server may have another database now."""
        self._experiments.clear()

    def experiment_id(self, name: str) -> str:
        """Return the experiment's id; creates it, with its artifacts beside an SQLite database."""
        if name not in self._experiments:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                with _unless("RESOURCE_ALREADY_EXISTS"):
                    self.client.create_experiment(
                        name, artifact_location=_artifact_location(self.uri)
                    )
                found = self.client.get_experiment_by_name(name)
            if found.lifecycle_stage != "active":
                raise RunDeletedError(
                    f"the MLflow experiment {name!r} is deleted: `mlflow experiments restore "
                    f"-x {found.experiment_id}`, or choose another tracking.experiment"
                )
            self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def ensure_run(
        self, experiment: str, uid: str, name: str, start_ms: int | None, tags: Mapping[str, str]
    ) -> str:
        """Return the id of the run tagged with `uid`; creates it if there is none.

        The search makes up for a `create_run` whose answer was lost. Raises RunDeletedError.
        """
        experiment_id = self.experiment_id(experiment)
        found = self.client.search_runs(
            [experiment_id],
            f"tags.`{UID_TAG}` = '{uid}'",
            run_view_type=ViewType.ALL,
            max_results=1,
        )
        if found:
            _check_active(found[0])
            return str(found[0].info.run_id)
        tags = {**tags, UID_TAG: uid}
        run = self.client.create_run(
            experiment_id, start_time=start_ms, tags=_safe_tags(tags), run_name=name
        )
        return str(run.info.run_id)

    def check_run(self, run_id: str, uid: str) -> None:
        """Raise RunMissingError or RunDeletedError if the run cannot be written to."""
        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise RunMissingError(run_id) from error
            raise
        if run.data.tags.get(UID_TAG) != uid:
            raise RunMissingError(run_id)
        _check_active(run)

    def log(
        self,
        run_id: str,
        metrics: Sequence[Record] = (),
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Send metrics records, parameters and tags; return what the store refused, one line each.

        A refused value (a parameter that has another value there) costs itself only, not its batch.
        """
        points = [
            Metric(safe_key(key), finite_or_nan(value), record["time"], record["step"])
            for record in metrics
            for key, value in record["values"].items()
        ]
        items = [Param(safe_key(key), param_value(value)) for key, value in (params or {}).items()]
        tags = dict(tags or {})
        if any(point.value != point.value for point in points):
            tags["visionsweep.nonfinite"] = "1"
        marks = [RunTag(key, value) for key, value in _safe_tags(tags).items()]
        client = self.client
        refused = _send(items, lambda part: client.log_batch(run_id, params=part))
        refused += _send(marks, lambda part: client.log_batch(run_id, tags=part))
        refused += _send(points, lambda part: client.log_batch(run_id, metrics=part))
        if refused:  # a deleted run refuses everything
            _check_active(client.get_run(run_id))
        return refused

    def log_datasets(self, run_id: str, datasets: Sequence[Record]) -> None:
        """Name what the run reads: data set, digest, and whether it trained, validated or tested with it."""
        inputs = [
            DatasetInput(
                Dataset(
                    name=shortened(dataset["name"], 500),
                    digest=dataset["digest"],
                    source_type="local",
                    source=json.dumps({"source": dataset["source"]}, ensure_ascii=False),
                    profile=json.dumps(dataset["profile"], ensure_ascii=False),
                ),
                [InputTag("mlflow.data.context", dataset["context"])],
            )
            for dataset in datasets
        ]
        self.client.log_inputs(run_id, inputs)

    def page_of(self, run_id: str) -> str:
        """Return the address of a run's page on a tracking server."""
        experiment_id = self.client.get_run(run_id).info.experiment_id
        return f"{without_password(self.uri).rstrip('/')}/{run_page(experiment_id, run_id)}"

    def set_running(self, run_id: str) -> None:
        """Mark a run that goes on."""
        self.client.update_run(run_id, status="RUNNING")
        self.client.set_tag(run_id, STATE_TAG, "running")

    def set_ended(self, run_id: str, state: str, end_ms: int) -> None:
        """Mark a run that ended; MLflow has no state for a pruned run: a tag tells it from a finished one."""
        status = {"finished": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}.get(
            state, "KILLED"
        )
        self.client.set_tag(run_id, STATE_TAG, state)
        self.client.set_terminated(run_id, status=status, end_time=end_ms)

    def log_file(self, run_id: str, path: Path, folder: str, *, may_link: bool = False) -> None:
        """Upload one file, replacing an earlier one of the same name.

        ``may_link``: the file is only ever replaced as a whole, so where the artifacts lie on its file system a hard
        link does, which takes no room.
        """
        if not (may_link and self._link(run_id, path, folder)):
            self.client.log_artifact(run_id, str(path), folder or None)

    def log_text(self, run_id: str, text: str, path: str) -> None:
        """Upload a text as a file, replacing an earlier one."""
        self.client.log_text(run_id, text, path)

    def set_winner(self, experiment: str, parent_run_id: str, run_id: str) -> None:
        """Tag the best run of a sweep, and only that one."""
        same_sweep = (
            f"tags.`mlflow.parentRunId` = '{parent_run_id}' AND tags.`{WINNER_TAG}` = 'true'"
        )
        found = {
            run.info.run_id
            for run in self.client.search_runs([self.experiment_id(experiment)], same_sweep)
        }
        if run_id not in found:
            self.client.set_tag(run_id, WINNER_TAG, "true")
        for loser in found - {run_id}:
            self.client.delete_tag(loser, WINNER_TAG)

    def _link(self, run_id: str, path: Path, folder: str) -> bool:
        root = urlsplit(self.client.get_run(run_id).info.artifact_uri)
        if root.scheme != "file":  # the server or a cloud has them
            return False
        directory = Path(unquote(root.path)) / folder
        temporary = directory / f".{path.name}.link"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            os.link(path, temporary)
            os.replace(temporary, directory / path.name)
            temporary.unlink(
                missing_ok=True
            )  # rename does nothing where both are the same file already
        except OSError:  # another file system, or one without links
            return False
        return True


def run_page(experiment_id: str, run_id: str) -> str:
    """Return the place of a run's page, relative to the server; without the mode MLflow 3 opens its one for prompts."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def _send(items: Sequence[Any], send: Callable[[Sequence[Any]], object]) -> list[str]:
    if not items:
        return []
    try:
        send(items)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        if len(items) == 1:
            return [f"{items[0].key}: {str(error)[:300]}"]
        middle = len(items) // 2
        return _send(items[:middle], send) + _send(items[middle:], send)
    return []


def _safe_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {safe_key(key): shortened(str(value), MAX_TAG) for key, value in tags.items()}


def _check_active(run: Any) -> None:
    if run.info.lifecycle_stage != "active":
        raise RunDeletedError(
            f"the MLflow run {run.info.run_id} is deleted; `mlflow runs restore` brings it back"
        )


def _artifact_location(uri: str) -> str | None:
    """Beside an SQLite database; elsewhere the server decides."""
    if not uri.startswith(SQLITE):
        return None
    return (_database_path(uri).parent / "mlartifacts").as_uri()


def _database_path(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE).partition("?")[0])


@contextlib.contextmanager
def _first_touch(uri: str) -> Iterator[None]:
    """Let one process at a time initialize an SQLite database, and turn its write-ahead log on.

    MLflow creates its tables without a lock: two processes that open a fresh file together leave it broken for good
    (mlflow 3.17). So does a death while it does: its migrations commit each statement, and the version only after
    that. So the file is made under another name. The log halves the cost of a write, and readers no longer stop the
    writer.
    """
    if not uri.startswith(SQLITE):
        yield
        return
    database = _database_path(uri)
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(database.name + ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            _make(database)
        with contextlib.closing(sqlite3.connect(database, timeout=5)) as connection:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:  # in use by a reader: slower, but right
                log.warning("%s stays without a write-ahead log: %s", database, error)
        yield


def _make(database: Path) -> None:
    """Have MLflow make its tables under another name, which becomes `database` when it is whole."""
    temporary = database.with_name(f".{database.name}.new")
    for suffix in ("", "-journal"):  # of one that died
        temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)
    MlflowClient(f"{SQLITE}{temporary}", registry_uri=f"{SQLITE}{temporary}").search_experiments(
        max_results=1
    )
    if database.exists():  # `mlflow ui` was faster: it does not know the lock
        temporary.unlink()
    else:
        os.replace(temporary, database)


@contextlib.contextmanager
def _unless(error_code: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        if error.error_code != error_code:
            raise
