"""The processes that train together, one on each card, and their messages."""

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from titlegen import cards
from titlegen.models import uncollected

# Longest wait of one rank for the others before all end; longer than the slowest card needs for loading or compiling.
TIMEOUT_S = 900.0
# Source: the kernel's header linux/prctl.h, which Python does not know.
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; by default it is alone."""

    rank: int = 0
    """Its number over all hosts."""
    count: int = 1
    """How many there are on all hosts."""
    local_rank: int = 0
    """Its number on this host, and that of its card among those that the command sees."""
    hosts: int = 1
    talk: Any = None
    """Process group for exchanges other than gradients."""
    journal: int | None = None
    """Open file in which this rank notes its progress, so that a hanging rank can be found."""

    @property
    def leads(self) -> bool:
        """Whether this rank writes the files of its host, and shows progress there."""
        return self.local_rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Return the value that every rank gave, by rank; all have to call it."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        values = [None] * self.count
        dist.all_gather_object(values, value, group=self.talk)
        return values

    def wait(self) -> None:
        """Wait until every rank is here."""
        self.gather(None)

    def note(self, number: int, doing: str) -> None:
        """Note what this rank does in which pass; a few microseconds."""
        if self.journal is not None:
            # Over the note before: some file systems write to the disk when a file that was emptied is closed.
            os.pwrite(self.journal, f"{number:<9} {doing:<10}".encode("ascii"), 0)


ALONE = Ranks()


def end_with_parent() -> None:
    """Let this process end with the one that started it, and at Ctrl-C at once, whatever it waits for."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def joined(journal: Path | None = None, timeout_s: float = TIMEOUT_S) -> Iterator[Ranks]:
    """Join the ranks that torchrun started: NCCL between cards, gloo on the CPU.

    Args:
        journal: folder for this rank's notes.
        timeout_s: longest wait for the others.
    """
    with uncollected():
        import torch
        import torch.distributed as dist

    timeout, local_rank = timedelta(seconds=timeout_s), cards.local_rank()
    if torch.cuda.is_available():
        # A process may see its own card alone.
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
        dist.init_process_group("nccl", timeout=timeout)
    else:
        dist.init_process_group("gloo", timeout=timeout)
    talk = dist.new_group(backend="gloo", timeout=timeout)
    own = None
    if journal is not None:
        own = os.open(journal / f"rank{dist.get_rank()}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    hosts = dist.get_world_size() // cards.local_ranks()
    yield Ranks(dist.get_rank(), dist.get_world_size(), local_rank, hosts, talk, own)
    # Not after a failure: it would wait for ranks that may be gone.
    dist.destroy_process_group()
