"""What the environment says of cards, and of the processes that torchrun starts on them."""

import itertools
import os
from pathlib import Path


def rank() -> int:
    """Return the number that torchrun gave to this process among those of all hosts."""
    return int(os.environ["RANK"])


def local_rank() -> int:
    """Return the number that torchrun gave to this process on its host."""
    return int(os.environ["LOCAL_RANK"])


def local_ranks() -> int:
    """Return how many processes torchrun started on this host."""
    return int(os.environ["LOCAL_WORLD_SIZE"])


def hosts() -> str:
    """Return the number of hosts of a training as torchrun's variable states it: ``2`` or ``1:4``."""
    return os.environ.get("PET_NNODES", "1")


def visible_cards() -> tuple[int, str]:
    """Return how many NVIDIA cards a program sees and where that is stated, without loading a library."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        # CUDA ignores a card that does not exist, and all after it.
        cards = list(itertools.takewhile(lambda card: card and card != "-1", map(str.strip, given.split(","))))
        return len(cards), f"CUDA_VISIBLE_DEVICES={given}"
    found = [path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdecimal()]
    return len(found), "/dev"


def show_card(number: int) -> None:
    """Let this process see one of the visible cards alone, as the first; call it before CUDA is used.

    Cards that the user hides stay hidden.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number)
    elif number < visible_cards()[0]:
        os.environ["CUDA_VISIBLE_DEVICES"] = given.split(",")[number].strip()


def prepare_ranks(processes: int, *, one_host: bool) -> None:
    """Give each of several processes its share of the cores; those of one host alone talk over loopback.

    Variables that the user has set stay as they are.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    if one_host:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
