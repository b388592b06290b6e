"""The upload beside a run or sweep, from start to end, as the terminal shows it.

Imports no MLflow: this is the trainer's side, and the controller's of a sweep.
"""

import logging
import re
from dataclasses import replace
from pathlib import Path

from visionsweep.config.schema import TrackingConfig
from visionsweep.errors import ConfigError
from visionsweep.report.sweep.record import read_sweep
from visionsweep.rundir.confirmation import read_confirmation
from visionsweep.rundir.journal import Journal, read_journal
from visionsweep.rundir.layout import BEST, BEST_TRIAL, run_directories, runs_of_trial
from visionsweep.rundir.result import read_result
from visionsweep.text import counted, is_masked, mask_passwords
from visionsweep.tracking.ack import known_uris, num_behind, page_of, unsent
from visionsweep.tracking.process import page_lines, resolve_uri, start_uploader

log = logging.getLogger(__name__)


class Upload:
    """The upload of a run's or a sweep's directory; its process starts with the object."""

    def __init__(self, directory: Path, tracking: TrackingConfig) -> None:
        self._directory = directory
        self._uri = resolve_uri(tracking.uri, Path.cwd())
        self._wait_seconds = tracking.wait_seconds
        self._process = start_uploader(
            directory, self._uri, tracking.experiment, self._wait_seconds, self._show_connection
        )

    def finish(self, *, is_refused: bool = False) -> None:
        """Wait until everything is sent, for at most `tracking.wait_seconds`.

        ``is_refused``: with nothing to send, add no line after the error.
        """
        is_sent = num_behind(self._directory, self._uri) == 0
        if not run_directories(self._directory) or (is_refused and is_sent):
            self._process.finish(0, lambda _: None)
            return
        if not is_sent:
            log.info("the record is safe in %s; sending the rest to MLflow", self._directory)
        behind = self._process.finish(self._wait_seconds, _show_behind)
        uri = mask_passwords(self._uri)
        lost = unsent(self._directory, self._uri)
        if behind > len(lost):
            error = self._process.error
            log.warning(
                "MLflow: %s did not arrive at %s%s. Nothing is lost; send the rest with: "
                "python sync.py %s --uri %s",
                *(counted(behind - len(lost), "record"), uri, f" ({error})" if error else ""),
                *(self._directory, uri),
            )
        for line in lost:
            log.warning("MLflow: not sent: %s", line)
        for line in page_lines(self._uri, page_of(self._directory, self._uri)):
            log.info("%s", line)

    def _show_connection(self, error: str | None, behind: int) -> None:
        if error is None:
            log.info("MLflow takes the record again")
        else:
            log.warning(
                "MLflow at %s does not take the record (%s); training continues, "
                "%s behind are safe in %s",
                *(mask_passwords(self._uri), error, counted(behind, "record"), self._directory),
            )


def _show_behind(count: int) -> None:
    log.info("MLflow: %s behind", counted(count, "record"))


def store_to_resume(directory: Path, uri: str | None) -> str | None:
    """Return the store that the run or sweep began in; `uri`, as configured, for a new one.

    So it does not matter where the command that resumes it is typed. Raises `ConfigError` if the
    store needs a password that neither `uri` nor the environment has.
    """
    places = (directory, *run_directories(directory))
    known = next((uris[0] for place in places if (uris := known_uris(place))), None)
    if known is not None and not is_masked(known):
        return known
    now = resolve_uri(uri, Path.cwd())
    if is_masked(now) or known not in (None, mask_passwords(now)):
        known = known or now
        raise ConfigError(
            f"tracking.uri: {directory} began in {known}, and passwords are not stored; give it "
            "again with tracking.uri=... or MLFLOW_TRACKING_URI"
        )
    return uri


def check_tracking(tracking: TrackingConfig) -> None:
    """Raise `ConfigError` for settings that contradict each other or are out of range."""
    name = tracking.register
    if name is not None and not tracking.enabled:
        raise ConfigError("tracking.register needs MLflow; remove it, or set tracking=mlflow")
    if name is not None and not re.fullmatch(r"[^/:'\"]+", str(name)):
        raise ConfigError(
            f"tracking.register: expected a name without '/', ':' and quotes, got {name!r}"
        )
    if tracking.system_metrics is not None and tracking.system_metrics < 0.1:
        raise ConfigError(
            "tracking.system_metrics: expected at least 0.1 seconds, or null (off), "
            f"got {tracking.system_metrics}"
        )
    if tracking.wait_seconds < 0:
        raise ConfigError(
            f"tracking.wait_seconds: expected 0 seconds or more, got {tracking.wait_seconds}"
        )


def send_confirmed_study(sweep_dir: Path, tracking: TrackingConfig) -> None:
    """Bring the MLflow run of a study up to date that the sweep in `sweep_dir` has confirmed."""
    found = read_confirmation(sweep_dir)
    study = None if found is None else Path(found.study)
    # A study without a record in MLflow gets none.
    if study is None or not any(known_uris(one) for one in (study, *run_directories(study))):
        return
    try:
        uri = store_to_resume(study, tracking.uri)
    except ConfigError as error:
        log.warning("%s: its answer is not sent to MLflow: %s", study, error)
        return
    Upload(study, replace(tracking, uri=uri)).finish()


def best_run(sweep_dir: Path) -> Path | None:
    """Return the directory of a sweep's best run, the first of its trial; None without one."""
    link = sweep_dir / BEST_TRIAL
    if link.is_symlink():
        return runs_of_trial(sweep_dir / link.readlink())[0]
    ranked = read_sweep(sweep_dir).ranked()  # a plain grid has no link
    return sweep_dir / ranked[0].directory if ranked else None


def request_best_model(sweep_dir: Path, register: str | None) -> bool:
    """Ask for an MLflow model of a sweep's best run, once; return whether there is such a run."""
    best = best_run(sweep_dir)
    result = None if best is None else read_result(best)
    if best is None or result is None or result["state"] != "finished":
        return best is not None
    objective = result["objective"]
    log.info("best run: %s (%s %.4f)", best, objective["metric"], objective["value"])
    is_requested = any(record["type"] == "model" for record in read_journal(best))
    if (best / BEST).is_file() and not is_requested:
        journal = Journal(best)
        journal.model(BEST, step=result["best_epoch"], register=register)
        journal.close()
    return True
