"""A Hydra app for `sweep_idle.py`: the k-th trial that starts takes the k-th of the given lengths.

Works with any sweeper: the order of the lengths does not depend on the parameters drawn. Each
trial appends its start and end, taken within the task function, so the time that Hydra, sweeper and
launcher spend around it does not count as work.
"""

import fcntl
import json
import os
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig


@hydra.main(config_path=None, config_name=None)
def main(cfg: DictConfig) -> float:
    """Sleep or compute for the trial's length, then return a function of the parameters."""
    lengths = json.loads(Path(cfg.lengths).read_text(encoding="utf-8"))
    index = _note(Path(cfg.times), {"event": "start"})
    end = time.monotonic() + lengths[index]
    if cfg.spin:
        while time.monotonic() < end:
            pass
    else:
        time.sleep(max(0.0, end - time.monotonic()))
    _note(Path(cfg.times), {"event": "end", "index": index})
    return float((cfg.a - 1) ** 2 + cfg.b + (cfg.c == "left") + 0.1 * cfg.d)


def _note(path: Path, record: dict[str, object]) -> int:
    """Append a record with time and process id; return the number of earlier ones of its event."""
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before = sum(json.loads(line)["event"] == record["event"] for line in file)
        index = record.get("index", before)
        file.write(
            json.dumps({**record, "index": index, "time": time.time(), "pid": os.getpid()}) + "\n"
        )
    return before


if __name__ == "__main__":
    main()
