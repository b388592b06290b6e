"""The progress bar. On a terminal it lives for one epoch and leaves no trace; elsewhere there is none."""

import contextlib
import sys
from collections.abc import Iterable, Iterator

from visionsweep.data.batches import Batch
from visionsweep.training.loop import Progress


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """Give what `fit` takes as `progress`."""
    if not sys.stderr.isatty():
        yield lambda batches, _: iter(batches)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)

    def shown(batches: Iterable[Batch], total: int) -> Iterator[Batch]:
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, refresh_per_second=5) as bar:
            yield from bar.track(batches, total=total)

    yield shown
