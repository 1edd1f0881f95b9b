"""The limits of the specification, which no profile and no setting changes; whatever shows one reads it here."""

TITLE_CHARS = (8, 30)
"""Shortest and longest title, characters."""
SCORES = {
    "rougeL": 0.30,
    "bleu1": 0.45,
    "title_only_rate": 0.98,
    # The specification asks for the length and names no share; 95% is our choice.
    "length_rate": 0.95,
}
"""Smallest value of each score with which a model may be released."""
LATENCY_MS = {50: 500.0, 95: 1000.0}
"""Longest time of each percentile of the requests, milliseconds."""
NEAR_DUPLICATE = 0.8
"""Jaccard similarity of character 5-grams from which two articles count as the same; the specification names none."""
