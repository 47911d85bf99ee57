"""Resident memory of an export, stage by stage, in a process of its own.

python -m benchmarks.export_memory PACKED --to onnx
"""

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

from edgerazor.core.discovery import load_plugins
from edgerazor.export.export import export_to


def peak(*, forget: bool = False) -> float:
    """Gigabytes resident at most since the last `forget`."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    if forget:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return kilobytes / 1e6


def export(packed: Path, to: str, output: Path) -> None:
    """Export, and print the peak of every stage."""
    registry, stage = load_plugins(), "starting"

    def show(name: str, done: int, total: int) -> None:
        nonlocal stage
        if name != stage:
            print(
                f"{stage}: {peak(forget=True):.2f} GB, {time.process_time():.0f} s of the processor so far", flush=True
            )
            stage = name

    export_to(packed, to, output, registry=registry, progress=show)
    print(f"{stage} and running it: {peak():.2f} GB, {time.process_time():.0f} s of the processor", flush=True)


def main() -> None:
    """Export into a folder that is removed afterwards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packed", type=Path)
    parser.add_argument("--to", default="onnx")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.packed.parent) as folder:
        output = Path(folder) / ("model.gguf" if arguments.to == "gguf" else "model")
        child = multiprocessing.get_context("spawn").Process(
            target=export, args=(arguments.packed, arguments.to, output)
        )
        child.start()
        child.join()


if __name__ == "__main__":
    main()
