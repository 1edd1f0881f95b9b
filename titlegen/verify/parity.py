"""Parity of training and serving: the same prompt bytes, and the same token ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.models import family_at, load_tokenizer
from titlegen.plural import count
from titlegen.prompt import SYSTEM
from titlegen.template import Template, values_of
from titlegen.verify.check import Check, none_wrong
from titlegen.verify.llama_cpp import ask, llama_server

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_prompt_bytes(
    export: Path, articles: Sequence[str], tokenizer: PreTrainedTokenizerBase | None = None
) -> Check:
    """The chat template and the Ollama template render exactly the bytes that the model was trained on."""
    tokenizer = tokenizer or load_tokenizer(export)
    prompt_format = family_at(export).prompt
    template = Template(prompt_format.template)
    wrong = []
    for number, article in enumerate(articles):
        trained = prompt_format.render(article)
        chat = tokenizer.apply_chat_template(
            prompt_format.messages(article), tokenize=False, add_generation_prompt=True
        )
        prompt = prompt_format.neutralise(article).strip()
        served = prompt_format.bos + template.render(values_of(SYSTEM, prompt))
        if chat != trained:
            wrong.append(f"article {number}: the chat template renders {_difference(trained, chat)}")
        if served != trained:
            wrong.append(f"article {number}: the Ollama template renders {_difference(trained, served)}")
    stop, end = prompt_format.stop, prompt_format.render_completion("")
    if not end.endswith(stop):
        wrong.append(f"the Modelfile stops at {stop}, training ends a title with {end}")
    return none_wrong("parity.prompt", f"{count(len(articles), 'article')}, chat template and Ollama template", wrong)


def check_token_ids(
    export: Path, ggufs: Sequence[Path], texts: Sequence[str], tokenizer: PreTrainedTokenizerBase | None = None
) -> list[Check]:
    """The Hugging Face tokenizer and llama.cpp's read every text as the same tokens."""
    tokenizer = tokenizer or load_tokenizer(export)
    prompt_format = family_at(export).prompt
    prompts = [prompt_format.render(text) for text in texts]
    rows = tokenizer(prompts, add_special_tokens=False)["input_ids"] if prompts else []
    checks = []
    for path in ggufs:
        with llama_server(path) as client:
            wrong = []
            for text, prompt, ids in zip(texts, prompts, rows, strict=True):
                body = {"content": prompt, "add_special": False, "parse_special": True}
                served = ask(client, "/tokenize", body)["tokens"]
                if ids != served:
                    wrong.append(f"{text[:20]!r}: {_difference(ids, served)}")
        checks.append(none_wrong("parity.tokens", f"{len(texts)} prompts, tokenizer.json and {path.name}", wrong))
    return checks


def _difference(expected: Sequence[object], found: Sequence[object]) -> str:
    at = next(
        (i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), min(len(expected), len(found))
    )
    return f"{found[at : at + 12]!r} where {expected[at : at + 12]!r} is expected (position {at})"
