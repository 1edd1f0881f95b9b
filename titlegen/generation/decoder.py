"""Titles with the trimmed computation: prompts without padding, and upper layers for the title alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from titlegen.train.encode import IGNORED
from titlegen.train.packed import Packed, pack, rows_alike
from titlegen.train.trim import CompletionTrim

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from titlegen.families.modules import KeyValue


@dataclass(frozen=True)
class Reading:
    """Prompts that a model has read: any number of titles can be written for them."""

    packed: Packed
    keys: list[KeyValue]
    """Key and value of the prompts' tokens, (S, heads, head_dim), for each layer that has its own."""
    logits: Tensor
    """(rows, vocabulary): of each title's first token."""


class TitleDecoder:
    """Writes a model's titles, many at a time; greedy ones as ``generate`` of transformers does, up to rounding.

    Prompts are read as one sequence without padding, common beginnings once, so that a prompt may stand there often. Of
    their tokens only the last enters the layers that share others' keys, and the head (:mod:`titlegen.train.trim`);
    those layers keep no keys of their own either.
    """

    def __init__(self, model: nn.Module) -> None:
        """Take a causal LM for which ``can_trim`` holds, or a PEFT model around one, in evaluation mode."""
        self._trim = CompletionTrim(model, clamp=False)

    def generate(
        self, prompts: Sequence[Sequence[int]], stop: Collection[int], max_new_tokens: int, temperature: float = 0.0
    ) -> list[list[int]]:
        """Read prompts and write a title for each; arguments and result as for :meth:`write`."""
        return self.write(self.read(prompts), stop, max_new_tokens, temperature)

    def read(self, prompts: Sequence[Sequence[int]]) -> Reading:
        """Read the tokens of prompts."""
        import torch

        trim = self._trim
        with torch.inference_mode():
            packed = _pack_prompts(prompts, trim.model.embed_tokens.weight.device)
            keys: list[KeyValue] = []
            return Reading(packed, keys, trim.logits(trim.hidden(packed, keys)))

    def write(
        self,
        reading: Reading,
        stop: Collection[int],
        max_new_tokens: int,
        temperature: float = 0.0,
        on_token: Callable[[], object] = lambda: None,
    ) -> list[list[int]]:
        """Return the tokens of a title for each prompt, without the one that ended it.

        At temperature 0 they are the likeliest; at any other they are drawn, with torch's own generator. ``on_token``
        is called whenever every title has one more.
        """
        import torch

        with torch.inference_mode():
            written = self._write(reading, stop, max_new_tokens, partial(_choose, temperature=temperature), on_token)
        ends = [next((i for i, token in enumerate(row) if token in stop), len(row)) for row in written]
        return [row[:end] for row, end in zip(written, ends, strict=True)]

    def _write(
        self,
        reading: Reading,
        stop: Collection[int],
        max_new_tokens: int,
        choose: Callable[[Tensor], Tensor],
        on_token: Callable[[], object],
    ) -> list[list[int]]:
        import torch

        token = choose(reading.logits)
        device = token.device
        windows = [layer.self_attn.sliding_window for layer in self._trim.model.layers]
        cache = _Cache(reading.keys, reading.packed, windows, max_new_tokens)
        stops = torch.tensor(sorted(stop), device=device)
        written, ended = [token], torch.isin(token, stops)
        follow: Callable[[Tensor], Tensor] = partial(self._follow, cache, choose)
        for step in range(max_new_tokens - 1):
            if bool(ended.all()):
                break
            if step == 1 and _can_record(device):
                # Its thousands of small operations take the CPU longer to launch than the GPU to run. The first step
                # of these shapes loads what it runs, which cannot be recorded.
                follow = _recorded(follow, token)
            token = follow(token)
            written.append(token)
            on_token()
            ended |= torch.isin(token, stops)
        rows: list[list[int]] = torch.stack(written, 1).tolist()
        return rows

    def _follow(self, cache: _Cache, choose: Callable[[Tensor], Tensor], token: Tensor) -> Tensor:
        """Return the token that each row writes behind ``token``; both (rows,)."""
        trim = self._trim
        config = trim.model.config
        streams, per_layer = trim.decoder.enter(trim.model, token)
        angles = trim.angles(cache.lengths + cache.step, streams[0])
        masks = cache.masks()
        newest: dict[str, int] = {}
        for index, layer in enumerate(trim.model.layers):
            kind, attention = config.layer_types[index], layer.self_attn
            if index <= trim.boundary:
                state, query, key, value = trim.decoder.read(layer, streams, *angles[kind])
                cache.add(index, key, value)
                newest[kind] = index
            else:
                state, query = trim.decoder.read_query(layer, streams, *angles[kind])
            attended = cache.attend(newest[kind], query, masks[attention.sliding_window], attention.scaling)
            own = None if per_layer is None else per_layer[:, index]
            streams = trim.decoder.write(layer, state, attended, own, trim.thresholds[index])
        cache.step += 1
        return choose(trim.logits(trim.decoder.leave(trim.model, streams)))


class _Cache:
    """Keys and values of each layer that has its own, (rows, columns, key heads, head_dim).

    All rows end in the same column, so that the next token of each stands in the next one. Columns that no later token
    sees are left out. Every shape stays as it is while titles are written, and the place of the newest token is a
    tensor: one recording serves every step.
    """

    def __init__(self, keys: Sequence[KeyValue], packed: Packed, windows: Sequence[int | None], room: int) -> None:
        """Take what the prompts' layers made, how many tokens each layer sees, and the longest title's tokens."""
        import torch

        self.lengths = packed.rows.bounds.diff().long()
        self.step = torch.zeros((), dtype=torch.int64, device=self.lengths.device)
        self._windows, self._longest, self._room = windows, max(packed.rows.lengths), room
        rows = torch.repeat_interleave(self.lengths)
        columns = torch.arange(len(rows), device=rows.device) + (self._longest - packed.rows.bounds[1:])[rows]
        self._layers = []
        for pair, window in zip(keys, windows, strict=False):
            first = self._first(window)
            seen = (columns >= first).nonzero()[:, 0]
            shape = (len(self.lengths), self._longest - first + room)
            dense = [part.new_zeros(*shape, *part.shape[1:]) for part in pair]
            for target, part in zip(dense, pair, strict=True):
                target[rows[seen], columns[seen] - first] = part[seen]
            self._layers.append(dense)

    def _first(self, window: int | None) -> int:
        """Return the first column that the next token sees."""
        return 0 if window is None else max(0, self._longest + 1 - window)

    def add(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Put the newest token's key and value behind the others."""
        column = (self._longest - self._first(self._windows[layer]) + self.step)[None]
        for cached, part in zip(self._layers[layer], (key, value), strict=True):
            cached.index_copy_(1, column, part[:, None])

    def masks(self) -> dict[int | None, Tensor]:
        """Return for each window which of its columns the newest token sees, (rows, 1, 1, columns) bool."""
        import torch

        masks = {}
        for window in set(self._windows):
            columns = torch.arange(self._first(window), self._longest + self._room, device=self.lengths.device)
            newest = self._longest + self.step
            seen = (columns >= (self._longest - self.lengths)[:, None]) & (columns <= newest)
            masks[window] = (seen if window is None else seen & (columns > newest - window))[:, None, None]
        return masks

    def attend(self, layer: int, query: Tensor, mask: Tensor, scale: float) -> Tensor:
        """Return what the newest token, (rows, heads, head_dim), reads from a layer: (rows, heads * head_dim)."""
        import torch
        import torch.nn.functional as F  # noqa: N812 - torch's own convention

        key, value = (cached.transpose(1, 2) for cached in self._layers[layer])
        # The heads that share a key stand beside each other: they are its queries, and no key is copied for them.
        grouped = torch.unflatten(query, 1, (key.shape[1], -1))
        return F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scale).flatten(1)


def _choose(logits: Tensor, temperature: float) -> Tensor:
    """Return a token for each row of logits: the likeliest, or one drawn at a temperature."""
    import torch

    if temperature == 0:
        return logits.argmax(-1)
    # The first of events with these rates to happen: a draw in one pass, which can be recorded.
    waits = torch.empty_like(logits, dtype=torch.float32).exponential_()
    return ((logits.float() / temperature).softmax(-1) / waits).argmax(-1)


def _can_record(device: torch.device) -> bool:
    return device.type == "cuda"


def _recorded(function: Callable[[Tensor], Tensor], example: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function of one tensor as a CUDA graph, which the GPU runs again without the CPU."""
    import torch

    given = example.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(given)

    def replay(argument: Tensor) -> Tensor:
        given.copy_(argument)
        graph.replay()
        return result.clone()

    return replay


def _pack_prompts(prompts: Sequence[Sequence[int]], device: torch.device) -> Packed:
    """Pack prompts whose last token alone predicts something: here a label that is not read."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    def padded(rows: Sequence[list[int]], filling: int) -> Tensor:
        return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=filling).to(device)

    inputs = {
        "input_ids": padded([[*prompt, 0] for prompt in prompts], 0),
        "attention_mask": padded([[1] * (len(prompt) + 1) for prompt in prompts], 0),
        "labels": padded([[*[IGNORED] * len(prompt), 0] for prompt in prompts], IGNORED),
    }
    return pack(inputs, rows_alike(prompts))
