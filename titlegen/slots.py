"""The places that a title is written for, and its lengths: one definition for training, the client and the desk."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a title, and the most characters that it holds; None: any number."""

    name: str
    max_chars: int | None


# As desks count: a space counts, and a full-width character is one.
SLOTS = (Slot("push", 13), Slot("mobile", 18), Slot("web", 28), Slot("print", None))


@dataclass(frozen=True, slots=True)
class Length:
    """A length that a model can be taught to write, from ``min_chars`` to ``max_chars``; both are allowed."""

    min_chars: int
    max_chars: int
    slot: str = ""
    """Name of the slot that it fills; empty for what lies between two of them."""

    def fits(self, title: str) -> bool:
        """Return whether a title has it."""
        return self.min_chars <= len(title.strip()) <= self.max_chars


_WIDTH = 5
_ENDS = [slot.max_chars for slot in SLOTS if slot.max_chars is not None]
_NAMES = {slot.max_chars: slot.name for slot in SLOTS}
LENGTHS = tuple(Length(end - _WIDTH + 1, end, _NAMES.get(end, "")) for end in range(_ENDS[0], _ENDS[-1] + 1, _WIDTH))
"""One for each slot with an end, and what lies between: every number of characters from 9 to 28 belongs to just one."""


def length_of(title: str) -> Length | None:
    """Return the length that a title has, None where it has none of ``LENGTHS``."""
    return next((length for length in LENGTHS if length.fits(title)), None)


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
