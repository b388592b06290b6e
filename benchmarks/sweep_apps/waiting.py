"""A Hydra app for `sweep_idle.py`: the k-th trial that starts takes the k-th of the given lengths.

Its sweeper may be any; the lengths come in one order whatever it draws. Each trial appends its own start and end, seen
from inside the task function, so all that Hydra, the sweeper and the launcher do around it is not work.
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
    """Wait, or compute, for as long as the list in the file `cfg.lengths` says; return something to search."""
    lengths = json.loads(Path(cfg.lengths).read_text(encoding="utf-8"))
    index = _note(Path(cfg.events), {"event": "start"})
    end = time.monotonic() + lengths[index]
    if cfg.spin:
        while time.monotonic() < end:
            pass
    else:
        time.sleep(max(0.0, end - time.monotonic()))
    _note(Path(cfg.events), {"event": "end", "index": index})
    return float((cfg.a - 1) ** 2 + cfg.b + (cfg.c == "left") + 0.1 * cfg.d)


def _note(path: Path, record: dict[str, object]) -> int:
    """Append a record with the time and this process; return how many of its kind there were before."""
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
