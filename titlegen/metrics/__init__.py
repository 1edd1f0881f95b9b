"""Scores of generated titles: pure functions on texts, and intervals of their sums."""

from titlegen.metrics.records import SCORES
from titlegen.metrics.scores import Contributions, estimate_scores, measure_titles, score_titles

__all__ = ["SCORES", "Contributions", "estimate_scores", "measure_titles", "score_titles"]
