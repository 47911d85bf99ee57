"""Pieces into rows: best fit by decreasing length, in near linear time."""

import numpy as np


def pack_pieces(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Distribute pieces over rows so that no row holds more than `capacity` tokens and few are wasted.

    The longest piece goes first, each into the fullest row that has room. The result depends on the lengths alone.
    Within a row pieces keep their order, and rows are ordered by their first piece, so shuffled documents give
    shuffled rows.

    Args:
        lengths: int64 `[pieces]`, each between 1 and `capacity`.
        capacity: tokens of a row.

    Returns:
        The indices of the pieces of every row; each index once.
    """
    rows: list[list[int]] = []
    rows_by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set where a row with room for exactly r more tokens is open
    for piece in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[piece])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = rows_by_room[room].pop()
            if not rows_by_room[room]:
                rooms &= ~(1 << room)
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(piece)
        if room > length:
            rows_by_room[room - length].append(row)
            rooms |= 1 << (room - length)
    return sorted(sorted(row) for row in rows)
