"""Three ways to bring an article within its token budget."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

from titlegen.errors import DataError
from titlegen.text import cut_to_tokens, split_sentences
from titlegen.text.textrank import sentence_ranks

Strategy = Literal["truncate", "lead", "textrank"]
STRATEGIES: tuple[Strategy, ...] = ("truncate", "lead", "textrank")
CountTokens = Callable[[str], int]
_LEAD_SENTENCES = 3
# Texts whose count is kept.
_REMEMBERED = 16
# Similarity is quadratic in the sentences; a news article has far fewer than this.
_MAX_RANKED = 300


@lru_cache(maxsize=2)
def load_counter(tokenizer_file: Path) -> CountTokens:
    """Return a function that counts the tokens of a text, special tokens left out.

    Raises:
        DataError: the file is not one of the ``tokenizers`` package.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    except Exception as error:  # the package raises bare Exception
        raise DataError(
            f"{tokenizer_file} is not a tokenizer.json: {error}; fetch or export the model again"
        ) from error
    # Both may be stored in the file, and would make every count the same.
    tokenizer.no_truncation()
    tokenizer.no_padding()

    # A text that does not fit is counted again by what shortens it.
    @lru_cache(maxsize=_REMEMBERED)
    def count_tokens(text: str) -> int:
        # The fast way leaves out where in the text each token stands, which takes half of the time.
        return len(tokenizer.encode_batch_fast([text], add_special_tokens=False)[0])

    return count_tokens


def fits(text: str, budget: int, count_tokens: CountTokens) -> bool:
    """Return whether a text has at most ``budget`` tokens; a text far too long is not tokenised as a whole."""
    head = text[: 16 * budget]
    return count_tokens(head) <= budget and (len(head) == len(text) or count_tokens(text) <= budget)


def shorten(text: str, budget: int, strategy: Strategy, count_tokens: CountTokens) -> str:
    """Return the article within ``budget`` tokens: unchanged when it fits, else what the strategy keeps of it."""
    if fits(text, budget, count_tokens):
        return text
    if strategy == "lead":
        text = "".join(split_sentences(text)[:_LEAD_SENTENCES])
    elif strategy == "textrank":
        text = rank_sentences(text, budget, count_tokens)
    return cut_to_tokens(text, budget, count_tokens)


def rank_sentences(text: str, budget: int, count_tokens: CountTokens) -> str:
    """Return the most central sentences that fit the budget, in their original order.

    Centrality is PageRank over the graph of sentences, whose edges weigh shared character bigrams.
    """
    sentences = split_sentences(text)[:_MAX_RANKED]
    ranks = sentence_ranks(sentences)
    order = sorted(range(len(sentences)), key=lambda index: (-ranks[index], index))
    chosen: list[int] = []
    left = budget
    for index in order:
        cost = count_tokens(sentences[index])
        if cost <= left:
            chosen.append(index)
            left -= cost
    return "".join(sentences[index] for index in sorted(chosen)) or text


def title_coverage(title: str, text: str) -> float:
    """Return the share of a title's letters and digits that stand in a text, 0 to 1; each counts once."""
    letters = {character for character in title if character.isalnum()}
    return len(letters & set(text)) / len(letters) if letters else 0.0
