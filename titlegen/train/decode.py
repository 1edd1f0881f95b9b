"""Greedy titles with the trimmed computation: prompts without padding, and upper layers for the title alone."""

from collections.abc import Collection, Sequence
from typing import Any

from titlegen.train.packed import Packed, Spans
from titlegen.train.trim import CompletionTrim


class TitleDecoder:
    """Writes a model's likeliest titles, many at a time; the same as ``generate`` of transformers, up to rounding.

    Prompts are read as one sequence without padding. Of their tokens only the last enters the layers that share others'
    keys, and the head (:mod:`titlegen.train.trim`); those layers keep no keys of their own either.
    """

    def __init__(self, model: Any) -> None:
        """Take a Gemma 3 or Gemma 3n causal LM, or a PEFT model around one, in evaluation mode."""
        self._trim = CompletionTrim(model, clamp=False)

    def generate(self, prompts: Sequence[Sequence[int]], stop: Collection[int], max_new_tokens: int) -> list[list[int]]:
        """Return the tokens of each title, without the one that ended it."""
        import torch

        with torch.inference_mode():
            written = self._write(prompts, stop, max_new_tokens)
        ends = [next((i for i, token in enumerate(row) if token in stop), len(row)) for row in written]
        return [row[:end] for row, end in zip(written, ends, strict=True)]

    def _write(self, prompts: Sequence[Sequence[int]], stop: Collection[int], max_new_tokens: int) -> list[list[int]]:
        import torch

        trim = self._trim
        device = trim.model.embed_tokens.weight.device
        packed = _pack_prompts(prompts, device)
        keys: list[tuple[Any, Any]] = []
        token = trim.logits(trim.hidden(packed, keys)).argmax(-1)
        cache = _Cache(keys, packed, max_new_tokens)
        del keys
        stops = torch.tensor(sorted(stop), device=device)
        written, ended = [token], torch.isin(token, stops)
        for step in range(max_new_tokens - 1):
            if bool(ended.all()):
                break
            token = trim.logits(self._step(token, cache, step)).argmax(-1)
            written.append(token)
            ended |= torch.isin(token, stops)
        rows: list[list[int]] = torch.stack(written, 1).tolist()
        return rows

    def _step(self, token: Any, cache: "_Cache", step: int) -> Any:
        """Return the final hidden states behind one more token of each row, (rows, hidden)."""
        trim = self._trim
        config = trim.model.config
        streams, per_layer = trim.architecture.enter(trim.model, token)
        angles = trim.angles(cache.lengths + step, streams[0])
        masks = cache.masks(step, {layer.self_attn.sliding_window for layer in trim.model.layers})
        newest: dict[str, int] = {}
        for index, layer in enumerate(trim.model.layers):
            kind, attention = config.layer_types[index], layer.self_attn
            if index <= trim.boundary:
                state, query, key, value = trim.architecture.read(layer, streams, *angles[kind])
                cache.add(index, step, key, value)
                newest[kind] = index
            else:
                state, query = trim.architecture.read_query(layer, streams, *angles[kind])
            attended = cache.attend(newest[kind], step, query, masks[attention.sliding_window], attention.scaling)
            own = None if per_layer is None else per_layer[:, index]
            streams = trim.architecture.write(layer, state, attended, own, trim.thresholds[index])
        return trim.architecture.leave(trim.model, streams)


class _Cache:
    """Keys and values of each layer that has its own, (rows, columns, key heads, head_dim).

    All rows end in the same column, so that the next token of each stands in the next one.
    """

    def __init__(self, keys: Sequence[tuple[Any, Any]], packed: Packed, room: int) -> None:
        import torch

        self.lengths = packed.positions[packed.kept] + 1
        self._longest = max(packed.rows.lengths)
        rows = torch.repeat_interleave(self.lengths)
        columns = packed.positions + (self._longest - self.lengths)[rows]
        shape = (len(self.lengths), self._longest + room)
        self._layers = []
        for pair in keys:
            dense = [part.new_zeros(*shape, *part.shape[1:]) for part in pair]
            for target, part in zip(dense, pair, strict=True):
                target[rows, columns] = part
            self._layers.append(dense)

    def add(self, layer: int, step: int, key: Any, value: Any) -> None:
        """Put the newest token's key and value behind the others."""
        for cached, part in zip(self._layers[layer], (key, value), strict=True):
            cached[:, self._longest + step] = part

    def masks(self, step: int, windows: Collection[int | None]) -> dict[int | None, Any]:
        """Return for each window which columns the newest token sees, (rows, 1, 1, columns) bool."""
        import torch

        at = self._longest + step
        columns = torch.arange(at + 1, device=self.lengths.device)
        filled = columns >= (self._longest - self.lengths)[:, None]
        seen = {window: filled if window is None else filled & (columns > at - window) for window in windows}
        return {window: mask[:, None, None] for window, mask in seen.items()}

    def attend(self, layer: int, step: int, query: Any, mask: Any, scale: float) -> Any:
        """Return what the newest token, (rows, heads, head_dim), reads from a layer: (rows, heads * head_dim)."""
        import torch.nn.functional as F  # noqa: N812 - torch's own convention

        key, value = (cached[:, : self._longest + step + 1].transpose(1, 2) for cached in self._layers[layer])
        # The heads that share a key stand beside each other: they are its queries, and no key is copied for them.
        grouped = query.unflatten(1, (key.shape[1], -1))
        return F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scale).flatten(1)


def _pack_prompts(prompts: Sequence[Sequence[int]], device: Any) -> Packed:
    import torch

    def tensor(values: Any, dtype: Any = torch.int64) -> Any:
        return torch.tensor(values, dtype=dtype, device=device)

    lengths = tuple(map(len, prompts))
    ends = tensor(lengths).cumsum(0)
    return Packed(
        ids=tensor([token for prompt in prompts for token in prompt]),
        positions=tensor([place for length in lengths for place in range(length)]),
        kept=ends - 1,
        targets=tensor([]),
        rows=Spans(lengths, torch.nn.functional.pad(ends, (1, 0)).to(torch.int32)),
        kept_rows=Spans((1,) * len(lengths), torch.arange(len(lengths) + 1, dtype=torch.int32, device=device)),
    )
