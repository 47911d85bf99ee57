"""Which of several processes this is, as launchers say it in the environment: the processes need not have met yet."""

import os

# What torchrun and accelerate set, and the MPI launchers that accelerate knows.
_NAMES = {
    "RANK": "WORLD_SIZE",
    "PMI_RANK": "PMI_SIZE",
    "OMPI_COMM_WORLD_RANK": "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_RANK": "MV2_COMM_WORLD_SIZE",
}


def launched() -> tuple[int, int]:
    """Rank of this process, and the number of them; 0 of 1 if it is alone."""
    for rank, processes in _NAMES.items():
        if os.environ.get(rank, "").isdecimal() and os.environ.get(processes, "").isdecimal():
            return int(os.environ[rank]), int(os.environ[processes])
    return 0, 1
