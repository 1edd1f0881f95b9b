"""Titles with the trimmed computation: prompts without padding, and upper layers for the title alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from titlegen.environment import one_thread
from titlegen.generation.writing import Shape, Writing, can_record
from titlegen.train.encode import IGNORED
from titlegen.train.packed import Packed, pack, rows_alike
from titlegen.train.trim import CompletionTrim

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from titlegen.families.modules import KeyValue

# Prompts are taken as long as the next multiple of this; so many shapes are kept.
_COLUMNS, _KEPT = 64, 4
# More titles at a time keep a GPU busy alone; benchmarks/gpu_lookup.py measures where that begins. A CPU is as soon as
# there are several tokens: its products of four rows take nearly twice as long as those of one.
_LOOKUP, _MOST_ROWS = 3, {"cuda": 8}
# Prompt tokens after which compiling pays on a GPU. Measured, E4B on an H200: 36 s of compiling, of which each of 64
# titles at a time, with its prompt of 624 tokens, wins back 5 ms.
COMPILE_TOKENS = 4_500_000


@dataclass(frozen=True)
class Prefill:
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

    def __init__(
        self,
        model: nn.Module,
        lookup: int | None = None,
        *,
        records: bool = True,
        compile_after: int | None = None,
    ) -> None:
        """Take a model, and how many tokens of each title are looked up for a pass.

        Args:
            model: a causal LM for which ``can_trim`` holds, or a PEFT model around one, in evaluation mode.
            lookup: 0 for none; without it, as many as pay on the model's device.
            records: run passes from recordings where the device can.
            compile_after: compile each kind of layer once the prompts have so many tokens together, those that were
                read before counted; None: never.
        """
        self._trim, self._lookup, self._records = CompletionTrim(model, clamp=False), lookup, records
        # The last used ones last.
        self._kept: dict[Shape, Writing] = {}
        self._tokens, self._compile_after = 0, compile_after

    def generate(
        self, prompts: Sequence[Sequence[int]], stop: Collection[int], max_new_tokens: int, temperature: float = 0.0
    ) -> list[list[int]]:
        """Read prompts and write a title for each; arguments and result as for :meth:`write`."""
        return self.write(self.read(prompts), stop, max_new_tokens, temperature)

    def read(self, prompts: Sequence[Sequence[int]]) -> Prefill:
        """Read the tokens of prompts."""
        import torch

        trim = self._trim

        def compute() -> Prefill:
            keys: list[KeyValue] = []
            return Prefill(packed, keys, trim.logits(trim.hidden(packed, keys)))

        with torch.inference_mode():
            packed = _pack_prompts(prompts).to(trim.model.embed_tokens.weight.device)
            self._count(len(packed.ids))
            return trim.compiling(compute)

    def write(
        self,
        reading: Prefill,
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
            stops = torch.tensor(sorted(stop), device=reading.logits.device)
            writing = self._writing(reading, stops, max_new_tokens, temperature)
            writing.begin(reading, stops)
            written = writing.finish(on_token)[: len(reading.packed.rows.lengths)]
        ends = [next((i for i, token in enumerate(row) if token in stop), len(row)) for row in written]
        return [row[:end] for row, end in zip(written, ends, strict=True)]

    def _count(self, tokens: int) -> None:
        """Compile from now on where the tokens of prompts are as many as that takes."""
        self._tokens += tokens
        if self._compile_after is not None and self._tokens >= self._compile_after:
            self._compile_after, self._trim.compiled = None, True
            # What was recorded is not compiled.
            self.forget()

    def forget(self) -> None:
        """Give back the memory of what is kept for the next batches."""
        self._kept.clear()

    def _writing(self, reading: Prefill, stop: Tensor, max_new_tokens: int, temperature: float) -> Writing:
        """Return room for a batch; where passes are recorded, that of an earlier one of the same shape."""
        rows, longest = len(reading.packed.rows.lengths), max(reading.packed.rows.lengths)
        lookup = default_lookup(stop.device, rows) if self._lookup is None else self._lookup
        kept = self._records and can_record(stop.device)
        if kept:
            # Few shapes: a recording takes longer than a title, and more columns cost next to nothing.
            rows, longest = 2 ** (rows - 1).bit_length(), -(-longest // _COLUMNS) * _COLUMNS
        if self._trim.compiled:
            # One token alone is not compiled.
            rows = max(rows, 2)
        shape = Shape(rows, longest, max_new_tokens, lookup, len(stop), temperature)
        writing = self._kept.pop(shape, None) or Writing(self._trim, shape, reading, records=kept)
        if kept:
            self._kept[shape] = writing
            while len(self._kept) > _KEPT:
                self._kept.pop(next(iter(self._kept)))
        return writing


def default_lookup(device: torch.device, rows: int) -> int:
    """Return how many tokens of each title are looked up for a pass."""
    return _LOOKUP if rows <= _MOST_ROWS.get(device.type, 0) else 0


@one_thread()
def _pack_prompts(prompts: Sequence[Sequence[int]]) -> Packed:
    """Pack prompts whose last token alone predicts something: here a label that is not read.

    On the host, for packing asks for numbers a dozen times, each of which a GPU would be waited for.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    def padded(rows: Sequence[list[int]], filling: int) -> Tensor:
        return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=filling)

    inputs = {
        "input_ids": padded([[*prompt, 0] for prompt in prompts], 0),
        "attention_mask": padded([[1] * (len(prompt) + 1) for prompt in prompts], 0),
        "labels": padded([[*[IGNORED] * len(prompt), 0] for prompt in prompts], IGNORED),
    }
    return pack(inputs, rows_alike(prompts))
