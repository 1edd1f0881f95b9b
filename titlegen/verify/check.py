"""The result of one check: what was compared, the figure, the bound, and what is wrong."""

from collections.abc import Sequence

from titlegen.results import Check

__all__ = ["Check", "failures", "none_wrong"]


def failures(checks: Sequence[Check]) -> list[Check]:
    """Return the checks that failed."""
    return [check for check in checks if not check.passed]


def none_wrong(name: str, compared: str, wrong: Sequence[str]) -> Check:
    """Return a check that passes when a list of faults is empty."""
    return Check(name, compared, f"{len(wrong)} wrong", "0 wrong", not wrong, "; ".join(wrong[:3]))
