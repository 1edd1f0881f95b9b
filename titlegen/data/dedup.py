"""Near-duplicates: MinHash finds candidates, the exact Jaccard similarity of character 5-grams decides."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from titlegen.errors import ConfigError

U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

SHINGLE_CHARS = 5
PERMUTATIONS = 128
_SEED = 20240601
# Odd 64-bit constants: a multilinear hash of the five characters, finished as in splitmix64.
# Source: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014 (mixing constants).
_FACTORS = np.random.default_rng(_SEED).integers(0, 2**63, size=SHINGLE_CHARS, dtype=np.uint64) * np.uint64(
    2
) + np.uint64(1)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
# Four standard deviations of the estimate from 128 permutations at a similarity of 0.8 are 0.14.
_ESTIMATE_MARGIN = 0.15
_MISS = 1e-4
_CACHED_SETS = 4096
_REMEMBERED_PAIRS = 1_000_000
# An article that is written on keeps at least half of the shorter version.
_REVISED_SHARE = 0.5
# An id that more rows share names no article.
_MAX_REVISIONS = 32


def mix(values: U64) -> U64:
    """Return well spread 64-bit hashes of 64-bit values."""
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))


def shingle_hashes(texts: Sequence[str]) -> tuple[U64, list[int]]:
    """Return the 64-bit hash of every character 5-gram of the texts, one text after another, and the row offsets.

    A text shorter than five characters has one shingle: itself.
    """
    padded = [text if len(text) >= SHINGLE_CHARS else text.ljust(SHINGLE_CHARS, "\0") for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    if not len(codes):
        return codes, [0]
    lengths = np.array([len(text) for text in padded])
    windows = len(codes) - SHINGLE_CHARS + 1
    hashes = np.zeros(windows, dtype=np.uint64)
    for place, factor in enumerate(_FACTORS):
        hashes += codes[place : place + windows] * factor
    # Windows that begin in the last four characters of a text reach into the next one.
    inside = np.ones(windows, dtype=bool)
    ends = np.cumsum(lengths)[:-1]
    for back in range(1, SHINGLE_CHARS):
        inside[ends - back] = False
    offsets = np.concatenate([[0], np.cumsum(lengths - SHINGLE_CHARS + 1)])
    return mix(hashes[inside]), offsets.tolist()


def shingle_set(text: str) -> U64:
    """Return the sorted, distinct shingle hashes of a text."""
    # numpy.unique has hashed such arrays since 2.3, which is slower for them than sorting.
    hashes = np.sort(shingle_hashes([text])[0])
    distinct: U64 = hashes[np.concatenate([[True], hashes[1:] != hashes[:-1]])]
    return distinct


def jaccard(a: U64, b: U64) -> float:
    """Return the Jaccard similarity of two shingle sets."""
    both = np.sort(np.concatenate([a, b]))
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared)


def contained(a: U64, b: U64) -> float:
    """Return the share of the smaller shingle set that the larger one holds."""
    both = np.sort(np.concatenate([a, b]))
    return int(np.count_nonzero(both[1:] == both[:-1])) / min(len(a), len(b))


def rows_per_band(threshold: float) -> int:
    """Return the most rows a band may have so that a pair at the threshold is missed less than once in 10,000.

    Raises:
        ConfigError: the threshold is too low for any.
    """
    for rows in range(PERMUTATIONS, 0, -1):
        if (1 - threshold**rows) ** (PERMUTATIONS // rows) <= _MISS:
            return rows
    raise ConfigError(f"data.near_duplicate is {threshold}; MinHash needs at least 0.1, and 0.8 is usual")


def sign(texts: Sequence[str], threshold: float) -> tuple[U64, U8]:
    """Return band keys ``(texts, bands)`` and signatures ``(texts, 128)`` cut to their lowest byte.

    A chance match of two bytes is 1 in 256, so that an eighth of the memory estimates the similarity as well.
    """
    from rensa import RMinHash

    rows = rows_per_band(threshold)
    bands = PERMUTATIONS // rows
    hashes, offsets = shingle_hashes(texts)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, num_perm=PERMUTATIONS, seed=_SEED)
    digests = np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(texts), PERMUTATIONS)
    grouped = digests[:, : bands * rows].reshape(len(texts), bands, rows)
    keys = np.zeros((len(texts), bands), dtype=np.uint64)
    for row in range(rows):
        keys = mix(keys ^ grouped[:, :, row])
    return keys, digests.astype(np.uint8)


class Clusters:
    """Disjoint sets of rows that count as the same article."""

    def __init__(self, size: int) -> None:
        """Start with every row alone."""
        self._parent = list(range(size))

    def find(self, row: int) -> int:
        """Return the smallest row of the cluster."""
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row

    def join(self, a: int, b: int) -> bool:
        """Make two rows one cluster; returns False when they were already."""
        a, b = self.find(a), self.find(b)
        self._parent[max(a, b)] = min(a, b)
        return a != b

    def labels(self) -> Rows:
        """Return the cluster of each row."""
        return np.array([self.find(row) for row in range(len(self._parent))], dtype=np.int64)


def join_revisions(
    clusters: Clusters, keys: U64, titles: U64, digests: U64, read_text: Callable[[int], str]
) -> tuple[int, Rows]:
    """Join rows of one id whose titles are equal or of which one holds half of the other.

    An id alone proves nothing: spreadsheets round it, exports count anew from 0, databases write NULL. The clusters do
    not depend on the order of the rows.

    Args:
        clusters: grown in place.
        keys: of id and file, 0 for no id, ``(rows,)``.
        titles: digests, ``(rows,)``.
        digests: of the rows, ``(rows,)``.
        read_text: returns the article of a row.

    Returns:
        The number of joins, and the rows whose id other articles have, too.
    """
    joins = 0
    ambiguous: list[int] = []
    for run in _runs(keys):
        if not keys[run[0]]:
            continue
        members = run[np.argsort(digests[run], kind="stable")].tolist()
        if len(members) <= _MAX_REVISIONS:
            shingles = lru_cache(maxsize=None)(lambda row: shingle_set(read_text(row)))
            for a, b in itertools.combinations(members, 2):
                if titles[a] == titles[b] or contained(shingles(a), shingles(b)) >= _REVISED_SHARE:
                    joins += clusters.join(a, b)
        if len({clusters.find(row) for row in members}) > 1:
            ambiguous += members
    return joins, np.array(sorted(ambiguous), dtype=np.int64)


def join_similar(
    clusters: Clusters,
    views: Rows,
    band_keys: Iterable[U64],
    signatures: U8,
    read_text: Callable[[int], str],
    threshold: float,
) -> int:
    """Join rows of which two texts have a Jaccard similarity of at least ``threshold``; returns the joins.

    The clusters do not depend on the order of the rows.

    Args:
        clusters: grown in place.
        views: row of each text, ``(texts,)``; a shortened article has a second text, its full one.
        band_keys: for each band the keys of all texts, ``(texts,)``.
        signatures: ``(texts, 128)``.
        read_text: returns a text by its number.
        threshold: similarity from which two texts count as the same.
    """
    shingles = lru_cache(maxsize=_CACHED_SETS)(lambda number: shingle_set(read_text(number)))
    matcher = _Matcher(clusters, views, signatures, shingles, threshold)
    return sum(matcher.join(members) for keys in band_keys for members in _runs(keys))


@dataclass(frozen=True, slots=True)
class _Matcher:
    clusters: Clusters
    views: Rows
    signatures: U8
    shingles: Callable[[int], U64]
    threshold: float
    different: set[tuple[int, int]] = field(default_factory=set)
    """Pairs that were compared and are not alike: most share more than one bucket."""

    def join(self, members: Rows) -> int:
        """Compare the texts of one bucket until all are in one cluster, or all pairs across clusters are compared."""
        joins = 0
        rows = self.views[members].tolist()
        if len(set(map(self.clusters.find, rows))) == 1:
            return 0  # a pair of copies meets in nearly every band
        for place, row in enumerate(rows[:-1]):
            root, pivot = self.clusters.find(row), int(members[place])
            apart = [number for number in range(place + 1, len(rows)) if self.clusters.find(rows[number]) != root]
            if not apart:
                continue
            others = members[apart]
            agreeing = (self.signatures[pivot] == self.signatures[others]).sum(axis=1)
            likely = agreeing >= (self.threshold - _ESTIMATE_MARGIN) * PERMUTATIONS
            for other in others[likely].tolist():
                joins += self._are_alike(pivot, other) and self.clusters.join(row, int(self.views[other]))
        return joins

    def _are_alike(self, a: int, b: int) -> bool:
        if (a, b) in self.different or self.clusters.find(int(self.views[a])) == self.clusters.find(int(self.views[b])):
            return False
        alike = jaccard(self.shingles(a), self.shingles(b)) >= self.threshold
        if not alike:
            if len(self.different) >= _REMEMBERED_PAIRS:
                # They are compared again: templated articles, all a little alike, would fill the memory.
                self.different.clear()
            self.different.add((a, b))
        return alike


def _runs(keys: U64) -> Iterator[Rows]:
    """Yield the places of each key that occurs more than once, ascending."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(keys) else np.array([], int)
    ends = np.append(starts[1:], len(keys))
    for number in np.flatnonzero(ends - starts > 1).tolist():
        yield order[starts[number] : ends[number]]
