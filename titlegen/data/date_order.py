"""The order of day and month in 5/1/2024: the whole column decides, and where it cannot, nothing is guessed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from titlegen.data.date_reading import DAY_FIRST, FORMS, MONTH_FIRST, ROC, STAMP, UNDATED, YEAR_FIRST, Reading
from titlegen.data.dedup import Rows

Setting = Literal["auto", "month-first", "day-first", "year-first", "roc"]
_SETTINGS: Final[Mapping[str, str]] = {
    "month-first": MONTH_FIRST,
    "day-first": DAY_FIRST,
    "year-first": YEAR_FIRST,
    "roc": ROC,
}
ORDERS = (*_SETTINGS.values(), STAMP)
# Four digits of a year leave the fewest orders, so that they are judged first.
SHAPES = ("last", "named", "short", "stamp")
"""Where the numbers of a date stand that may be read in more than one order."""
PACKED = 2 + len(ORDERS)
"""Numbers in a packed value."""
# From so many days on that lie in far fewer months a column tells days from months; the first of twelve months does
# the same, which is why this reason is told apart from proof.
_FEWEST_DAYS = 5
_DAYS_PER_MONTH = 3


@dataclass(slots=True)
class Spread:
    """How often one order fits the values of a shape, and over which days, months and years they then lie."""

    fits: int = 0
    days: set[int] = field(default_factory=set)
    months: set[int] = field(default_factory=set)
    years: set[int] = field(default_factory=set)

    def add(self, other: "Spread") -> None:
        """Add what another part of the column holds."""
        self.fits += other.fits
        self.days |= other.days
        self.months |= other.months
        self.years |= other.years

    def is_daily(self) -> bool:
        """Return whether the values lie as those of daily news do: many days in few months."""
        return len(self.days) >= max(_FEWEST_DAYS, _DAYS_PER_MONTH * len(self.months)) and len(self.months) >= len(
            self.years
        )


@dataclass(slots=True)
class OrderCounts:
    """Counts of a column's values by shape and order, summed over the parts of the column."""

    seen: Counter[str] = field(default_factory=Counter)
    """Values of each shape."""
    spreads: dict[tuple[str, str], Spread] = field(default_factory=dict)
    """By shape and order."""
    forms: Counter[str] = field(default_factory=Counter)
    """Values of each form that have no shape."""

    def note(self, reading: Reading) -> None:
        """Count one value."""
        if not reading.choices:
            self.forms[reading.form] += 1
            return
        self.seen[reading.shape] += 1
        for order, day in reading.choices.items():
            part = Spread(1, {day.day}, {day.month}, {day.year})
            self.spreads.setdefault((reading.shape, order), Spread()).add(part)

    def add(self, other: "OrderCounts") -> None:
        """Add another part of the column."""
        self.seen.update(other.seen)
        self.forms.update(other.forms)
        for key, spread in other.spreads.items():
            self.spreads.setdefault(key, Spread()).add(spread)


@dataclass(frozen=True, slots=True)
class OrderDecision:
    """In which order the values of a shape are read, and why."""

    order: str
    reason: Literal["setting", "proof", "spread"]


def decide_orders(counts: OrderCounts, setting: Setting) -> dict[str, OrderDecision]:
    """Return the order of each shape that the setting or the column itself tells; the others stay ambiguous.

    Proof is an order that alone fits every value (13/5/2024 has the day first) or that the column's other shapes
    have. Failing that, the spread decides where under one order alone the days change and the months hardly do.
    """
    if setting != "auto":
        return {shape: OrderDecision(_SETTINGS[setting], "setting") for shape in counts.seen}
    decisions: dict[str, OrderDecision] = {}
    for shape in sorted(counts.seen, key=SHAPES.index):
        spreads = {order: spread for (of, order), spread in counts.spreads.items() if of == shape}
        whole = {order: spread for order, spread in spreads.items() if spread.fits == counts.seen[shape]}
        proven = [order for order in whole if len(whole) == 1 or _elsewhere(order, counts, decisions)]
        daily = [order for order, spread in whole.items() if spread.is_daily()]
        if len(proven) == 1:
            decisions[shape] = OrderDecision(proven[0], "proof")
        elif len(daily) == 1:
            decisions[shape] = OrderDecision(daily[0], "spread")
    return decisions


def _elsewhere(order: str, counts: OrderCounts, decisions: Mapping[str, OrderDecision]) -> bool:
    if order == ROC:
        return counts.forms[ROC] > 0 and not counts.forms[YEAR_FIRST]
    if order == STAMP:
        return counts.forms[STAMP] > 0
    return any(decision.order == order and decision.reason == "proof" for decision in decisions.values())


def pack_choices(row: int, reading: Reading) -> tuple[int, ...]:
    """Return a value that is ambiguous as numbers: its row, its shape, and for each order its day or ``UNDATED``."""
    days = (reading.choices.get(order) for order in ORDERS)
    return (row, SHAPES.index(reading.shape), *(UNDATED if day is None else day.toordinal() for day in days))


def resolve_ambiguous(
    days: npt.NDArray[np.int32], forms: npt.NDArray[np.int8], packed: Rows, decisions: Mapping[str, OrderDecision]
) -> Rows:
    """Give ambiguous values the day that the column's order makes of them; return the rows that got one.

    Args:
        days: number of each row's day, ``(rows,)``, changed in place.
        forms: place of each row's form in ``FORMS``, ``(rows,)``, changed in place.
        packed: the ambiguous values as ``pack_choices`` returns them, ``(values, PACKED)``.
        decisions: for the shapes that are decided.
    """
    dated = []
    for shape, decision in decisions.items():
        of_shape = packed[packed[:, 1] == SHAPES.index(shape)]
        found = of_shape[of_shape[:, 2 + ORDERS.index(decision.order)] != UNDATED]
        rows = found[:, 0]
        days[rows] = found[:, 2 + ORDERS.index(decision.order)]
        forms[rows] = FORMS.index(decision.order)
        dated.append(rows)
    return np.concatenate(dated) if dated else np.array([], dtype=np.int64)
