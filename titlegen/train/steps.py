"""The rows of a step, and their passes and ranks.

A step's rows depend on the seed, the epoch and the effective batch, and on nothing else: neither the number of cards
nor that of rows at a time changes what a step learns from, so a run can be resumed with other ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from titlegen.train.encode import IGNORED, Batch, EncodedRow, NumberedRow
from titlegen.train.ranks import Ranks

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.utils.data import DataLoader
    from transformers import TrainingArguments

Pass = list[list[int]]
"""The rows of each rank in one pass."""


@dataclass(frozen=True)
class Rows:
    """The sizes of encoded rows, by which they are dealt."""

    lengths: list[int]
    """Tokens of each row."""
    labels: list[int]
    """Tokens of each row that have a loss."""

    @classmethod
    def of(cls, rows: Sequence[EncodedRow]) -> Rows:
        """Count the tokens of encoded rows."""
        return cls(
            [len(row["input_ids"]) for row in rows],
            # The first token of a row is predicted by none.
            [sum(label != IGNORED for label in row["labels"][1:]) for row in rows],
        )


def order_rows(rows: Rows, effective: int, seed: int, *, group_by_length: bool) -> list[int]:
    """Return the order of an epoch: random, or with steps of rows of like length in random order.

    Args:
        rows: all rows.
        effective: rows in a step.
        seed: another one for each epoch.
        group_by_length: put rows of like length into one step.
    """
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    generator = torch.Generator().manual_seed(seed)
    # torch's loader draws once before it asks for rows. So does this, for the first epoch to be what it was when the
    # order came from the global generator.
    torch.empty((), dtype=torch.int64).random_(generator=generator)
    if not group_by_length:
        shuffled: list[int] = torch.randperm(len(rows.lengths), generator=generator).tolist()
        return shuffled
    return list(get_length_grouped_indices(rows.lengths, effective, generator=generator))


def deal(step: Sequence[int], lengths: Sequence[int], batch: int, ranks: int) -> list[Pass]:
    """Divide a step's rows into passes of at most ``batch`` rows a rank, with about equal tokens for all ranks.

    With one rank the order stays. A rank may have no row in the last pass of an epoch.
    """
    if ranks == 1:
        return [[list(step[start : start + batch])] for start in range(0, len(step), batch)]
    ordered = sorted(step, key=lambda row: -lengths[row])
    width = ranks * batch
    return [_balance(ordered[start : start + width], lengths, batch, ranks) for start in range(0, len(ordered), width)]


def _balance(rows: Sequence[int], lengths: Sequence[int], batch: int, ranks: int) -> Pass:
    """Give each row, the longest first, to the rank that has the fewest tokens of those with room."""
    # Where rows are few, all ranks get as many as they can.
    room = min(batch, -(-len(rows) // ranks))
    given: Pass = [[] for _ in range(ranks)]
    tokens = [0] * ranks
    for row in rows:
        rank = min((rank for rank in range(ranks) if len(given[rank]) < room), key=lambda rank: tokens[rank])
        given[rank].append(row)
        tokens[rank] += lengths[row]
    return given


class StepSampler:
    """Yields one rank's rows of each pass of an epoch; a batch sampler for torch's ``DataLoader``."""

    def __init__(
        self, rows: Rows, *, batch: int, accumulation: int, seed: int, group_by_length: bool, rank: int, ranks: int
    ) -> None:
        """Take the rows, and how many go through a card at a time, how often in a step, on how many cards."""
        self._rows, self._batch, self._rank, self._ranks = rows, batch, rank, ranks
        self.effective = batch * accumulation * ranks
        self._seed, self._group_by_length = seed, group_by_length
        self._epoch = 0
        self._step_of: dict[int, int] = {}
        self._own: set[int] = set()
        self._steps: list[list[int]] = []

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration has."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Return the number of passes of an epoch, the same for every rank."""
        whole, rest = divmod(len(self._rows.lengths), self.effective)
        width = self._batch * self._ranks
        return whole * (self.effective // width) + -(-rest // width)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the rows of each pass, never none: all ranks take part in the exchange."""
        order = order_rows(self._rows, self.effective, self._seed + self._epoch, group_by_length=self._group_by_length)
        self._steps = [order[start : start + self.effective] for start in range(0, len(order), self.effective)]
        self._step_of = {row: number for number, step in enumerate(self._steps) for row in step}
        passes = [given for step in self._steps for given in deal(step, self._rows.lengths, self._batch, self._ranks)]
        self._own = {row for given in passes for row in given[self._rank]}
        for given in passes:
            # A rank without a row computes another's shortest row, which does not count.
            yield given[self._rank] or [
                min((row for rows in given for row in rows), key=self._rows.lengths.__getitem__)
            ]

    def owns(self, row: int) -> bool:
        """Return whether a row counts on this rank, or only fills a pass."""
        return row in self._own

    def labels(self, rows: Sequence[int]) -> int:
        """Return how many labels these rows have."""
        return sum(self._rows.labels[row] for row in rows)

    def totals(self, row: int) -> tuple[int, int]:
        """Return the labels and the tokens of the whole step that a row is in, on all ranks."""
        step = self._steps[self._step_of[row]]
        return self.labels(step), sum(self._rows.lengths[i] for i in step)


def share_batches(lengths: Sequence[int], batch: int, ranks: Ranks) -> list[list[int]]:
    """Return one rank's share of the batches of rows of like length, the longest first; it may be empty."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return [order[start : start + batch] for start in range(0, len(order), batch)][ranks.rank :: ranks.count]


def load_batches(
    dataset: Dataset,
    batches: Iterable[list[int]],
    collate: Callable[[Sequence[NumberedRow]], Batch],
    arguments: TrainingArguments,
) -> DataLoader[Batch]:
    """Return a loader of these batches of rows, each of which is copied to the GPU while the one before it runs.

    Args:
        dataset: rows by number.
        batches: the numbers of each batch; they are this rank's, and are not dealt again.
        collate: makes a batch of rows.
        arguments: of the trainer.
    """
    from accelerate.data_loader import prepare_data_loader
    from torch.utils.data import DataLoader

    loader: DataLoader[Batch] = prepare_data_loader(
        DataLoader(dataset, batch_sampler=batches, collate_fn=collate, pin_memory=arguments.dataloader_pin_memory),
        arguments.device,
        num_processes=1,
        process_index=0,
        put_on_device=True,
        non_blocking=arguments.accelerator_config.non_blocking,
    )
    return loader
