"""A tracking store, through MlflowClient: every MLflow call is here, but for the export of a model.

Every method may be repeated: a second call with the same arguments changes nothing. Errors of
MLflow pass through; the caller waits and tries again.
"""

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

from visionsweep.rundir.journal import Record
from visionsweep.text import first_line, shortened
from visionsweep.tracking.database import initialized, sqlite_file
from visionsweep.tracking.entities import MAX_TAG, finite_or_nan, param_value, safe_key
from visionsweep.tracking.views import View, is_listed, runs_page, view_value

UID_TAG = "visionsweep.uid"
STATE_TAG = "visionsweep.state"
STATE_COLUMN = "state"  # the same under a name that fits above a column
WINNER_TAG = "visionsweep.winner"
MAX_LISTED_VIEWS = 30  # of the 40 that MLflow's menu holds: the others are for the user's own

log = logging.getLogger(__name__)


class RunDeletedError(Exception):
    """Somebody deleted the run, or its experiment, in MLflow; the message says how to mend it."""

    def __init__(self, message: str, experiment: str) -> None:
        super().__init__(message)
        self.experiment = experiment


class RunMissingError(Exception):
    """The store does not know the run: the database behind the address is another one."""


class Store:
    """One tracking URI. It connects at the first use, so the server may be down before that."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client: MlflowClient | None = None
        self._experiments: dict[str, str] = {}

    @property
    def client(self) -> MlflowClient:
        """The MLflow client, connected."""
        if self._client is None:
            with initialized(self.uri):  # the constructor opens the database already
                client = MlflowClient(self.uri, registry_uri=self.uri)
                client.search_experiments(max_results=1)
            self._client = client
        return self._client

    def forget(self) -> None:
        """Drop what is cached: after a failure, the server may have another database."""
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
                raise _experiment_deleted(found)
            self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def ensure_run(
        self,
        experiment: str,
        uid: str,
        name: str,
        start_ms: int | None,
        tags: Mapping[str, str],
        known: str | None = None,
    ) -> str:
        """Return the id of the run tagged with `uid`; creates it if there is none.

        So a `create_run` whose answer was lost makes no second run. Of several, `known` is
        preferred. Raises RunDeletedError.
        """
        experiment_id = self.experiment_id(experiment)
        found = self._runs_of(experiment_id, uid, ViewType.ALL)
        if found:
            found.sort(key=lambda run: (run.info.lifecycle_stage != "active", _id(run) != known))
            self._check_active(found[0])
            self._delete_twins(found[0])
            return _id(found[0])
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
        self._check_active(run)
        self._delete_twins(run)

    def log(
        self,
        run_id: str,
        metrics: Sequence[Record] = (),
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Send metrics records, parameters and tags; return what the store refused, one line each.

        A refused value, such as a parameter that has another value there, costs only itself.
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
            self._check_active(client.get_run(run_id))
        return refused

    def log_datasets(self, run_id: str, datasets: Sequence[Record]) -> None:
        """Log the data sets of the run, each with its digest and split."""
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

    def store_view(self, experiment: str, view: View) -> str:
        """Return the address of a view of the runs, relative to the server; stores it if needed.

        It is the address of the plain table if the store takes no view.
        """
        stored = self.client.get_experiment(self.experiment_id(experiment))
        num_others = sum(is_listed(*tag) for tag in stored.tags.items() if tag[0] != view.tag_key)
        if num_others >= MAX_LISTED_VIEWS:
            view = replace(view, name=None)
        value = view_value(view, stored.creation_time or 0)
        try:
            if stored.tags.get(view.tag_key) != value:
                self.client.set_experiment_tag(stored.experiment_id, view.tag_key, value)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            log.warning("the view %s is not stored: %s", view.key, first_line(error))
            return runs_page(stored.experiment_id)
        return runs_page(stored.experiment_id, view.key)

    def set_running(self, run_id: str) -> None:
        """Mark a resumed run."""
        self.client.update_run(run_id, status="RUNNING")
        self._set_state(run_id, "running")

    def set_ended(self, run_id: str, state: str, end_ms: int) -> None:
        """Mark a run that ended; a tag has the exact state, since MLflow knows no pruned runs."""
        statuses = {"finished": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
        self._set_state(run_id, state)
        status = statuses.get(state, "KILLED")
        self.client.set_terminated(run_id, status=status, end_time=end_ms)
        self._delete_twins(self.client.get_run(run_id))

    def _set_state(self, run_id: str, state: str) -> None:
        tags = [RunTag(STATE_TAG, state), RunTag(STATE_COLUMN, state)]
        self.client.log_batch(run_id, tags=tags)

    def log_file(self, run_id: str, path: Path, folder: str, *, may_link: bool = False) -> None:
        """Upload one file, replacing an earlier one of the same name.

        ``may_link``: the file is only ever replaced as a whole, so a hard link will do if the
        artifacts lie on the same file system; it takes no space.
        """
        if not (may_link and self._link(run_id, path, folder)):
            self.client.log_artifact(run_id, str(path), folder or None)

    def log_text(self, run_id: str, text: str, path: str) -> None:
        """Upload a text as a file, replacing an earlier one."""
        self.client.log_text(run_id, text, path)

    def set_winner(self, experiment: str, parent_run_id: str, run_id: str) -> None:
        """Tag the best run of a sweep, and only that one."""
        query = f"tags.`mlflow.parentRunId` = '{parent_run_id}' AND tags.`{WINNER_TAG}` = 'true'"
        runs = self.client.search_runs([self.experiment_id(experiment)], query)
        winners = {run.info.run_id for run in runs}
        if run_id not in winners:
            self.client.set_tag(run_id, WINNER_TAG, "true")
        for loser in winners - {run_id}:
            self.client.delete_tag(loser, WINNER_TAG)

    def _runs_of(self, experiment_id: str, uid: str, view: int) -> list[Any]:
        query = f"tags.`{UID_TAG}` = '{uid}'"
        return list(self.client.search_runs([experiment_id], query, run_view_type=view))

    def _delete_twins(self, run: Any) -> None:
        """Delete the empty doubles of a run.

        A request to create it that reaches the server after this process gave up on the answer,
        and asked again, makes one.
        """
        uid = run.data.tags[UID_TAG]
        for twin in self._runs_of(run.info.experiment_id, uid, ViewType.ACTIVE_ONLY):
            if _id(twin) != _id(run):
                self.client.delete_run(_id(twin))

    def _check_active(self, run: Any) -> None:
        if run.info.lifecycle_stage == "active":
            return
        experiment = self.client.get_experiment(run.info.experiment_id)
        if experiment.lifecycle_stage != "active":
            raise _experiment_deleted(experiment)
        raise RunDeletedError(
            f"the MLflow run {run.info.run_id} is deleted: `mlflow runs restore --run-id "
            f"{run.info.run_id}`, or send it to another experiment (sync: --experiment)",
            experiment.name,
        )

    def _link(self, run_id: str, path: Path, folder: str) -> bool:
        root = urlsplit(self.client.get_run(run_id).info.artifact_uri)
        if root.scheme != "file":  # a server or a cloud has the artifacts
            return False
        directory = Path(unquote(root.path)) / folder
        temporary = directory / f".{path.name}.link"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            os.link(path, temporary)
            os.replace(temporary, directory / path.name)
            # `os.replace` does nothing if both are the same file already.
            temporary.unlink(missing_ok=True)
        except OSError:  # another file system, or one without links
            return False
        return True


def run_page(experiment_id: str, run_id: str) -> str:
    """Return the address of a run's page, relative to the server.

    Without the workflow type, MLflow 3 opens its page for prompts.
    """
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def _id(run: Any) -> str:
    return str(run.info.run_id)


def _send(items: Sequence[Any], send: Callable[[Sequence[Any]], object]) -> list[str]:
    if not items:
        return []
    try:
        send(items)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        if len(items) == 1:
            return [f"{items[0].key}: {shortened(first_line(error), 300)}"]
        middle = len(items) // 2
        return _send(items[:middle], send) + _send(items[middle:], send)
    return []


def _safe_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {safe_key(key): shortened(str(value), MAX_TAG) for key, value in tags.items()}


def _experiment_deleted(experiment: Any) -> RunDeletedError:
    return RunDeletedError(
        f"the MLflow experiment {experiment.name!r} is deleted: `mlflow experiments restore "
        f"-x {experiment.experiment_id}`, or choose another tracking.experiment "
        "(sync: --experiment)",
        experiment.name,
    )


@contextlib.contextmanager
def patient_requests() -> Iterator[None]:
    """Let MLflow repeat a request that fails, and wait longer for the answer, in the context.

    For what takes many requests and starts anew if one of them fails.
    """
    wanted = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": 2, "MLFLOW_HTTP_REQUEST_TIMEOUT": 60}
    before = {name: os.environ.get(name) for name in wanted}
    for name, value in wanted.items():
        os.environ[name] = str(max(value, int(before[name] or 0)))
    try:
        yield
    finally:
        for name, text in before.items():
            if text is None:
                del os.environ[name]
            else:
                os.environ[name] = text


def _artifact_location(uri: str) -> str | None:
    """Return the folder beside an SQLite database; elsewhere the server decides."""
    database = sqlite_file(uri)
    return None if database is None else (database.parent / "mlartifacts").as_uri()


@contextlib.contextmanager
def _unless(error_code: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        if error.error_code != error_code:
            raise
