"""The gate in front of a preferred model, and rewards that were hacked."""

from collections.abc import Callable

import pytest
from corpus import corpus_rows

from titlegen.data import Example
from titlegen.metrics.baselines import lead
from titlegen.prefer import decide, describe_decision
from titlegen.results import Score

EXAMPLES = [
    Example(str(number), row["content"], row["title"], "corpus", row.get("date"))
    for number, row in enumerate(corpus_rows()[:60])
]
SFT = [lead(example.content)[:24] for example in EXAMPLES]


def test_a_better_model_takes_the_place() -> None:
    better = [example.title for example in EXAMPLES]
    decision = decide(EXAMPLES, SFT, better, resamples=200, seed=1)
    assert decision.accepted
    assert decision.differences["rougeL"].low > 0
    assert describe_decision(decision).endswith("; the preferred model is kept")


def test_titles_that_stay_as_they_are_are_no_loss() -> None:
    decision = decide(EXAMPLES, SFT, SFT, resamples=200, seed=1)
    assert decision.accepted
    assert decision.differences["rougeL"] == Score(0.0, 0.0, 0.0)


HACKED: dict[str, Callable[[Example], str]] = {
    "longer": lambda e: e.title + "，" + lead(e.content),
    "copied": lambda e: lead(e.content),
    "stuffed": lambda e: "、".join(e.content[start : start + 4] for start in range(0, 24, 4)),
    "another number": lambda e: f"{e.title} 97萬",
    "explained": lambda e: f"標題：{e.title}\n以上為標題。",
}


@pytest.mark.fault
@pytest.mark.parametrize("kind", HACKED)
def test_what_a_broken_reward_buys_is_refused(kind: str) -> None:
    # The score alone would take most of these: each title holds the reference or the article's own words.
    sft = [example.title[: max(8, len(example.title) // 2)] for example in EXAMPLES]
    hacked = [HACKED[kind](example) for example in EXAMPLES]
    decision = decide(EXAMPLES, sft, hacked, resamples=200, seed=1)
    assert not decision.accepted
    assert "the SFT model stays: " in describe_decision(decision)


@pytest.mark.fault
def test_too_few_articles_decide_nothing() -> None:
    better = [example.title for example in EXAMPLES]
    assert not decide(EXAMPLES[:3], SFT[:3], better[:3], resamples=200, seed=1).accepted
