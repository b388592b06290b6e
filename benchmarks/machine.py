"""The machine and versions that every benchmark prints with its figures."""

import platform
from importlib import metadata
from pathlib import Path


def machine() -> dict[str, str]:
    """Return processor, system and versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    versions = {name: metadata.version(name) for name in ("torch", "torchvision", "timm", "mlflow")}
    return {
        "processor": model,
        "system": platform.system(),
        "python": platform.python_version(),
        **versions,
    }
