"""Generate titles for a split with any generator, score them beside trivial baselines, and write the report."""

from titlegen.evaluate.compare import compare
from titlegen.evaluate.generate import Generation, Generator, generate_predictions
from titlegen.evaluate.predictions import read_predictions
from titlegen.evaluate.render import write_report
from titlegen.evaluate.report import Report, ScoredTitle, evaluate
from titlegen.evaluate.variants import Variant

__all__ = [
    "Generation",
    "Generator",
    "Report",
    "ScoredTitle",
    "Variant",
    "compare",
    "evaluate",
    "generate_predictions",
    "read_predictions",
    "write_report",
]
