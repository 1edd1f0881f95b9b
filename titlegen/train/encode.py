"""Token ids and labels of the training rows: the prompt masked, the title and its end of turn learned."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from titlegen.data import Example
from titlegen.errors import TrainError
from titlegen.families import ModelFamily
from titlegen.prompt import PromptFormat
from titlegen.text import cut_to_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # Source: torch.nn.CrossEntropyLoss, ignore_index
Batch: TypeAlias = dict[str, Any]
"""``input_ids``, ``attention_mask`` and ``labels``, each a (batch, seq) int64 tensor; what is known of them beside."""


class TrainingRow(TypedDict):
    """The tokens and labels of a prompt and its title."""

    input_ids: list[int]
    labels: list[int]
    """As long as ``input_ids``, -100 where masked."""


class EncodedRow(TrainingRow):
    """One that was made of an example."""

    id: str
    shortened: bool
    left_out_chars: int


class NumberedRow(TrainingRow):
    """One as the collator takes it."""

    row: int
    length: int


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, family: ModelFamily) -> None:
    """Refuse a base model whose tokenizer or chat template is not its family's: it would learn another prompt.

    Raises:
        TrainError: a control token stands elsewhere, or the chat template renders other bytes, as with thinking on.
    """
    import jinja2

    prompt, tokens = family.prompt, family.tokens
    for token, expected in ((prompt.bos, tokens.bos), (prompt.end_of_turn, tokens.end_of_turn)):
        if (found := tokenizer.convert_tokens_to_ids(token)) != expected:
            raise TrainError(
                f"the base model's tokenizer has {token!r} as {found}, and {family.title}'s is {expected}: it is of "
                "another family; fetch the model again, with its own tokenizer"
            )
    if not tokenizer.chat_template:
        return
    article, rendered = "內文", ""
    with contextlib.suppress(jinja2.TemplateError):
        messages = prompt.messages(article)
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if rendered != (trained := prompt.render(article)):
        at = next((i for i, (a, b) in enumerate(zip(trained, rendered, strict=False)) if a != b), len(rendered))
        raise TrainError(
            f"the base model's chat template renders {rendered[at : at + 30]!r} where {family.title}'s own has "
            f"{trained[at : at + 30]!r} (it may have thinking on, or be another tool's); fetch the model again, or put "
            "the published chat_template.jinja into its directory"
        )


def encode_examples(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, prompt: PromptFormat, max_length: int
) -> list[EncodedRow]:
    """Encode each example as one row of prompt and title.

    The content of a row over ``max_length`` is shortened at a sentence end; the title is never cut.

    Raises:
        TrainError: a title leaves no room for any content.
    """
    return [_encode(example, tokenizer, prompt, max_length) for example in examples]


def encode_prompt(
    content: str,
    title: str,
    tokenizer: PreTrainedTokenizerBase,
    prompt_format: PromptFormat,
    max_length: int,
    name: str,
) -> tuple[list[int], str]:
    """Return the tokens of an article's prompt that leave room for a title, and as much of the content as they hold.

    Raises:
        TrainError: the title leaves no room for any content; ``name`` is the article's in the message.
    """

    def count(text: str) -> int:
        return len(encode(tokenizer, text))

    prompt = encode(tokenizer, prompt_format.render(content))
    completion = count(prompt_format.render_completion(title))
    excess = len(prompt) + completion - max_length
    while excess > 0:
        budget = count(content) - excess
        if budget < 1:
            raise TrainError(
                f"article {name!r}: a title of {completion} tokens leaves no room for content within "
                f"{max_length} tokens; raise --train.max-length"
            )
        content = cut_to_tokens(content, budget, count)
        prompt = encode(tokenizer, prompt_format.render(content))
        excess = len(prompt) + completion - max_length
    return prompt, content


def _encode(
    example: Example, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat, max_length: int
) -> EncodedRow:
    prompt, content = encode_prompt(example.content, example.title, tokenizer, prompt_format, max_length, example.id)
    completion = encode(tokenizer, prompt_format.render_completion(example.title))
    return {
        "id": example.id,
        "input_ids": prompt + completion,
        "labels": [IGNORED] * len(prompt) + completion,
        "shortened": len(content) < len(example.content),
        "left_out_chars": len(example.content) - len(content),
    }


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the tokens of a rendered text, which carries its own ``<bos>`` where it has one."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
