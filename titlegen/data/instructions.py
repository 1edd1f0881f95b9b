"""Instructions that another project put around each article, found by what the articles share."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from titlegen.prompt import INSTRUCTION

# A beginning that one article alone has is an instruction only when it says so.
_ASKS = re.compile(r"標題|标题|摘要|headline|title|summar", re.IGNORECASE)
_ORDERS = re.compile(
    r"請|请|寫|写|生成|產生|产生|濃縮|浓缩|給|给|為|为|根據|根据|撰|擬|拟|write|generate|give|create|suggest|summar",
    re.IGNORECASE,
)
# What stands behind an article for its answer to go on from.
_CUE = re.compile(
    r"\W*(?:新聞|新闻)?(?:標題|标题|摘要|回答|答案|title|headline|answer|response|assistant|output)\W*", re.IGNORECASE
)
_QUOTES = ("「」", "『』", "“”", '""', "《》", "【】")
_MAX_CHARS = 300
_LEAST_SHARE = 0.05
_LEAST_ARTICLES = 3
# The end of a line or of an introduction; what all share may have quotes behind it that open the article.
_BEGINNING = re.compile(r".*?(?:\n|[：:](?!//))\s*", re.DOTALL)
_SHARED = re.compile(r".*[\n：:][^\w<【（(《]*", re.DOTALL)
_SHARED_SENTENCE = re.compile(r".*[。！？!?：:\n][^\w<【（(《]*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Instructions:
    """Texts that stand before, and behind, the articles of one source."""

    before: tuple[str, ...] = ()
    """The longest first."""
    behind: str = ""

    def take_off(self, text: str) -> tuple[str, str]:
        """Return the article without its instruction, and the instruction, empty for none."""
        first = next((lead for lead in self.before if text.startswith(lead)), "")
        last = self.behind if self.behind and text.endswith(self.behind) else ""
        article = text[len(first) : len(text) - len(last)]
        # An instruction without an article is no reason to have none at all.
        return (article, (first or last).strip()) if article.strip() else (text, "")


def find_instructions(texts: Sequence[str]) -> Instructions:
    """Return what all of the texts share at their beginning or end, and what many share that asks for a title.

    One that only some share must be an order: articles may begin with the same dateline.
    """
    texts = list(dict.fromkeys(text for text in texts if text.strip()))
    if not texts:
        return Instructions()
    found = {INSTRUCTION} | _shared_beginning(texts)
    counts = Counter(lead for text in texts if (lead := _leading_order(text)))
    enough = min(max(_LEAST_ARTICLES, _LEAST_SHARE * len(texts)), len(texts))
    found |= {lead for lead, often in counts.items() if often >= enough}
    return Instructions(tuple(sorted(found, key=lambda lead: (-len(lead), lead))), _shared_end(texts))


def _shared_beginning(texts: Sequence[str]) -> set[str]:
    shared = _common_prefix(texts)
    is_order = _is_order(shared)
    if len(texts) < _LEAST_ARTICLES and not is_order:
        return set()
    match = (_SHARED_SENTENCE if is_order else _SHARED).match(shared)
    # A shared beginning as long as an article belongs to the articles.
    return {match[0]} if match and len(match[0]) < min(map(len, texts)) else set()


def _common_prefix(texts: Sequence[str]) -> str:
    # The first and the last in order differ soonest.
    first, last = min(texts), max(texts)
    end = next((place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    return first[:end] if len(texts) > 1 else ""


def _shared_end(texts: Sequence[str]) -> str:
    shared = _common_prefix([text[::-1] for text in texts])[::-1]
    end = shared[shared.find("\n") :] if "\n" in shared else ""
    return end if (_is_order(end) or _CUE.fullmatch(end)) and len(end) < min(map(len, texts)) else ""


def find_quotes(titles: Sequence[str]) -> str:
    """Return the pair of quotation marks in which a model answered with most of its titles; empty for none."""
    often = Counter(pair for title in titles if (pair := _pair_around(title)))
    pair, count = next(iter(often.most_common(1)), ("", 0))
    return pair if count > len(titles) / 2 and len(titles) >= _LEAST_ARTICLES else ""


def without_quotes(title: str, pair: str) -> str:
    """Return a title without the pair of quotation marks around it, or as it is."""
    return title.strip()[1:-1] if pair and _pair_around(title) == pair else title


def _pair_around(title: str) -> str:
    """Return the marks that open at a title's beginning and close at its end and nowhere else; empty for none."""
    text = title.strip()
    around = text[:1] + text[-1:]
    return around if around in _QUOTES and not set(text[1:-1]) & set(around) else ""


def _leading_order(text: str) -> str:
    """Return the beginning of a text up to its first line break or colon when it orders a title."""
    match = _BEGINNING.match(text[:_MAX_CHARS])
    return match[0] if match and match.end() < len(text) and _is_order(match[0]) else ""


def _is_order(text: str) -> bool:
    return bool(_ASKS.search(text) and _ORDERS.search(text))
