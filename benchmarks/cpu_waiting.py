"""Waiting threads, spinning or asleep: training and generation on a quiet CPU, and on a shared one.

``python benchmarks/cpu_waiting.py [--work train] [--waits default spin_1000] [--spinners 0 2] [--rounds N]``; a process
for each way of waiting, which take turns in windows of seconds, quiet and beside processes that spin. What is reported
are ratios to the first way of waiting within one run. For a quiet machine where there is none, as root:
``chrt -f 10 python benchmarks/cpu_waiting.py --spinners 0``.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from machine import write_result

# The library's own way, and a wait of so many rounds before sleeping.
WAITS = {
    "default": {},
    "asleep": {"OMP_WAIT_POLICY": "passive"},
    **{
        f"spin_{count}": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": str(count)}
        for count in (1000, 10_000, 100_000)
    },
    "one_thread": {"OMP_NUM_THREADS": "1"},
}
_ROWS, _NEW_TOKENS = 8, 16
# Ends with its parent, whatever ends that.
_SPIN = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): pass"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", choices=["train", "generate"], default="train")
    parser.add_argument("--waits", nargs="+", choices=sorted(WAITS), default=["default", "asleep", "spin_1000"])
    parser.add_argument("--spinners", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=float, default=20.0, help="seconds")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.work)
        return
    metrics: dict[str, float] = {}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(worker(arguments.work, WAITS[name])) for name in arguments.waits}
        for spinners in arguments.spinners:
            rates: dict[str, list[float]] = {name: [] for name in workers}
            with spinning(spinners):
                for _ in range(arguments.rounds):
                    for name, process in workers.items():
                        rates[name].append(ask(process, arguments.window))
                        print(spinners, name, f"{rates[name][-1]:.3f}", file=sys.stderr, flush=True)
            medians = {name: statistics.median(found) for name, found in rates.items()}
            base = medians[arguments.waits[0]]
            metrics |= {f"{name}_beside_{spinners}": median / base for name, median in medians.items()}
    path = write_result(
        f"waiting_{arguments.work}",
        metrics,
        f"median rate in {arguments.rounds} windows of {arguments.window:.0f} s in turn, over that of "
        f"{arguments.waits[0]}. NAME_beside_N: while N other processes keep a core busy each. default: the library's "
        "own waiting; asleep: none; spin_N: N rounds of it, then asleep.",
        "torch",
    )
    print(path)


@contextmanager
def worker(kind: str, wait: dict[str, str]) -> Iterator[Any]:
    """Run a process that waits in this way, ready to work."""
    own = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"}
    environment = {key: value for key, value in os.environ.items() if key not in own} | wait
    command = [sys.executable, __file__, "--worker", "--work", kind]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:  # noqa: S603 - our own command
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


@contextmanager
def spinning(count: int) -> Iterator[None]:
    """Keep so many cores busy, as far as there are any."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", _SPIN, str(os.getpid())]))  # noqa: S603
            for _ in range(count)
        ]
        try:
            yield
        finally:
            for process in processes:
                process.kill()


def ask(process: Any, seconds: float) -> float:
    """Return how many pieces of work a second a worker does in a window."""
    process.stdin.write(f"{seconds}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def work(kind: str) -> None:
    """Load the embedded model, then work for as many seconds as each line of stdin says."""
    out, sys.stdout = sys.stdout, sys.stderr
    piece = {"train": training, "generate": generation}[kind]()
    next(piece)
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        started, done = time.monotonic(), 0
        while time.monotonic() - started < float(line):
            next(piece)
            done += 1
        print(done / (time.monotonic() - started), file=out, flush=True)


def training() -> Iterator[None]:
    """Train a step of the quickstart each time."""
    import torch

    from titlegen.families.gemma3 import PROMPT
    from titlegen.models import resolve_base
    from titlegen.settings import load_settings
    from titlegen.train.backends import load_for_training
    from titlegen.train.encode import encode_examples
    from titlegen.train.shared import as_record
    from titlegen.train.trainer import collator
    from titlegen.train.trim import CompletionTrim

    settings = load_settings(profile="quickstart")
    model, tokenizer = load_for_training(resolve_base(settings.model), settings.train)
    rows = encode_examples(articles(), tokenizer, PROMPT, settings.train.max_length)
    size = settings.train.per_device_train_batch_size
    collate, loss = collator(tokenizer), CompletionTrim(model.train())
    batches = [
        collate([as_record(row, number) for number, row in enumerate(rows[at : at + size])])
        for at in range(0, len(rows), size)
    ]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    while True:
        for batch in batches:
            loss(batch).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield


def generation() -> Iterator[None]:
    """Write titles for a few articles each time."""
    from titlegen.generation import TransformersGenerator
    from titlegen.models import resolve_base
    from titlegen.settings import load_settings

    settings = load_settings(profile="quickstart")
    decoding = settings.evaluate.model_copy(update={"max_new_tokens": _NEW_TOKENS})
    generator = TransformersGenerator(resolve_base(settings.model), None, decoding)
    contents = [example.content for example in articles()]
    while True:
        generator.generate(contents)
        yield


def articles() -> list[Any]:
    """Return a few articles of the embedded corpus, as long as the quickstart has them."""
    from titlegen.data import Example
    from titlegen.data.sources import open_source
    from titlegen.settings import EMBEDDED, DataSettings

    rows = list(open_source(DataSettings(source=EMBEDDED)).rows)[:_ROWS]
    return [Example(str(n), row.content[:250], row.title, source="", date=None) for n, row in enumerate(rows)]


if __name__ == "__main__":
    main()
