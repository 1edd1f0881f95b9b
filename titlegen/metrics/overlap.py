"""ROUGE and BLEU-1 on token lists, as counts that can be added up over any resample of the rows.

The libraries give one number for a corpus; a vectorised bootstrap needs what that number is made of. The tests hold
these functions to rouge_score, rouge-chinese, sacrebleu and nltk within 1e-9.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import LCSseq

Floats = npt.NDArray[np.float64]


class Rouge(NamedTuple):
    """Precision, recall and F1, 0 to 1."""

    precision: float
    recall: float
    f1: float


class Bleu(NamedTuple):
    """BLEU-1 with its two factors, 0 to 1: one value for each resample."""

    score: Floats
    precision: Floats
    brevity_penalty: Floats


def rouge_n(prediction: Sequence[str], reference: Sequence[str], n: int) -> Rouge:
    """Return the overlap of n-grams, each counted at most as often as in the other text; 0 when either has none."""
    predicted, expected = _ngrams(prediction, n), _ngrams(reference, n)
    shared = (predicted & expected).total()
    return _rouge(shared, predicted.total(), expected.total())


def rouge_l(prediction: Sequence[str], reference: Sequence[str]) -> Rouge:
    """Return the overlap by longest common subsequence: order counts, gaps do not."""
    return _rouge(LCSseq.similarity(prediction, reference), len(prediction), len(reference))


def matched_unigrams(prediction: Sequence[str], reference: Sequence[str]) -> int:
    """Return how many predicted tokens the reference has, each at most as often as there (BLEU's clipping)."""
    return (Counter(prediction) & Counter(reference)).total()


def bleu1(matched: Floats, predicted: Floats, expected: Floats) -> Bleu:
    """Return corpus BLEU-1 from summed counts, each of shape (resamples,): matches, predicted and reference tokens.

    Nothing predicted gives 0. Source: Papineni et al., BLEU, 2002, with N = 1.
    """
    some = np.maximum(predicted, 1.0)
    precision = matched / some
    brevity = np.where(predicted > 0, np.exp(np.minimum(0.0, 1.0 - expected / some)), 0.0)
    return Bleu(precision * brevity, precision, brevity)


def _ngrams(tokens: Sequence[str], n: int) -> Counter[object]:
    if n == 1:
        return Counter(tokens)
    return Counter(zip(*(tokens[start:] for start in range(n)), strict=False))


def _rouge(shared: int, predicted: int, expected: int) -> Rouge:
    precision = shared / predicted if predicted else 0.0
    recall = shared / expected if expected else 0.0
    return Rouge(precision, recall, 2 * precision * recall / (precision + recall) if shared else 0.0)
