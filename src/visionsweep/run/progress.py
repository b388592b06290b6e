"""The progress bar of an epoch on a terminal. It leaves no trace; elsewhere there is none."""

import contextlib
import sys
from collections.abc import Iterable, Iterator

from visionsweep.data.batches import Batch
from visionsweep.training.loop import Progress


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yield the `progress` argument of `fit`."""
    if not sys.stderr.isatty():
        yield lambda updates, _: iter(updates)
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("training"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)

    def tracked(updates: Iterable[list[Batch]], total: int) -> Iterator[list[Batch]]:
        with progress.Progress(
            *columns, console=console, transient=True, refresh_per_second=5
        ) as bar:
            yield from bar.track(updates, total=total)

    yield tracked
