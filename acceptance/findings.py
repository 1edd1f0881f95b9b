"""The findings behind a line of the checklist: measurements, limits, and whether they make a tick."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from titlegen.evaluate.gates import Standing, Verdict, stand

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


def score_gate(report: Mapping[str, Any], name: str, of: str) -> Gate:
    """Return the gate of a score of an evaluation; ``of`` says on what it was measured."""
    score = report["scores"][name]
    specified = next(gate for gate in report["specification"] if gate["name"] == name)
    own = next((gate for gate in report["gates"] if gate["name"] == name), None)
    measured = f"{score['value']:.3f}（95% 區間 {score['low']:.3f} 至 {score['high']:.3f}；{of}）"
    return _gate(measured, specified, own, "limit", "至少 {:.2f}")


def latency_gate(report: Mapping[str, Any], specified: Mapping[str, Any]) -> Gate:
    """Return the gate of one of the specification's percentiles of a latency measurement."""
    own = next((gate for gate in report["gates"] if gate["name"] == specified["name"]), None)
    name = f"p{specified['percentile']}"
    measured = f"{name} {specified['value_ms']:.0f} ms（{specified['requests']} 次請求）"
    return _gate(measured, specified, own, "limit_ms", f"{name} 至多 {{:g}} ms")


def _gate(measured: str, specified: Mapping[str, Any], own: Mapping[str, Any] | None, limit: str, words: str) -> Gate:
    def describe(gate: Mapping[str, Any]) -> str:
        return f"{words.format(gate[limit])}（{_VERDICTS[gate['verdict']]}）"

    profile = "關閉" if own is None else describe(own) if own[limit] != specified[limit] else ""
    return Gate(measured, describe(specified), profile, stand(own["verdict"] if own else None, specified["verdict"]))


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
