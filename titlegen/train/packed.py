"""Rows of a batch without their padding and with common beginnings once, and attention over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from operator import sub
from typing import TYPE_CHECKING, Any

from titlegen.errors import TrainError
from titlegen.train.encode import IGNORED, Batch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Source: torch.nn.functional.scaled_dot_product_attention; its flash kernels have a backward pass for a head
# dimension of 256 on these compute capabilities only.
_FLASH_CAPABILITIES = frozenset({(8, 0), (9, 0), (10, 0)})
_FLASH_HEAD_DIM = 256


@dataclass(frozen=True)
class Spans:
    """Where each row's part lies in a sequence of such parts."""

    lengths: tuple[int, ...]
    bounds: Tensor
    """(rows + 1,) int32: the first token of each part, and the end."""


@dataclass(frozen=True)
class Packed:
    """A batch as one sequence of T tokens; the last token of a row predicts nothing and is left out.

    Tokens that a row begins with as an earlier one does are there once, in that one: what comes before a token decides
    what a layer makes of it, so they are the same in both.
    """

    ids: Tensor
    """(T,) int64."""
    positions: Tensor
    """(T,) int64: place of each token in its row."""
    kept: Tensor
    """(N,) int64: which of the T tokens predict a label."""
    targets: Tensor
    """(N,) int64: the labels."""
    places: Tensor | None
    """(S,) int64: which of the T tokens stands at each place of the complete rows; None: each in its own."""
    rows: Spans
    """The complete rows among the S places."""
    own_rows: Spans
    """The rows' own tokens among the T tokens."""
    kept_rows: Spans
    """The rows among the N kept tokens."""

    def complete(self, part: Tensor) -> Tensor:
        """Return what was made of the T tokens, (T, ...), for the S places of the complete rows, (S, ...)."""
        return part if self.places is None else part.index_select(0, self.places)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Packed:
        """Return the batch on another device, as tensors do it."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Packed:
        """Return the batch in memory that a GPU copies from while the CPU goes on, as tensors do it."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Packed:
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Spans):
                changed[field.name] = Spans(value.lengths, change(value.bounds))
            else:
                changed[field.name] = None if value is None else change(value)
        return Packed(**changed)


def pack(inputs: Batch, alike: Sequence[int] = ()) -> Packed:
    """Concatenate the rows of a padded batch.

    Args:
        inputs: ``input_ids``, ``attention_mask`` and ``labels``: (batch, seq) int64; padding on either side.
        alike: for each row the number of an earlier one with which it may share its beginning, such as one about the
            same article, or its own, to share with none before it; without it, that is the first row for all.

    Raises:
        TrainError: a row has labels elsewhere than at its end.
    """
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own convention

    present = inputs["attention_mask"].bool()
    # A token stays when another one follows it.
    stays = present & F.pad(present[:, 1:], (0, 1))
    following = F.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)
    labelled = stays & (following != IGNORED)
    positions = present.long().cumsum(1) - 1
    lengths, titles = stays.sum(1), labelled.sum(1)
    at_end = positions >= (lengths - titles)[:, None]
    # Rows begin in one column where they are padded on the right.
    numbers = torch.arange(len(lengths), device=lengths.device)
    # A row that names no earlier one names itself, so that whoever follows the names comes to an end.
    sources = torch.tensor(alike or [0] * len(lengths), device=lengths.device).minimum(numbers)
    unlabelled = stays & ~labelled
    same = (inputs["input_ids"] == inputs["input_ids"][sources]) & unlabelled & unlabelled[sources]
    shared = same.long().cumprod(1).sum(1)
    # Such a row has all of its own; the first is one.
    shared[sources == numbers] = 0
    counts = torch.stack([lengths, titles, (labelled & ~at_end).sum(1), shared]).tolist()
    if any(counts[2]):
        raise TrainError(
            f"row {next(i for i, n in enumerate(counts[2]) if n)} of the batch has labels before masked tokens; the "
            "completion must be the end of a row, or set --train.no-completion-trim"
        )
    own, places = stays, None
    if any(counts[3]):
        own = stays & (positions >= shared[:, None])
        found, further = own.flatten().long().cumsum(0).view_as(positions) - 1, sources
        # What a row shares may be shared by the other one, too.
        while True:
            found = torch.where(own, found, found[sources])
            if torch.equal(further, sources[further]):
                break
            further = sources[further]
        places = found[stays]
    labels = following[own]
    kept = (labels != IGNORED).nonzero()[:, 0]
    return Packed(
        ids=inputs["input_ids"][own],
        positions=positions[own],
        kept=kept,
        targets=labels[kept],
        places=places,
        rows=Spans(tuple(counts[0]), _bounds(lengths)),
        own_rows=Spans(tuple(map(sub, counts[0], counts[3])), _bounds(lengths - shared)),
        kept_rows=Spans(tuple(counts[1]), _bounds(titles)),
    )


def rows_alike(prompts: Iterable[Sequence[int]]) -> list[int]:
    """Return for each prompt the first row that has the same one, or the first row of all."""
    seen: dict[tuple[int, ...], int] = {}
    alike = []
    for row, prompt in enumerate(map(tuple, prompts)):
        alike.append(seen.get(prompt, 0))
        seen.setdefault(prompt, row)
    return alike


def _bounds(lengths: Tensor) -> Tensor:
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own convention

    return F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)


def attend(
    query: Tensor, key: Tensor, value: Tensor, queries: Spans, keys: Spans, *, window: int | None, scale: float
) -> Tensor:
    """Causal attention of each row's last queries to that row's keys alone.

    Args:
        query: (Tq, heads, head_dim), the last tokens of each row.
        key: (Tk, key heads, head_dim).
        value: like ``key``.
        queries: the rows among the queries.
        keys: the rows among the keys.
        window: a query sees this many tokens, itself included; None: all before it.
        scale: factor of the dot products.

    Returns:
        (Tq, heads * head_dim).
    """
    kernel = _attend_rows
    if _has_flash(query):
        kernel = _attend_flash
    elif query.is_cuda and window is None:
        kernel = _attend_efficient
    return kernel(query, key, value, queries, keys, window, scale).flatten(1)


def _has_flash(query: Tensor) -> bool:
    import torch

    return (
        query.is_cuda
        and query.dtype in {torch.bfloat16, torch.float16}
        and query.shape[-1] <= _FLASH_HEAD_DIM
        and torch.cuda.get_device_capability(query.device) in _FLASH_CAPABILITIES
    )


def _attend_flash(  # noqa: PLR0917 - an attention kernel's own arguments
    query: Tensor, key: Tensor, value: Tensor, queries: Spans, keys: Spans, window: int | None, scale: float
) -> Tensor:
    import torch

    longest = max(keys.lengths)
    # The kernel aligns the last query of a row with its last key, which is where our queries lie.
    attended: Tensor = torch.ops.aten._flash_attention_forward(  # noqa: SLF001 - the only variable-length kernel with a window
        query,
        key,
        value,
        queries.bounds,
        keys.bounds,
        max(queries.lengths),
        longest,
        0.0,
        True,  # noqa: FBT003 - causal
        False,  # noqa: FBT003 - no debug mask
        scale=scale,
        window_size_left=window - 1 if window is not None and window < longest else None,
        window_size_right=0,
    )[0]
    return attended


def _attend_efficient(  # noqa: PLR0917 - an attention kernel's own arguments
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: Spans,
    keys: Spans,
    window: int | None,  # noqa: ARG001 - this kernel has no backward pass for one
    scale: float,
) -> Tensor:
    """Attend with heads that are too wide for the flash kernel, without a window."""
    import torch

    groups = query.shape[1] // key.shape[1]
    wide = [part.repeat_interleave(groups, 1)[None] for part in (key, value)]
    attended: Tensor = torch.ops.aten._efficient_attention_forward(  # noqa: SLF001 - the only other variable-length kernel
        query[None],
        *wide,
        None,
        queries.bounds,
        keys.bounds,
        max(queries.lengths),
        max(keys.lengths),
        0.0,
        2,  # causal, where the last query of a row stands at its last key
        torch.is_grad_enabled(),
        scale=scale,
    )[0][0]
    return attended


def _attend_rows(  # noqa: PLR0917 - an attention kernel's own arguments
    query: Tensor, key: Tensor, value: Tensor, queries: Spans, keys: Spans, window: int | None, scale: float
) -> Tensor:
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own convention

    groups = query.shape[1] // key.shape[1]
    attended = []
    parts = (
        torch.split(query, list(queries.lengths)),
        torch.split(key, list(keys.lengths)),
        torch.split(value, list(keys.lengths)),
    )
    for q, k, v in zip(*parts, strict=True):
        mask = _mask(len(q), len(k), window, q.device)
        out = F.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            k.transpose(0, 1).repeat_interleave(groups, 0)[None],
            v.transpose(0, 1).repeat_interleave(groups, 0)[None],
            attn_mask=mask,
            is_causal=mask is None,
            scale=scale,
        )
        attended.append(out[0].transpose(0, 1))
    return torch.cat(attended)


def _mask(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor | None:
    """Return which keys a row's last queries see, (queries, keys) bool; None where plain causal attention is that."""
    import torch

    if queries == keys and (window is None or keys <= window):
        return None
    of_query = torch.arange(keys - queries, keys, device=device)[:, None]
    of_key = torch.arange(keys, device=device)
    seen = of_key <= of_query
    return seen if window is None else seen & (of_key > of_query - window)
