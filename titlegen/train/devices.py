"""The number of cards that train, and the reason for it."""

from dataclasses import dataclass

from titlegen import cards
from titlegen.errors import ConfigError
from titlegen.plural import count
from titlegen.settings import TrainSettings
from titlegen.train.memory import indivisible


@dataclass(frozen=True)
class Devices:
    """The processes that one host contributes to a training."""

    count: int
    why: str
    """One clause for a person."""
    hosts: str = "1"
    """As torchrun has it: ``2``, or ``1:4`` for one to four."""

    @property
    def alone(self) -> bool:
        """Whether one process trains, without torchrun."""
        return self.count == 1 and self.hosts == "1"


def find_cards() -> tuple[int, str]:
    """Return the number of cards that torch sees, 0 without a GPU, and what limits it."""
    import torch

    _, source = cards.visible_cards()
    return (torch.cuda.device_count() if torch.cuda.is_available() else 0), source


def choose_devices(settings: TrainSettings, visible: int, source: str) -> Devices:
    """Return how many cards of this host train.

    Args:
        settings: hyper-parameters.
        visible: cards that there are.
        source: what says so.

    Raises:
        ConfigError: there are fewer than the settings ask for, or a step's rows cannot be divided among so many.
    """
    effective = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    hosts, wanted = cards.hosts(), settings.devices
    if wanted == "auto":
        if visible <= 1:
            return Devices(1, "one card" if visible else "no card", hosts)
        # The cards of several hosts are divided later, by processes that know all of them.
        chosen = max(n for n in range(1, visible + 1) if hosts != "1" or effective % n == 0)
        why = f"all {visible} cards"
        if chosen < visible:
            why = f"{chosen} of {visible} cards, the most that a step's {count(effective, 'row')} can be divided among"
        return Devices(chosen, why, hosts)
    if 0 < visible < wanted:
        raise ConfigError(
            f"train.devices is {wanted}, and this machine shows {count(visible, 'card')} ({source}); give a number up "
            f"to {visible}, or auto"
        )
    if hosts == "1" and effective % wanted:
        raise ConfigError(indivisible(settings, wanted))
    return Devices(wanted, count(wanted, "card") if visible else f"no card, so {wanted} on the CPU", hosts)
