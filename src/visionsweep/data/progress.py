"""The progress of work on many images: a bar on a terminal, elsewhere a line now and then."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

from visionsweep.text import duration_text

SILENT_SECONDS = 5.0  # between two lines


@contextlib.contextmanager
def progress(log: logging.Logger, verb: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes how many of the `total` images are done.

    ``verb`` says what was done to them, such as "decoded". The bar leaves no trace.
    """
    if sys.stderr.isatty():
        with _bar(verb, total) as move:
            yield move
        return
    start = said = time.perf_counter()

    def advance(done: int) -> None:
        nonlocal said
        now = time.perf_counter()
        if now - said >= SILENT_SECONDS:
            said, left = now, (now - start) / done * (total - done)
            log.info(
                "%s %s of %s images, %s left",
                *(verb, f"{done:,}", f"{total:,}", duration_text(left)),
            )

    yield advance


@contextlib.contextmanager
def _bar(verb: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn(verb),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    bar = rich_progress.Progress(
        *columns, console=Console(stderr=True), transient=True, refresh_per_second=5
    )
    with bar:
        task = bar.add_task(verb, total=total)
        yield lambda done: bar.update(task, completed=done)
