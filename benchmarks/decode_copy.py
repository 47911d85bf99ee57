"""How fast does this machine copy memory? Large blocks, all threads at once: what products of one token wait for."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from decode_engine import main


def work(request: dict[str, Any]) -> dict[str, Any]:
    """Bytes read and written per second; `megabytes` is the size of a block of each thread."""
    threads, size = request["threads"], request["megabytes"] << 20
    sources = [np.ones(size, dtype=np.uint8) for _ in range(threads)]
    targets = [np.zeros(size, dtype=np.uint8) for _ in range(threads)]
    shortest = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(request.get("runs", 8)):
            started = time.perf_counter()
            list(pool.map(np.copyto, targets, sources))
            shortest = min(shortest, time.perf_counter() - started)
    return {"bandwidth": 2 * threads * size / shortest}


if __name__ == "__main__":
    main(work)
