"""Looking up what stands behind like tokens, beside the plainest way to do it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from titlegen.generation.lookup import look_up

pytestmark = pytest.mark.usefixtures("one_thread")


def behind(row: list[int]) -> list[int] | None:
    """Return what stands behind the longest run of up to three tokens that a row ends with, the last one of several."""
    for size in (3, 2, 1):
        for end in range(len(row) - 1, size - 1, -1):
            if row[end - size : end] == row[-size:]:
                return row[end:]
    return None


def looked_up(rows: list[list[int]], number: int, before: int = 2, after: int = 4) -> list[list[int]]:
    """Look up with rows that end in different columns, amid tokens that are not theirs."""
    width = before + max(map(len, rows)) + after
    history = torch.full((len(rows), width), 1)
    starts = torch.tensor([before + index % 2 for index in range(len(rows))])
    ends = starts + torch.tensor([len(row) for row in rows])
    for index, row in enumerate(rows):
        history[index, starts[index] : ends[index]] = torch.tensor(row)
    found: list[list[int]] = look_up(history, starts, ends, number).tolist()
    return found


def test_the_longest_run_counts_and_of_several_the_last() -> None:
    #        1 2 -> 9 once, 2 -> 7 later; then the row ends with 1 2.
    assert looked_up([[1, 2, 9, 8, 2, 7, 1, 2]], 2) == [[9, 8]]
    assert looked_up([[1, 2, 9, 5, 1, 2, 7, 5, 1, 2]], 2) == [[7, 5]]
    # A run that goes on into the title: the draft repeats it.
    assert looked_up([[4, 3, 3, 3]], 1) == [[3]]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=14), min_size=1, max_size=4), st.integers(1, 4))
def test_drafts_are_what_the_plainest_way_finds(rows: list[list[int]], number: int) -> None:
    for found, row in zip(looked_up(rows, number), rows, strict=True):
        if (expected := behind(row)) is not None:
            size = min(number, len(expected))
            assert found[:size] == expected[:size]
