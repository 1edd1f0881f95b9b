"""Generate titles for a split with any generator, score them beside trivial baselines, and write the report."""

from titlegen.evaluate.compare import Comparison, compare
from titlegen.evaluate.generate import Generation, Generator, generate_predictions
from titlegen.evaluate.predictions import read_predictions
from titlegen.evaluate.render import write_report
from titlegen.evaluate.report import Report, evaluate
from titlegen.evaluate.variants import Variant

__all__ = [
    "Comparison",
    "Generation",
    "Generator",
    "Report",
    "Variant",
    "compare",
    "evaluate",
    "generate_predictions",
    "read_predictions",
    "write_report",
]
