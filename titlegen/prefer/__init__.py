"""Preference training: candidates, pairs of them, TRL's trainer, and a gate."""

from titlegen.prefer.candidates import draw_candidates
from titlegen.prefer.choices import Choice, as_pairs, read_choices
from titlegen.prefer.fresh import without
from titlegen.prefer.gate import decide, describe_decision
from titlegen.prefer.learn import learn
from titlegen.prefer.pairs import Pair, Task, make_pairs
from titlegen.prefer.stage import Articles, prefer

__all__ = [
    "Articles",
    "Choice",
    "Pair",
    "Task",
    "as_pairs",
    "decide",
    "describe_decision",
    "draw_candidates",
    "learn",
    "make_pairs",
    "prefer",
    "read_choices",
    "without",
]
