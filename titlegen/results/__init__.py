"""The results of stages: their code returns them, manifests store them, and later stages read them.

A stage sets every field that it knows. A field with a default may be missing, as in what an earlier release wrote.
"""

from titlegen.results.base import Name, Part, R, Result, read_result
from titlegen.results.evaluated import (
    Comparison,
    Dataset,
    Evaluated,
    EvaluationReport,
    Gate,
    Score,
    ScoredVariant,
    TitleChange,
    Verdict,
)
from titlegen.results.exported import Check, ConvertedFiles, Merged, Verified
from titlegen.results.prepared import (
    Coverage,
    DataCardSummary,
    DateForm,
    DateOrder,
    Dates,
    Prepared,
    SourceReading,
    Step,
)
from titlegen.results.released import Deployed, Pushed
from titlegen.results.trained import Decision, Learned, Preferred, Trained

__all__ = [
    "Check",
    "Comparison",
    "ConvertedFiles",
    "Coverage",
    "DataCardSummary",
    "Dataset",
    "DateForm",
    "DateOrder",
    "Dates",
    "Decision",
    "Deployed",
    "Evaluated",
    "EvaluationReport",
    "Gate",
    "Learned",
    "Merged",
    "Name",
    "Part",
    "Preferred",
    "Prepared",
    "Pushed",
    "R",
    "Result",
    "Score",
    "ScoredVariant",
    "SourceReading",
    "Step",
    "TitleChange",
    "Trained",
    "Verdict",
    "Verified",
    "read_result",
]
