"""Sentences of a text, and the longest beginning that fits a token budget."""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Sequence

_SENTENCE = re.compile(r"[^。！？!?\n]*[。！？!?]+[」』）)”’》】]*|[^。！？!?\n]+")
# Control characters, half surrogate pairs, separators of lines and of paragraphs.
_NOT_IN_LINES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_CLAUSE_END = re.compile(r"[，、；：,;:　 ]")
# Running Chinese has one to two characters a token: a text this short may fit, and one this long cannot.
_CHARS_PER_TOKEN = 2
_MOST_CHARS_PER_TOKEN = 16


def is_one_line(text: str) -> bool:
    """Return whether a text is one line of characters.

    It is not where it holds control characters, separators of lines or paragraphs, or half a surrogate pair, as which
    bytes of a command line arrive that are no text.
    """
    return not any(unicodedata.category(char) in _NOT_IN_LINES for char in text)


def first_line(text: str) -> str:
    """Return the first line that is not blank, without the white space around it; empty when there is none."""
    return next(filter(None, map(str.strip, text.splitlines())), "")


def split_sentences(text: str) -> list[str]:
    """Return the sentences in order, each with its end mark and closing quotes; line breaks end one, too."""
    return [text[start:end] for start, end in sentence_spans(text)]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return start and end (exclusive) of each sentence, without surrounding spaces; empty ones are left out."""
    spans = []
    for match in _SENTENCE.finditer(text):
        piece = match[0]
        start = match.start() + len(piece) - len(piece.lstrip())
        end = match.end() - len(piece) + len(piece.rstrip())
        if start < end:
            spans.append((start, end))
    return spans


def cut_to_tokens(text: str, budget: int, count_tokens: Callable[[str], int]) -> str:
    """Return the longest beginning of whole sentences that has at most ``budget`` tokens.

    A first sentence that is too long alone is cut before a clause mark or, when no clause fits, at a character. The
    result's own ``count_tokens`` is within the budget, whatever the tokenizer merges. Only a stretch of text in
    proportion to the budget is ever tokenised, so that 200,000 characters take no longer than a page.
    """
    text = text.strip()
    chars_per_token = 1.0
    if len(text) <= budget * _CHARS_PER_TOKEN:
        tokens = count_tokens(text)
        if tokens <= budget:
            return text
        chars_per_token = len(text) / tokens
    ends = [end for _, end in sentence_spans(text)]
    for finer in (_clause_ends, _character_ends):
        if not ends or (ends[0] <= budget * _MOST_CHARS_PER_TOKEN and count_tokens(text[: ends[0]]) <= budget):
            break
        ends = finer(text[: ends[0]])
    return _longest(text, ends, budget, count_tokens, chars_per_token)


def _clause_ends(sentence: str) -> list[int]:
    return [match.start() for match in _CLAUSE_END.finditer(sentence) if match.start()] or [len(sentence)]


def _character_ends(sentence: str) -> list[int]:
    return list(range(1, len(sentence) + 1))


def _longest(
    text: str, ends: Sequence[int], budget: int, count_tokens: Callable[[str], int], chars_per_token: float
) -> str:
    """Return the longest of the beginnings ``text[:end]`` that fits, searched by the characters that a token takes.

    Each probe corrects that rate, so that three or four are enough; a probe that does not help halves the range.
    """
    low, high = 0, len(ends)  # ends[:low] fit, ends[high:] do not
    halve = False
    while low < high:
        guess = bisect_right(ends, int(budget * chars_per_token), low, high)
        if halve:
            # The middle, but nowhere far beyond the budget.
            guess = min((low + high + 1) // 2, bisect_right(ends, int(4 * budget * chars_per_token), low, high))
        # Right above the last that fits or at the first that does not: one probe then ends the search.
        probe = min(max(guess, low + 1), high)
        tokens = count_tokens(text[: ends[probe - 1]])
        before = high - low
        low, high = (probe, high) if tokens <= budget else (low, probe - 1)
        halve = high - low > before // 2 and not halve
        chars_per_token = min(ends[probe - 1] / max(tokens, 1), 2 * chars_per_token)
    return text[: ends[low - 1]].rstrip() if low else ""
