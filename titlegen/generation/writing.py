"""Titles under way: a batch whose tensors stay where they are, so that a pass recorded once serves every later one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from titlegen.generation.cache import KeyCache
from titlegen.generation.lookup import count_right, look_up

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from titlegen.generation.decoder import Prefill
    from titlegen.train.trim import CompletionTrim

# After so many passes it is known whether titles copy; drafts must have saved each this share of a pass.
_TRIAL, _WORTH = 6, 0.15


@dataclass(frozen=True)
class Shape:
    """What a recording is good for."""

    rows: int
    """Titles at a time."""
    longest: int
    """Most tokens of a prompt."""
    title: int
    """Most tokens of a title."""
    lookup: int
    """Tokens of each title that are looked up for a pass."""
    stops: int
    """How many tokens end a title."""
    temperature: float


class Writing:
    """A batch of titles; a pass writes 1 to ``lookup`` + 1 tokens of each."""

    def __init__(self, trim: CompletionTrim, shape: Shape, reading: Prefill, *, records: bool) -> None:
        """Make room for batches of a shape; ``reading`` is one of them, for the types."""
        import torch

        self.shape, self._trim, self._records = shape, trim, records
        windows = [layer.self_attn.sliding_window for layer in trim.model.layers]
        # A pass may write behind the longest title, where nobody reads.
        room = shape.title + shape.lookup + 1
        self._cache = KeyCache(reading.keys, windows, shape.rows, shape.longest, room)
        device = reading.logits.device

        def numbers(*size: int) -> Tensor:
            return torch.zeros(*size, dtype=torch.int64, device=device)

        self._history = numbers(shape.rows, shape.longest + room)
        self._starts, self._ends = numbers(shape.rows), numbers(shape.rows)
        self._stops, self._status = numbers(shape.stops), numbers(4)
        self._ended = numbers(shape.rows).bool()
        self._run: set[int] = set()
        self._recorded: dict[int, Callable[[], object]] = {}

    def begin(self, reading: Prefill, stop: Tensor) -> None:
        """Take prompts in, at most as many as there are rows, and choose the first token of each title."""
        longest, spans = self.shape.longest, reading.packed.rows
        count = len(spans.lengths)
        self._cache.fill(reading.keys, reading.packed)
        self._history[self._cache.places(reading.packed)] = reading.packed.complete(reading.packed.ids)
        first = choose(reading.logits, self.shape.temperature)
        self._history[:count, longest] = first
        self._stops.copy_(stop)
        self._starts.fill_(longest)
        self._starts[:count] -= spans.bounds.diff()
        self._ends.fill_(longest + 1)
        # Rows without a prompt have ended.
        self._ended.fill_(1)
        self._ended[:count] = self._stopped(first) | (self.shape.title == 1)
        self._status.zero_()
        self._count()

    def finish(self, on_token: Callable[[], object]) -> list[list[int]]:
        """Write until every title has ended, and return the tokens of each row, those behind its end as well.

        ``on_token`` is called whenever every title that goes on has one more.
        """
        lookup, told, passes = self.shape.lookup, 1, 0
        while True:
            going, least, tried, gained = self._status.tolist()
            for _ in range(told, least):
                on_token()
            told = max(told, least)
            if not going:
                break
            if passes == _TRIAL and gained < _WORTH * tried:
                lookup = 0
            self._pass(lookup)
            passes += 1
        first = self.shape.longest
        ends = (self._ends - first).tolist()
        rows: list[list[int]] = self._history[:, first:].tolist()
        return [row[:end] for row, end in zip(rows, ends, strict=True)]

    def _pass(self, lookup: int) -> None:
        """Run a pass, or what was recorded of one."""
        if lookup in self._recorded:
            self._recorded[lookup]()
            return
        if self._records and lookup in self._run:
            # Its thousands of small operations take the CPU longer to launch than the GPU to run. The first pass of
            # these shapes loads what it runs, which cannot be recorded.
            self._recorded[lookup] = self._record(lookup)
            self._recorded[lookup]()
            return
        self._run.add(lookup)
        # Nothing is written before every token has been read, so a pass that the compiler ends can begin anew.
        self._trim.compiling(lambda: self._advance(lookup))

    def _record(self, lookup: int) -> Callable[[], object]:
        """Return a pass as a CUDA graph, which the GPU runs again without the CPU; recording runs nothing."""
        import torch

        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._advance(lookup)
        return graph.replay

    def _advance(self, lookup: int) -> None:
        """Write as many tokens of each title as drafts are right, and one more."""
        import torch

        steps = torch.arange(lookup + 1, device=self._ends.device)
        tokens = self._history.gather(1, (self._ends - 1)[:, None])
        if lookup:
            tokens = torch.cat((tokens, look_up(self._history, self._starts, self._ends, lookup)), 1)
        columns = (self._ends - 1)[:, None] + steps
        logits = self._logits(tokens, columns)
        chosen = choose(logits, self.shape.temperature).view_as(tokens)
        right = count_right(tokens[:, 1:], chosen[:, :-1])
        going = ~self._ended
        # What is wrong stands behind the end of its row, and is written over.
        self._history.scatter_(1, columns + 1, chosen)
        self._ends += (right + 1) * going
        self._ends.clamp_(max=self.shape.longest + self.shape.title)
        stopped = (self._stopped(chosen) & (steps <= right[:, None])).any(1)
        self._ended |= stopped | (self._ends - self.shape.longest >= self.shape.title)
        self._status[2] += going.sum()
        self._status[3] += (right * going).sum()
        self._count()

    def _count(self) -> None:
        """Note how many titles go on, and the fewest tokens of one that does."""
        self._status[0] = (~self._ended).sum()
        self._status[1] = (self._ends - self.shape.longest).masked_fill(self._ended, self.shape.title).min()

    def _stopped(self, tokens: Tensor) -> Tensor:
        """Return which tokens end a title."""
        return (tokens[..., None] == self._stops).any(-1)

    def _logits(self, tokens: Tensor, columns: Tensor) -> Tensor:
        """Read tokens that stand in these columns, both (rows, width); return logits, (rows * width, vocabulary)."""
        trim, cache = self._trim, self._cache
        config = trim.model.config
        streams, per_layer = trim.run("embed", trim.model, tokens.flatten())
        angles = trim.angles((columns - self._starts[:, None]).flatten(), streams[0])
        places = cache.columns(self._starts, columns)
        newest: dict[str, int] = {}
        for index, layer in enumerate(trim.model.layers):
            kind, attention = config.layer_types[index], layer.self_attn
            if index <= trim.boundary:
                state, query, key, value = trim.run("read", layer, streams, *angles[kind])
                cache.add(index, places[attention.sliding_window], key, value)
                newest[kind] = index
            else:
                state, query = trim.run("read_query", layer, streams, *angles[kind])
            attended = cache.attend(newest[kind], query, places[attention.sliding_window], attention.scaling)
            own = None if per_layer is None else per_layer[:, index]
            streams = trim.run("write", layer, state, attended, own, trim.thresholds[index])
        logits: Tensor = trim.logits(trim.run("final_hidden", trim.model, streams))
        return logits


def choose(logits: Tensor, temperature: float) -> Tensor:
    """Return a token for each row of logits: the likeliest, or one drawn at a temperature."""
    import torch

    if temperature == 0:
        return logits.argmax(-1)
    shares = (logits.float() / temperature).softmax(-1)
    if logits.device.type == "cpu":
        # One random number a row: one for each of 262,144 tokens takes a CPU a quarter of the pass.
        sums = shares.cumsum(-1)
        total = sums[:, -1:]
        # Rounding could reach the sum, behind which is no token, and in front of which are some without a share.
        below = torch.nextafter(total, torch.zeros_like(total))
        drawn = torch.minimum(torch.rand(len(sums), 1) * total, below)
        return torch.searchsorted(sums, drawn, right=True)[:, 0]
    # The first of events with these rates to happen: a draw in one pass, which can be recorded.
    return (shares / torch.empty_like(shares).exponential_()).argmax(-1)


def can_record(device: torch.device) -> bool:
    """Return whether passes on a device can be recorded."""
    return device.type == "cuda"
