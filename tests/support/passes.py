"""The order of positions once more, from FORMAT.md alone."""


def pass_of(levels: int, row: int, column: int) -> int:
    """The pass of a position, from the text of the format."""
    if levels == 0:
        return (row + column) % 2
    for k in range(levels):  # finest first
        last = 2 * (levels - k)
        if (row >> k) % 2 != (column >> k) % 2:
            return last
        if (row >> k) % 2 == 1:
            return last - 1
    return 0
