"""The assessment of candidates that an editor sees: evidence, reasons for the order, rules."""

from collections.abc import Sequence
from dataclasses import dataclass

from titlegen.metrics.evidence import Claim, find_evidence
from titlegen.metrics.ranking import judge_titles
from titlegen.metrics.reasons import Reason, explain_place
from titlegen.metrics.rule_checks import RuleCheck, check_rules
from titlegen.metrics.title_warnings import Facts
from titlegen.text import first_line


@dataclass(frozen=True, slots=True)
class Assessment:
    """The assessment of one title."""

    evidence: tuple[Claim, ...]
    reasons: tuple[Reason, ...]
    checks: tuple[RuleCheck, ...]


def assess_titles(outputs: Sequence[str], facts: Facts) -> list[Assessment]:
    """Return the assessment of each candidate, in their order.

    Args:
        outputs: raw outputs for one article.
        facts: of the article.
    """
    assessments = []
    for raw, standing in zip(outputs, judge_titles(outputs, facts), strict=True):
        title = first_line(raw)
        claims = find_evidence(title, facts)
        reasons = explain_place(title, standing, claims, len(outputs))
        assessments.append(Assessment(claims, reasons, check_rules(raw.strip())))
    return assessments
