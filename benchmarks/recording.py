"""What the record costs: `python benchmarks/recording.py`. One thread, `cnn`, Fashion-MNIST (48,000).

At the end of each epoch the recorder writes best.pt, last.pt and the journal, each flushed to disk. Prints its share of
the epoch (training and validation), and one JSON line. The bar is 2 %.
"""

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import hydra
import torch
from machine import machine

import visionsweep.config  # noqa: F401 - registers the schema
from visionsweep.assembly import assemble
from visionsweep.description import resolved_config
from visionsweep.recording import Best, Recorder
from visionsweep.tracking.journal import Journal
from visionsweep.training import EpochResult, fit

CONF = Path(__file__).resolve().parent.parent / "conf"
EPOCHS = 3


def main() -> None:
    """Train, time each call of the recorder, print."""
    torch.set_num_threads(1)
    with hydra.initialize_config_dir(str(CONF)):
        overrides = ["data=fashion_mnist", f"trainer.epochs={EPOCHS}", "trainer.threads=1"]
        config = resolved_config(hydra.compose("config", overrides))
    experiment = assemble(config)
    calls: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal(Path(directory))
        recorder = Recorder(
            Path(directory),
            experiment.state,
            Best("maximize", None, 0.0),
            journal,
            epochs=EPOCHS,
            inference={},
            objective="val/f1_macro",
        )

        def timed(result: EpochResult) -> str | None:
            started = time.perf_counter()
            reason = recorder(result)
            calls.append(time.perf_counter() - started)
            return reason

        started = time.perf_counter()
        fit(experiment.state, experiment.train, experiment.val, experiment.settings, on_epoch_end=timed)
        epoch = (time.perf_counter() - started) / EPOCHS
        journal.close()
    share = statistics.median(calls) / epoch
    print(f"{machine()}  1 thread, {EPOCHS} epochs")
    print(f"epoch {epoch:.1f} s, record {1000 * statistics.median(calls):.1f} ms: {100 * share:.2f} % of an epoch")
    print(json.dumps({"epoch_seconds": round(epoch, 2), "record_share": round(share, 5)}))


if __name__ == "__main__":
    main()
