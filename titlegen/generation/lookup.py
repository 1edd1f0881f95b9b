"""Drafts of a title: the tokens that stood behind like ones before, in the article or in the title itself.

Headlines copy from their article. A pass that reads a few drafted tokens along with the last written one checks all of
them, and costs little more than one token where launching it, or fetching the weights, is what takes the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# The longest run of tokens that is compared; longer ones in an article have the same continuation.
_LONGEST_RUN = 3


def look_up(history: Tensor, starts: Tensor, ends: Tensor, number: int) -> Tensor:
    """Return what stood behind the longest run of tokens that each row ends with; the last one of several.

    Every shape is known before, and no number leaves the device, so that a recording can contain it. A row that holds
    its last token only once gets any tokens at all.

    Args:
        history: (rows, columns) int64, prompts and titles; what lies outside of a row is not looked at.
        starts: (rows,) int64: the column of each row's first token.
        ends: (rows,) int64: the column behind its last one.
        number: how many tokens are drafted, at least 1.

    Returns:
        (rows, number) int64.
    """
    import torch

    width = history.shape[1]
    columns = torch.arange(width, device=history.device)
    like = columns < (ends - 1)[:, None]
    runs = torch.zeros_like(history)
    for back in range(_LONGEST_RUN):
        written = history.gather(1, (ends - 1 - back).clamp(min=0)[:, None])
        like = like & (history.roll(back, 1) == written) & (columns - back >= starts[:, None])
        runs = runs + like
    place = (runs * width + columns).argmax(1)
    behind = place[:, None] + 1 + torch.arange(number, device=history.device)
    return history.gather(1, behind.clamp(max=width - 1))


def count_right(drafts: Tensor, chosen: Tensor) -> Tensor:
    """Return how many drafts of each row stand before the first wrong one, (rows,); both (rows, number)."""
    return (drafts == chosen).long().cumprod(1).sum(1)
