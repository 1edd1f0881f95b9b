"""Keys and values of prompts and of the titles that are written behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from titlegen.families.modules import KeyValue
    from titlegen.train.packed import Packed


class KeyCache:
    """Keys and values of each layer that has its own, (rows, columns, key heads, head_dim).

    All prompts end in the same column; titles follow, each as far as it has come. Columns that no token of a title sees
    are left out. Every tensor stays where it is while titles are written, and for the next prompts, too.
    """

    def __init__(
        self, keys: Sequence[KeyValue], windows: Sequence[int | None], rows: int, longest: int, room: int
    ) -> None:
        """Make room.

        Args:
            keys: what the layers made of some tokens, for its shapes and types.
            windows: how many tokens each layer sees, itself included; None: all.
            rows: number of prompts.
            longest: most tokens of a prompt.
            room: most tokens that are put behind one.
        """
        self.longest = longest
        self._windows = windows
        self._columns = longest + room
        self._layers = [
            tuple(part.new_zeros(rows, self._columns - self._first(window), *part.shape[1:]) for part in pair)
            for pair, window in zip(keys, windows, strict=False)
        ]

    def fill(self, keys: Sequence[KeyValue], packed: Packed) -> None:
        """Take in what the layers made of prompts, (S, heads, head_dim); at most as many as there are rows."""
        rows, columns = self.places(packed)
        for pair, dense, window in zip(keys, self._layers, self._windows, strict=False):
            first = self._first(window)
            seen = (columns >= first).nonzero()[:, 0]
            for target, part in zip(dense, pair, strict=True):
                target[rows[seen], columns[seen] - first] = part[seen]

    def places(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """Return row and column of each token of prompts, (S,) each."""
        import torch

        rows = torch.repeat_interleave(packed.rows.bounds.diff().long())
        columns = torch.arange(len(rows), device=rows.device) + (self.longest - packed.rows.bounds[1:])[rows]
        return rows, columns

    def _first(self, window: int | None) -> int:
        """Return the first column that a title's first token sees."""
        return 0 if window is None else max(0, self.longest + 1 - window)

    def add(self, layer: int, columns: Tensor, key: Tensor, value: Tensor) -> None:
        """Put keys and values, (rows * width, heads, head_dim), into columns of the rows, (rows, width)."""
        import torch

        for cached, part in zip(self._layers[layer], (key, value), strict=True):
            starts = torch.arange(len(columns), device=columns.device) * cached.shape[1]
            places = starts[:, None] + columns - self._first(self._windows[layer])
            cached.flatten(0, 1).index_copy_(0, places.flatten(), part)

    def masks(self, starts: Tensor, columns: Tensor) -> dict[int | None, Tensor]:
        """Return for each window which of its columns tokens see.

        Args:
            starts: (rows,): the column of each row's first token.
            columns: (rows, width): where the tokens stand.

        Returns:
            (rows, width, columns) bool each.
        """
        import torch

        masks = {}
        for window in set(self._windows):
            places = torch.arange(self._first(window), self._columns, device=columns.device)
            newest = columns[..., None]
            seen = (places >= starts[:, None, None]) & (places <= newest)
            masks[window] = seen if window is None else seen & (places > newest - window)
        return masks

    def attend(self, layer: int, query: Tensor, mask: Tensor, scale: float) -> Tensor:
        """Return what tokens read from a layer, (rows * width, heads * head_dim).

        Args:
            layer: whose keys are read.
            query: (rows * width, heads, head_dim).
            mask: (rows, width, columns).
            scale: factor of the dot products.
        """
        import torch.nn.functional as F  # noqa: N812 - torch's own convention

        key, value = (cached.transpose(1, 2) for cached in self._layers[layer])
        rows, width, _ = mask.shape
        # The heads that share a key stand beside each other: they are its queries, and no key is copied for them.
        grouped = query.view(rows, width, key.shape[1], -1, query.shape[-1]).transpose(1, 2).flatten(2, 3)
        seen = mask[:, :, None].expand(-1, -1, grouped.shape[2] // width, -1).flatten(1, 2)[:, None]
        attended = F.scaled_dot_product_attention(grouped, key, value, attn_mask=seen, scale=scale)
        return (
            attended.view(rows, key.shape[1], width, -1, attended.shape[-1]).transpose(1, 2).reshape(rows * width, -1)
        )
