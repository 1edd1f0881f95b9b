"""The candidate for each place: a push message, a phone, a web page, a newspaper."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a title, and the most characters that it holds; None: any number."""

    name: str
    max_chars: int | None


SLOTS = (Slot("push", 13), Slot("mobile", 18), Slot("web", 28), Slot("print", None))


def fill_slots(titles: Sequence[str], slots: Sequence[Slot] = SLOTS) -> dict[str, int | None]:
    """Return for each slot the index of the first title that fits, None where none does.

    Args:
        titles: the best first.
        slots: their names differ.
    """
    lengths = [len(title.strip()) for title in titles]
    return {
        slot.name: next(
            (index for index, length in enumerate(lengths) if 0 < length <= (slot.max_chars or length)), None
        )
        for slot in slots
    }
