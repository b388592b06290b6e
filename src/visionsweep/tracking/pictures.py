"""Draws the pictures of a finished run and sends them, so that training waits for no picture."""

import logging
from pathlib import Path

from visionsweep.rundir.layout import FIGURES
from visionsweep.text import first_line
from visionsweep.tracking.ack import Ack, artifact_record, picture_source, save_ack
from visionsweep.tracking.store import Store

ERROR_TAG = "visionsweep.picture_error"

log = logging.getLogger(__name__)


def send_pictures(store: Store, run_dir: Path, ack: Ack) -> None:
    """Draw the pictures of a run and send those that changed; the caller holds the run's lock.

    An error while drawing costs only the pictures: it is logged, and a tag of the run.
    """
    run_id, source = str(ack.run_id), picture_source(run_dir)
    records = [artifact_record(run_dir, path, FIGURES) for path in _draw(store, run_dir, run_id)]
    for record in records:
        path = record["path"]
        if ack.sent.get(path) != record["sha256"]:
            store.log_file(run_id, run_dir / path, FIGURES)
            ack.sent[path] = record["sha256"]
            save_ack(run_dir, store.uri, ack)
    ack.pictures, ack.pictures_of = records, source
    save_ack(run_dir, store.uri, ack)


def _draw(store: Store, run_dir: Path, run_id: str) -> list[str]:
    try:
        # Here, since it loads matplotlib, which an uploader needs only after the run.
        from visionsweep.report.run.pictures import draw

        return draw(run_dir)
    except Exception as error:
        log.exception("%s: the pictures cannot be drawn", run_dir)
        store.log(run_id, tags={ERROR_TAG: f"{type(error).__name__}: {first_line(error)}"})
        return []
