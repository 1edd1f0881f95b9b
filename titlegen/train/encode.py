"""Token ids and labels of the training rows: the prompt masked, the title and its end of turn learned."""

from collections.abc import Sequence
from typing import Any

from titlegen.data import Example
from titlegen.errors import TrainError
from titlegen.prompt import render_completion, render_prompt
from titlegen.text import trim_to_tokens

IGNORED = -100  # Source: torch.nn.CrossEntropyLoss, ignore_index


def encode_examples(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[dict[str, Any]]:
    """Encode each example as one row of prompt and title.

    The content of a row over ``max_length`` is shortened at a sentence end; the title is never cut.

    Returns:
        One dict a row: ``input_ids`` and ``labels`` (equal lengths, -100 where masked), ``id``, ``shortened``,
        ``left_out_chars``.

    Raises:
        TrainError: a title leaves no room for any content.
    """
    return [_encode(example, tokenizer, max_length) for example in examples]


def _encode(example: Example, tokenizer: Any, max_length: int) -> dict[str, Any]:
    def count(text: str) -> int:
        return len(_ids(tokenizer, text))

    content = example.content
    prompt = _ids(tokenizer, render_prompt(content))
    completion = _ids(tokenizer, render_completion(example.title))
    excess = len(prompt) + len(completion) - max_length
    shortened = excess > 0
    while excess > 0:
        budget = count(content) - excess
        if budget < 1:
            raise TrainError(
                f"article {example.id!r}: a title of {len(completion)} tokens leaves no room for content within "
                f"{max_length} tokens; raise --train.max-length"
            )
        content = trim_to_tokens(content, budget, count)
        prompt = _ids(tokenizer, render_prompt(content))
        excess = len(prompt) + len(completion) - max_length
    return {
        "id": example.id,
        "input_ids": prompt + completion,
        "labels": [IGNORED] * len(prompt) + completion,
        "shortened": shortened,
        "left_out_chars": len(example.content) - len(content),
    }


def _ids(tokenizer: Any, text: str) -> list[int]:
    # The prompt carries its own <bos>.
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
