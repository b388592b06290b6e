"""The start of a run: its config, environment and split on disk, and the first records."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import OmegaConf

from visionsweep.config.paths import shown
from visionsweep.data.digest import VERSION as DIGEST_VERSION
from visionsweep.data.split_manifest import read_split, split_rows, write_split
from visionsweep.errors import UserError
from visionsweep.run.assemble import RunParts
from visionsweep.run.context import RunContext
from visionsweep.run.copies import conflicting_copies
from visionsweep.run.environment import environment, git_diff
from visionsweep.run.identity import (
    describe_datasets,
    measured_params,
    run_params,
    run_tags,
    run_title,
)
from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.copies import write_copies
from visionsweep.rundir.journal import RUN_NAME_TAG, Journal, Record, read_journal
from visionsweep.rundir.layout import CODE_DIFF, CONFIG, ENVIRONMENT, SPLIT, parse_place
from visionsweep.text import mask_passwords, masked


def write_description(context: RunContext, parts: RunParts) -> dict[str, Any]:
    """Write split, config and environment; return the environment.

    Raises `UserError` before anything is written if the data of a resumed run has changed.
    """
    run_dir = context.run_dir
    split = (parts.dataset, parts.train_indices, parts.val_indices)
    split_path = run_dir / SPLIT
    if not context.is_resumed or not split_path.exists():
        write_split(split_path, *split)
    elif read_split(split_path) != split_rows(*split):
        raise UserError(
            f"{shown(split_path)}: the data has changed since the run started, or its split "
            "was made by another version, so it cannot be resumed exactly; restore the files, or "
            "start a new run"
        )
    if context.is_resumed:
        _refuse_other_images(context, parts)
    _write_copies(context, parts)
    return write_environment(context, parts.dataset.bad_images)


def _write_copies(context: RunContext, parts: RunParts) -> None:
    """Write copies with other labels or splits, once in a sweep, whose trials share their data."""
    if context.place is not None and parse_place(context.place).number > 0:
        return
    copies = conflicting_copies(parts)
    if copies is not None:
        write_copies(context.run_dir, copies)


def write_environment(context: RunContext, bad_images: list[str]) -> dict[str, Any]:
    """Write config, code and environment; return the environment.

    ``bad_images``: files that were left out.
    """
    run_dir = context.run_dir
    write_text(run_dir / CONFIG, OmegaConf.to_yaml(OmegaConf.create(context.stored)))
    diff = git_diff()
    if diff:
        write_text(run_dir / CODE_DIFF, f"{mask_passwords(diff)}\n")
    record = environment()
    if context.first_start is not None:
        first = context.first_start
        record = {**first, "resumed": [*first.get("resumed", ()), record]}
    else:
        record |= {
            "overrides": context.overrides,
            "searched": list(context.searched),
            "bad_images": bad_images,
            "resumed": [],
        }
    write_text(run_dir / ENVIRONMENT, json.dumps(masked(record), indent=2) + "\n")
    return record


def _refuse_other_images(context: RunContext, parts: RunParts) -> None:
    before = _recorded_digests(read_journal(context.run_dir))
    if before is None:
        return
    now = _digests(describe_datasets(context, parts))
    changed = [split for split in now if split in before and now[split] != before[split]]
    if changed:
        raise UserError(
            f"{shown(context.run_dir)}: the images of {' and '.join(changed)} have changed since "
            "the run started (other pixels under the same names), so it cannot be resumed exactly; "
            "restore the files, or start a new run"
        )


def _recorded_digests(records: Iterable[Record]) -> dict[str, str] | None:
    """Return the digest of each split's images as first recorded; None if that is unknown."""
    for record in records:
        if record["type"] == "datasets":
            return _digests(record.get("datasets") or ())
    return None


def _digests(datasets: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    return {
        str(dataset.get("context")): str(dataset.get("digest"))
        for dataset in datasets
        if dataset.get("digest_version") == DIGEST_VERSION
    }


def start_journal(
    context: RunContext, parts: RunParts, environment: dict[str, Any], journal: Journal
) -> None:
    """Record name, parameters, tags, data and files. A resumed run records only what is new."""
    params = run_params(context) | measured_params(context, parts)
    tags = run_tags(context, environment) | {"dataset": parts.dataset.name}
    journal.start(run_title(context), context.config.tracking.experiment, params, tags)
    if _recorded_digests(journal.previous) is None:
        journal.datasets(describe_datasets(context, parts))
    for file in (CONFIG, ENVIRONMENT, SPLIT, CODE_DIFF):
        if (context.run_dir / file).exists():
            journal.artifact(file)


def record_failed_start(context: RunContext, error: str) -> None:
    """Record a trial whose parts could not be built."""
    journal = Journal(context.run_dir)
    try:
        experiment, tags = context.config.tracking.experiment, run_tags(context, environment())
        journal.start(run_title(context), experiment, run_params(context), tags)
        journal.tags({"error": error, RUN_NAME_TAG: run_title(context, "failed")})
        journal.end("failed")
    finally:
        journal.close()
