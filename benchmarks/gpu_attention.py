"""Attention with heads of 512 over packed rows, forwards and backwards: which kernel is fastest.

``python benchmarks/gpu_attention.py OUT [--rows N] [--small]`` writes OUT/attention_512.json: milliseconds of each way,
its GiB beside the inputs, and how far result and gradients are from float32. Flash attention ends at heads of 256.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

HEADS, KEY_HEADS, HEAD_DIM = 8, 2, 512
_LENGTHS = (2048, 1531, 912, 640, 2011, 333, 1207, 801)
_PASSES = 10


def main() -> None:
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--small", action="store_true", help="short rows, to try this script")
    arguments = parser.parse_args()
    lengths = [length // (32 if arguments.small else 1) for length in _LENGTHS[: arguments.rows]]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    total = sum(lengths)
    shapes = ((total, HEADS, HEAD_DIM), (total, KEY_HEADS, HEAD_DIM), (total, KEY_HEADS, HEAD_DIM))
    exact = [0.3 * torch.randn(shape, device=device) for shape in shapes]
    truth = gradients(rows_one_by_one, exact, lengths)
    rounded = [part.bfloat16() for part in exact]
    found: dict[str, Any] = {"lengths": lengths, "ways": {}}
    found["device"] = torch.cuda.get_device_name() if device == "cuda" else device
    for name, way in WAYS.items():
        try:
            found["ways"][name] = measure(way, rounded, lengths, truth)
        except Exception as error:  # noqa: BLE001 - a kernel that this card has not is a finding, too
            found["ways"][name] = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        sys.stdout.write(f"{name}: {found['ways'][name]}\n")
    (arguments.out / "attention_512.json").write_text(json.dumps(found, indent=1) + "\n")


def rows_one_by_one(query: Any, key: Any, value: Any, lengths: list[int]) -> Any:
    """PyTorch's own attention, a row at a time."""
    from titlegen.train.packed import _attend_rows

    return _attend_rows(query, key, value, _spans(tuple(lengths)), _spans(tuple(lengths)), None, 1.0)


def memory_efficient(query: Any, key: Any, value: Any, lengths: list[int]) -> Any:
    """The memory-efficient kernel, which takes all rows at once."""
    from titlegen.train.packed import _attend_efficient

    return _attend_efficient(query, key, value, _spans(tuple(lengths)), _spans(tuple(lengths)), None, 1.0)


def flex(query: Any, key: Any, value: Any, lengths: list[int]) -> Any:
    """Flex attention, compiled, with a mask of blocks."""
    attend, mask = _flex(tuple(lengths), str(query.device))
    parts = (part.transpose(0, 1)[None] for part in (query, key, value))
    return attend(*parts, block_mask=mask, scale=1.0, enable_gqa=True)[0].transpose(0, 1)


WAYS: dict[str, Callable[..., Any]] = {"rows": rows_one_by_one, "efficient": memory_efficient, "flex": flex}


@cache
def _spans(lengths: tuple[int, ...]) -> Any:
    import torch

    from titlegen.train.packed import Spans

    device = "cuda" if torch.cuda.is_available() else "cpu"
    bounds = torch.tensor([0, *lengths], device=device).cumsum(0).to(torch.int32)
    return Spans(lengths, bounds)


@cache
def _flex(lengths: tuple[int, ...], device: str) -> tuple[Any, Any]:
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    document = torch.repeat_interleave(torch.tensor(lengths, device=device))

    def causal_in_row(_batch: Any, _head: Any, query: Any, key: Any) -> Any:
        return (document[query] == document[key]) & (query >= key)

    total = sum(lengths)
    mask = create_block_mask(causal_in_row, None, None, total, total, device=device)
    return torch.compile(flex_attention) if device.startswith("cuda") else flex_attention, mask


def gradients(way: Callable[..., Any], parts: list[Any], lengths: list[int]) -> list[Any]:
    """Return the result and the gradients of its sum of squares."""
    inputs = [part.detach().requires_grad_() for part in parts]
    result = way(*inputs, lengths)
    result.float().square().sum().backward()
    return [result.detach().float().reshape(-1), *(part.grad.float().reshape(-1) for part in inputs)]


def measure(way: Callable[..., Any], parts: list[Any], lengths: list[int], truth: list[Any]) -> dict[str, Any]:
    import torch

    found = gradients(way, parts, lengths)
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(found, truth, strict=True)]
    del found
    cuda = parts[0].is_cuda
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    started = time.perf_counter()
    for _ in range(_PASSES if cuda else 1):
        gradients(way, parts, lengths)
    if cuda:
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / (_PASSES if cuda else 1)
    gib = (torch.cuda.max_memory_allocated() - before) / 2**30 if cuda else 0.0
    return {"ms": round(1000 * seconds, 2), "gib": round(gib, 2), "relative_error": [round(e, 5) for e in errors]}


if __name__ == "__main__":
    main()
