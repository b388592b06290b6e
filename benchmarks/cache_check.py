"""The check of a cache file at the start of a run: `python benchmarks/cache_check.py`.

1 GB of decoded images (6,643 of 3x224x224) is written and read back 7 times. Prints the median of
the wall time and of the processor time; the file is in the page cache.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine

from visionsweep.data import cache_file

SHAPE = (6643, 3, 224, 224)


def main() -> None:
    """Measure and print."""
    wall, cpu = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.npy")
        chunk = np.random.default_rng(0).integers(0, 256, (91, *SHAPE[1:]), dtype=np.uint8)
        cache_file.write(path, SHAPE, (chunk for _ in range(SHAPE[0] // 91)), {})
        for _ in range(7):
            start = time.perf_counter(), time.process_time()
            assert cache_file.read(path, SHAPE) is not None
            wall.append(time.perf_counter() - start[0])
            cpu.append(time.process_time() - start[1])
        size = path.stat().st_size
    seconds = {"wall_seconds": statistics.median(wall), "cpu_seconds": statistics.median(cpu)}
    print(json.dumps({"bytes": size, **seconds, **machine()}, indent=2))


if __name__ == "__main__":
    main()
