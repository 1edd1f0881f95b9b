"""Keys and values of prompts and of the titles that are written behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from titlegen.families.modules import KeyValue
    from titlegen.train.packed import Packed


# A kernel of attention copies masks of other widths first, for each layer.
_ALIGNED = 16


class Columns(NamedTuple):
    """Where the tokens of a pass stand, the same for all layers with one window."""

    places: Tensor
    """(rows * width,) int64: their places among a layer's rows * columns."""
    hidden: Tensor
    """(rows, 1, width, 1, columns): 0 for what a token sees, minus infinity for the rest."""


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
        self._columns = -(-(longest + room) // _ALIGNED) * _ALIGNED
        self._layers = [
            tuple(part.new_zeros(rows, self._columns - self._first(window), *part.shape[1:]) for part in pair)
            for pair, window in zip(keys, windows, strict=False)
        ]

    def fill(self, keys: Sequence[KeyValue], packed: Packed) -> None:
        """Take in what the layers made of prompts, (S, heads, head_dim); at most as many as there are rows."""
        rows, columns = self.places(packed)
        places = {}
        for window in set(self._windows):
            first = self._first(window)
            # What nobody sees any more is left out; finding that out takes the GPU's answer.
            seen = (columns >= first).nonzero()[:, 0] if first else slice(None)
            places[window] = seen, rows[seen], columns[seen] - first
        for pair, dense, window in zip(keys, self._layers, self._windows, strict=False):
            seen, row, column = places[window]
            for target, part in zip(dense, pair, strict=True):
                target[row, column] = part[seen]

    def places(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """Return row and column of each token of prompts, (S,) each."""
        import torch

        rows = torch.repeat_interleave(packed.rows.bounds.diff().long())
        columns = torch.arange(len(rows), device=rows.device) + (self.longest - packed.rows.bounds[1:])[rows]
        return rows, columns

    def _first(self, window: int | None) -> int:
        """Return the first column that is kept: at or shortly before the first one that a title's first token sees."""
        return 0 if window is None else max(0, self.longest + 1 - window) // _ALIGNED * _ALIGNED

    def columns(self, starts: Tensor, columns: Tensor) -> dict[int | None, Columns]:
        """Return for each window where the tokens of a pass stand, and what they see.

        Args:
            starts: (rows,): the column of each row's first token.
            columns: (rows, width): where the tokens stand.
        """
        import torch

        like, found = self._layers[0][0], {}
        for window in set(self._windows):
            first = self._first(window)
            size = self._columns - first
            places = torch.arange(first, self._columns, device=columns.device)
            newest = columns[..., None]
            seen = (places >= starts[:, None, None]) & (places <= newest)
            if window is not None:
                seen &= places > newest - window
            hidden = torch.zeros_like(seen, dtype=like.dtype).masked_fill_(~seen, -torch.inf)
            rows = torch.arange(len(columns), device=columns.device)[:, None] * size
            found[window] = Columns((rows + columns - first).flatten(), hidden[:, None, :, None])
        return found

    def add(self, layer: int, columns: Columns, key: Tensor, value: Tensor) -> None:
        """Put keys and values of a pass, (rows * width, heads, head_dim), into their places."""
        for cached, part in zip(self._layers[layer], (key, value), strict=True):
            cached.flatten(0, 1).index_copy_(0, columns.places, part)

    def attend(self, layer: int, query: Tensor, columns: Columns, scale: float) -> Tensor:
        """Return what tokens read from a layer, (rows * width, heads * head_dim).

        Args:
            layer: whose keys are read.
            query: (rows * width, heads, head_dim).
            columns: of the layer's window.
            scale: factor of the dot products.
        """
        import torch.nn.functional as F  # noqa: N812 - torch's own convention

        key, value = (cached.transpose(1, 2) for cached in self._layers[layer])
        rows, _, width, *_ = columns.hidden.shape
        # The heads that share a key stand beside each other: they are its queries, and no key is copied for them.
        grouped = query.view(rows, width, key.shape[1], -1, query.shape[-1]).transpose(1, 2)
        hidden = columns.hidden.expand(-1, -1, -1, grouped.shape[3], -1).flatten(2, 3)
        attended = F.scaled_dot_product_attention(grouped.flatten(2, 3), key, value, attn_mask=hidden, scale=scale)
        return (
            attended.view(rows, key.shape[1], width, -1, attended.shape[-1]).transpose(1, 2).reshape(rows * width, -1)
        )
