"""What comparing the digests costs: a packed checkpoint of random weights, loaded with and without it in turns.

    python -m benchmarks.load_check FOLDER --gigabytes 2 --loads 7

Loading maps the file and reads none of the weights, which the first token does; so that is measured too. The folder is
made first, unless it is there; the first load brings it into the page cache. Time is that of the processor, over all
threads: on one core it is what the clock shows, and other processes do not count in it.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks.pack_memory import write_model
from edgerazor.checkpoint import load_model
from edgerazor.checkpoint.pack_source import pack_source
from edgerazor.core.discovery import load_plugins
from edgerazor.core.registry import Registry
from edgerazor.core.tensor_files import INDEX


def packed_folder(root: Path, gigabytes: float, preset: str) -> Path:
    """A packed checkpoint of a model of that many gigabytes in 16 bits, made once."""
    source, packed = root / f"{gigabytes:g}GB", root / f"packed-{gigabytes:g}GB-{preset}"
    if not (packed / "edgerazor.json").exists():
        if not (source / INDEX).exists():
            write_model(source, gigabytes)
        pack_source(str(source), registry=load_plugins(), output=packed, preset=preset)
    return packed


@torch.no_grad()
def load(packed: Path, registry: Registry, *, verify: bool) -> tuple[float, float]:
    """Seconds of the processor for a load, and for a load with its first token."""
    started = time.process_time()
    model = load_model(packed, registry=registry, verify=verify)
    loaded = time.process_time()
    model(input_ids=torch.tensor([[1]]))
    return loaded - started, time.process_time() - started


def main() -> None:
    """Load in turns, and print the medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--preset", default="4-bit")
    parser.add_argument("--loads", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    packed, registry = packed_folder(arguments.folder, arguments.gigabytes, arguments.preset), load_plugins()
    seconds: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for number in range(arguments.loads + 1):
        for verify in (True, False) if number % 2 else (False, True):
            taken = load(packed, registry, verify=verify)
            if number:
                seconds[verify].append(taken)
    print(f"{sum(path.stat().st_size for path in packed.glob('*.safetensors')) / 1e6:.0f} MB of weights")
    for index, what in enumerate(("loading", "loading and first token")):
        checked, unchecked = ([pair[index] for pair in seconds[verify]] for verify in (True, False))
        ratios = [more / less for more, less in zip(checked, unchecked, strict=True)]
        print(
            f"{what}: {statistics.median(unchecked):.3f} s of the processor, with the check "
            f"{statistics.median(checked):.3f} s; ratio {statistics.median(ratios):.3f}, {min(ratios):.3f} to "
            f"{max(ratios):.3f}"
        )


if __name__ == "__main__":
    main()
