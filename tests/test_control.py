"""What a title can be asked for: the line, what meets it, and training rows that carry it."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titlegen.control import (
    NO_CONTROL,
    Control,
    ask,
    common_runs,
    describe_reference,
    draw_control,
    with_controls,
)
from titlegen.data import Example
from titlegen.errors import ConfigError
from titlegen.families import gemma3
from titlegen.slots import LENGTHS, length_of

ARTICLE = "臺南市政府今日宣布，將投入2億元整修安平老街的人行道，預計明年完工。"


def example(title: str, name: str = "a", content: str = ARTICLE) -> Example:
    return Example(name, content, title, "test", None)


def test_the_prompt_without_a_control_is_the_specifications_byte_for_byte() -> None:
    expected = (
        "<bos><start_of_turn>user\n你是精煉新聞標題的助理，回覆僅輸出標題，不需解釋。\n\n"
        f"請將以下內容濃縮成一則新聞標題（僅輸出標題）：\n{ARTICLE}<end_of_turn>\n<start_of_turn>model\n"
    )
    assert gemma3.PROMPT.render(ask(ARTICLE, NO_CONTROL)) == expected
    asked = gemma3.PROMPT.render(ask(ARTICLE, Control(13, ("臺南", "安平"))))
    assert asked == expected.replace(ARTICLE, f"（9到13字，包含「臺南」「安平」）\n{ARTICLE}")


def test_a_control_cannot_leave_its_line_or_its_turn() -> None:
    with pytest.raises(ConfigError, match="cannot be asked for"):
        Control(None, ("<eos>",))
    for word in ("臺南\n標題", "臺南\u2028標題", "臺\0南", "臺\x1b南", "\udcff"):
        with pytest.raises(ConfigError, match="in one line"):
            Control(None, (word,))


@pytest.mark.parametrize(
    ("chars", "words"), [(12, ()), (0, ()), (None, ("",)), (None, ("長" * 13,)), (None, ("一", "二", "三", "四"))]
)
def test_what_the_model_was_not_taught_cannot_be_asked_for(chars: int | None, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="asked for"):
        Control(chars, words)


def test_what_is_missing_is_named() -> None:
    control = Control(13, ("臺南", "老街"))
    assert control.unmet("臺南整修安平老街人行道路") == []
    assert control.unmet("臺南整修") == ["chars", "老街"]
    assert control.unmet("臺南安平老街人行道將全面重新整修") == ["chars"]


@given(st.text(min_size=0, max_size=40))
def test_what_has_a_length_meets_the_control_that_asks_for_it(title: str) -> None:
    length = length_of(title)
    assert (length is not None) == (9 <= len(title.strip()) <= 28)
    assert length is None or not Control(length.max_chars).unmet(title)


@given(st.sampled_from(["臺南將整修安平老街", "2億元整修安平老街 明年完工", "完全無關的新聞"]), st.integers(0, 10_000))
def test_a_reference_meets_what_its_row_asks_for(title: str, seed: int) -> None:
    assert describe_reference(example(title), random.Random(seed)).unmet(title) == []


@given(st.integers(0, 10_000))
def test_words_of_a_drawn_control_stand_in_the_article(seed: int) -> None:
    control = draw_control(example("臺南將整修安平老街"), random.Random(seed))
    assert control
    assert all(word in ARTICLE for word in control.include)


def test_common_runs_end_at_marks_and_at_what_the_article_lacks() -> None:
    assert common_runs("整修安平老街，明年完工了", ARTICLE) == ["整修安平老街", "明年完工"]


def test_a_share_of_the_rows_asks_and_rare_lengths_come_first() -> None:
    titles = ["臺南市政府整修安平老街的人行道預計明年" + "完" * (n % 3) for n in range(90)] + [
        "整修安平老街人行道路"
    ] * 10
    rows = [example(title, str(number)) for number, title in enumerate(titles)]
    changed = with_controls(rows, 0.2, seed=1)
    asked = [row for row, before in zip(changed, rows, strict=True) if row.content != before.content]
    assert len(asked) == 20
    assert all(row.content.endswith(f"）\n{ARTICLE}") for row in asked)
    assert Counter(length_of(row.title) for row in asked)[LENGTHS[0]] >= 6, "of ten, by the weight of a rare slot"
    assert with_controls(rows, 0.2, seed=1) == changed
    assert with_controls(rows, 0.0, seed=1) == rows
