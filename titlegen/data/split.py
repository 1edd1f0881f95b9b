"""The split into train, val and test; all decisions depend on digests and the seed, never on file order."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from titlegen.data.date_reading import UNDATED
from titlegen.data.dedup import U64, Rows, mix
from titlegen.errors import DataError
from titlegen.settings import DataSettings

# Upper ends, characters, of the title-length buckets that --data.balance evens out.
BUCKET_ENDS = (10, 14, 18, 22, 26)
_MAX_COPIES = 3
_SPLITS = 3


def best_first(days: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32], digests: U64) -> Rows:
    """Return the rows in the order in which duplicates are kept: earliest, then longest, then lowest digest."""
    dated = np.where(days == UNDATED, np.iinfo(np.int32).max, days)
    order: Rows = np.lexsort((digests, -lengths, dated))
    return order


def keep_first(order: Rows, groups: npt.NDArray[np.generic]) -> Rows:
    """Return the first row of each group in the given order."""
    _, places = np.unique(groups[order], return_index=True)
    first: Rows = order[np.sort(places)]
    return first


def draw(digests: U64, seed: int) -> Rows:
    """Return a random order of the rows that depends on their digests and the seed alone."""
    keyed = mix(digests ^ mix(np.array([seed % 2**64], dtype=np.uint64)))
    return np.lexsort((digests, keyed))


def split_rows(
    days: npt.NDArray[np.int32], digests: U64, settings: DataSettings, drops: Mapping[str, int] | None = None
) -> dict[str, Rows]:
    """Return the rows of train, val and test, each in random order.

    With ``data.split`` at ``time`` the oldest are for training and the newest for the test; no day is in two splits,
    and undated rows are for training.

    Args:
        days: number of each row's day, ``(rows,)``.
        digests: ``(rows,)``.
        settings: shares, seed and kind of split.
        drops: what was left out before and why, for the message.

    Raises:
        DataError: a split would be empty.
    """
    count = len(digests)
    test, val = _held_out(count, settings.test_share), _held_out(count, settings.val_share)
    order = draw(digests, settings.seed)
    if settings.split == "time":
        places = _split_by_time(days, test, val)
    else:
        places = np.full(count, 0)
        places[order[:test]] = 2
        places[order[test : test + val]] = 1
    splits = {name: order[places[order] == number] for number, name in enumerate(("train", "val", "test"))}
    shares = {"train": 1.0, "val": settings.val_share, "test": settings.test_share}
    for name, rows in splits.items():
        if not len(rows) and shares[name]:
            raise DataError(
                f"the {name} split is empty: {count} articles are left{_left_out(drops)}, split by {settings.split} "
                f"with val_share {settings.val_share} and test_share {settings.test_share}; give more articles, loosen "
                "the filters or change the shares"
            )
    return splits


def _held_out(count: int, share: float) -> int:
    """Return the number of articles of a share: at least one, where there is one for each split."""
    return max(round(count * share), 1 if share and count >= _SPLITS else 0)


def _left_out(drops: Mapping[str, int] | None) -> str:
    named = ", ".join(f"{reason} {count}" for reason, count in (drops or {}).items() if count)
    return f" (left out: {named})" if named else ""


def _split_by_time(days: npt.NDArray[np.int32], test: int, val: int) -> npt.NDArray[np.int64]:
    dated = np.sort(days[days != UNDATED])
    # Whole days only, so that a split may be somewhat larger than asked.
    test_day = _first_day(dated, test)
    val_day = min(_first_day(dated[dated < test_day], val), test_day)
    places = np.zeros(len(days), dtype=np.int64)
    places[days >= val_day] = 1
    places[days >= test_day] = 2
    return places


def _first_day(dated: npt.NDArray[np.int32], newest: int) -> int:
    """Return the day from which on at least ``newest`` of the sorted days lie."""
    return int(dated[max(len(dated) - newest, 0)]) if newest and len(dated) else np.iinfo(np.int32).max


def leak_rate(clusters: npt.NDArray[np.int64], digests: U64, settings: DataSettings) -> float:
    """Return the share of test rows that a plain random split would share with train, 0 to 1."""
    order = draw(digests, settings.seed)
    test, val = _held_out(len(order), settings.test_share), _held_out(len(order), settings.val_share)
    if not test:
        return 0.0
    return float(np.isin(clusters[order[:test]], clusters[order[test + val :]]).mean())


def balance_rows(rows: Rows, title_chars: npt.NDArray[np.int32], digests: U64, seed: int) -> list[tuple[int, int]]:
    """Return rows and copy numbers such that the title-length buckets are as even as possible.

    Full buckets are thinned out at random; rows of sparse ones are repeated, at most three times.
    """
    buckets = np.digitize(title_chars[rows], BUCKET_ENDS, right=True)
    used = np.unique(buckets)
    target = -(-len(rows) // len(used))
    chosen: list[tuple[int, int]] = []
    for bucket in used.tolist():
        members = rows[buckets == bucket]
        members = members[draw(digests[members], seed)].tolist()
        chosen += [
            (members[i % len(members)], i // len(members)) for i in range(min(target, _MAX_COPIES * len(members)))
        ]
    copies = np.array([copy for _, copy in chosen], dtype=np.uint64)
    order = draw(mix(digests[[row for row, _ in chosen]] + copies), seed)
    return [chosen[place] for place in order.tolist()]
