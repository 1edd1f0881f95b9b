"""The findings behind a line of the checklist: measurements, limits, and whether they make a tick."""

from dataclasses import dataclass, field
from typing import TypeAlias

import pytest
from latency_report import LatencyReport
from percentiles import LatencyGate

from titlegen.evaluate.gates import Standing, stand
from titlegen.results import EvaluationReport, Verdict

# A limit, and the verdict on it.
_Judged: TypeAlias = tuple[float, Verdict]

# The worst first: a line with several gates stands as its worst one does.
_WORST: tuple[Standing, ...] = ("failed", "undecided", "relaxed", "passed")
_VERDICTS: dict[Verdict, str] = {"pass": "達到", "fail": "未達", "undecided": "未定"}


@dataclass(frozen=True)
class Gate:
    """One measured value beside the specification's limit, and the profile's if that is another."""

    measured: str
    specification: str
    profile: str
    standing: Standing


def score_gate(report: EvaluationReport, name: str, of: str) -> Gate:
    """Return the gate of a score of an evaluation; ``of`` says on what it was measured."""
    score = report.scores[name]
    measured = f"{score.value:.3f}（95% 區間 {score.low:.3f} 至 {score.high:.3f}；{of}）"
    specified, own = (
        next(((gate.limit, gate.verdict) for gate in gates if gate.name == name), None)
        for gates in (report.specification, report.gates)
    )
    return _gate(measured, specified, own, "至少 {:.2f}")


def latency_gate(report: LatencyReport, specified: LatencyGate) -> Gate:
    """Return the gate of one of the specification's percentiles of a latency measurement."""
    name = f"p{specified.percentile}"
    measured = f"{name} {specified.value_ms:.0f} ms（{specified.requests} 次請求）"
    own = next(((gate.limit_ms, gate.verdict) for gate in report.gates if gate.name == specified.name), None)
    return _gate(measured, (specified.limit_ms, specified.verdict), own, f"{name} 至多 {{:g}} ms")


def _gate(measured: str, specified: _Judged | None, own: _Judged | None, words: str) -> Gate:
    assert specified is not None, "規格的每個門檻都在報告裡"

    def describe(gate: _Judged) -> str:
        limit, verdict = gate
        return f"{words.format(limit)}（{_VERDICTS[verdict]}）"

    profile = "關閉" if own is None else describe(own) if own[0] != specified[0] else ""
    return Gate(measured, describe(specified), profile, stand(own[1] if own else None, specified[1]))


@dataclass
class Finding:
    """The findings of a line's test, kept as properties, so that JUnit has them too."""

    properties: dict[str, str] = field(default_factory=dict)

    def measured(self, text: str) -> None:
        """Keep what was measured, in one line."""
        self.properties["measured"] = text

    def judge(self, *gates: Gate) -> None:
        """Keep both limits of every gate, and end the test unless the specification's own limits are proven to hold.

        What only the profile's limits allow, or what cannot be decided, is skipped with the reason, which a CI shows.
        """
        standing = min((gate.standing for gate in gates), key=_WORST.index)
        self.properties |= {
            "measured": "；".join(gate.measured for gate in gates),
            "specification": "；".join(gate.specification for gate in gates),
            "profile": "；".join(gate.profile for gate in gates if gate.profile),
            "standing": standing,
        }
        if standing == "failed":
            pytest.fail("未達設定檔的門檻", pytrace=False)
        if standing == "relaxed":
            pytest.skip("只達到設定檔放寬的門檻，規格的門檻未達或未定")
        if standing == "undecided":
            pytest.skip("樣本太少，無法判定是否達到門檻")
