"""Titles from a Hugging Face directory, with or without an adapter, in this process."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from titlegen import environment
from titlegen.constrained import LIKELIEST, Place, run_searches, search_titles
from titlegen.control import Control
from titlegen.errors import ConfigError, ExportError
from titlegen.generation.decoder import COMPILE_TOKENS, TitleDecoder
from titlegen.generation.transformers import load_model, write_tokens
from titlegen.metrics.ranking import (
    Chosen,
    candidate_temperature,
    choose_title,
    describe_candidates,
    is_doubtful,
    rank_titles,
    redraw_temperature,
)
from titlegen.metrics.title_warnings import Facts
from titlegen.models import family_at, fingerprint, load_tokenizer
from titlegen.plural import count
from titlegen.prompt import PromptFormat
from titlegen.settings import EvaluateSettings
from titlegen.train.trim import can_trim

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# How a vocabulary names a token that is a byte.
_BYTE = re.compile("<0x[0-9A-F]{2}>")
# The share of reading in the time for a title, on a CPU.
_READING_SHARE = 0.5

Advance = Callable[[float], object]


def unwatched(_: float) -> None:
    """Ignore progress."""


class Draft(NamedTuple):
    """One of the titles that a model wrote for an article."""

    text: str
    """Everything before the token that ends a title."""
    tokens: int
    ended: bool
    """Whether the model ended it; else it is cut off at the longest title."""


class TransformersGenerator:
    """A ``Generator`` on torch: bfloat16 on CUDA, float32 on the CPU."""

    def __init__(
        self, model_directory: Path, adapter: Path | None, settings: EvaluateSettings, redraws: int = 0
    ) -> None:
        """Look for the model, and the adapter over it when there is one; they are loaded once a title is asked for.

        Args:
            model_directory: the model.
            adapter: over it, or None.
            settings: decoding.
            redraws: ``serve.redraws``; where there are several candidates, nothing is drawn again.

        Raises:
            ExportError: a directory holds no model, or no adapter.
        """
        _require(model_directory / "config.json", "model", "titlegen export")
        if adapter is not None:
            _require(adapter / "adapter_config.json", "adapter", "titlegen train")
        import torch

        self.model_directory = model_directory
        self.adapter = adapter
        self.settings = settings
        self.redraws = redraws if settings.candidates == 1 else 0
        # A model that was trained again has the same folder, and half a split of the old one must not be kept.
        self.weights = [fingerprint(folder) for folder in (model_directory, adapter) if folder is not None]
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = torch.bfloat16 if self.device == "cuda" else torch.float32

    @cached_property
    def prompt(self) -> PromptFormat:
        """The turns of the model's family."""
        return family_at(self.model_directory).prompt

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return load_tokenizer(self.model_directory)

    @cached_property
    def model(self) -> PreTrainedModel | PeftModel:
        """The model on its device; where every title is kept from an earlier run, it is never needed."""
        return load_model(self.model_directory, self.adapter, dtype=self.dtype)

    @cached_property
    def decoder(self) -> TitleDecoder | None:
        """The trimmed decoder; None for an unknown architecture."""
        if not can_trim(self.model):
            return None
        automatic = COMPILE_TOKENS if self.device == "cuda" else None
        compile_after = {"auto": automatic, True: 0, False: None}[self.settings.compile]
        if compile_after is not None:
            environment.prepare_compiler()
        return TitleDecoder(self.model, compile_after=compile_after)

    @property
    def stop(self) -> list[int]:
        """The ids that end a title."""
        return [self.tokenizer.eos_token_id, *self.tokenizer.convert_tokens_to_ids(list(self.prompt.stop))]

    def describe(self) -> dict[str, object]:
        """Return model, adapter, device and decoding."""
        return {
            "generator": "transformers",
            "model": str(self.model_directory),
            "adapter": None if self.adapter is None else str(self.adapter),
            "weights": self.weights,
            "device": self.device,
            "dtype": str(self.dtype).removeprefix("torch."),
            "decoding": _decoding(self.settings, self.redraws),
        }

    def generate(self, contents: Sequence[str], advance: Advance = unwatched) -> list[str]:
        """Return the raw output for each article, in order, as :meth:`choose` chooses it."""
        return [chosen.text for chosen in self.choose(contents, advance)]

    def choose(self, contents: Sequence[str], advance: Advance = unwatched) -> list[Chosen]:
        """Return the raw output for each article, in order: the best of its candidates, where there are several.

        Where there is one, and it is doubtful, it is the better one of it and some that are drawn then.

        Raises:
            ConfigError: the GPU has too little memory for the batch.
        """
        found = []
        articles = list(map(Facts, contents))
        for drafts, facts in zip(self.draft_again(articles, advance), articles, strict=True):
            texts = [draft.text for draft in drafts]
            if self.settings.candidates > 1:
                best = rank_titles(texts, facts)[0]
            else:
                # One that was cut off takes no title's place.
                texts = [texts[0], *(draft.text for draft in drafts[1:] if draft.ended)]
                best = choose_title(texts[0], texts[1:], facts)
            found.append(Chosen(texts[best], texts[0], len(drafts)))
        return found

    def draft_again(self, articles: Sequence[Facts], advance: Advance = unwatched) -> list[tuple[Draft, ...]]:
        """Return all candidates for each article as :meth:`draft` does, and what is drawn for doubtful ones.

        Raises:
            ConfigError: the GPU has too little memory for the batch.
        """
        drafts = self.draft([facts.article for facts in articles], advance)
        if self.redraws:
            firsts = enumerate(zip(drafts, articles, strict=True))
            doubtful = [index for index, ((first, *_), facts) in firsts if is_doubtful(first.text, facts)]
            drawn = self.redraw([articles[index].article for index in doubtful])
            for index, others in zip(doubtful, drawn, strict=True):
                drafts[index] += others
        return drafts

    def redraw(self, contents: Sequence[str]) -> list[tuple[Draft, ...]]:
        """Return the titles that are drawn for doubtful ones, for each article, in order.

        Raises:
            ConfigError: the GPU has too little memory for the batch.
        """
        # As many titles at a time as at first.
        size = max(1, self.settings.batch_size // max(1, self.redraws))
        return self._in_batches(contents, size, self._redraw)

    def draft(self, contents: Sequence[str], advance: Advance = unwatched) -> list[tuple[Draft, ...]]:
        """Return all candidates for each article, in order, the greedy or likeliest first.

        Raises:
            ConfigError: the GPU has too little memory for the batch.
        """
        return self._in_batches(contents, self.settings.batch_size, lambda prompts: self._draft(prompts, advance))

    def search(self, contents: Sequence[str], controls: Sequence[Control], number: int = 1) -> list[list[str]]:
        """Return up to ``number`` titles for each article that are as asked for, the likeliest first.

        Articles of like length are searched for together (:mod:`titlegen.constrained`).
        """
        prompts = [self.prompt.render(content) for content in contents]
        titles: dict[int, list[str]] = {}
        for batch in self.batches(contents):
            searches = [search_titles(controls[index], contents[index], number) for index in batch]

            def write(begun: Sequence[tuple[int, str]]) -> list[list[Place]]:
                longest = max(self._longest(controls[batch[index]]) for index, _ in begun)  # noqa: B023
                return self._places([prompts[batch[index]] + text for index, text in begun], longest)  # noqa: B023

            titles |= zip(batch, run_searches(searches, write), strict=True)
        return [titles[index] for index in range(len(contents))]

    def _longest(self, control: Control) -> int:
        """Return how many tokens a title has at most, with its end; each has a character or more."""
        chars = self.settings.max_new_tokens if control.length is None else control.length.max_chars + 1
        return min(chars, self.settings.max_new_tokens)

    def _places(self, prompts: Sequence[str], longest: int) -> list[list[Place]]:
        """Return what is written behind prompts, greedily, with the likeliest tokens at each place."""
        import torch

        rows = self.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
        written = write_tokens(
            self.model,
            rows,
            padding=self.tokenizer.pad_token_id,
            stop=self.stop,
            max_new_tokens=longest,
            with_logits=True,
        )
        likeliest = [logits.float().log_softmax(-1).topk(LIKELIEST) for logits in written.logits]
        values = torch.stack([top.values for top in likeliest]).tolist()
        tokens = torch.stack([top.indices for top in likeliest]).tolist()
        paths = []
        for row, ids in enumerate(written.rows):
            end = next((place + 1 for place, token in enumerate(ids) if token in self.stop), len(ids))
            paths.append(
                [
                    self._place(ids[place], dict(zip(tokens[place][row], values[place][row], strict=True)))
                    for place in range(end)
                ]
            )
        return paths

    def _place(self, chosen: int, likeliest: dict[int, float]) -> Place:
        named = [(self._token(token), value) for token, value in likeliest.items()]
        return Place(self._token(chosen), likeliest[chosen], tuple(named))

    def _token(self, number: int) -> str:
        """Return a token's text; empty for one that ends a title, and the replacement character for what is no text."""
        if number in self.stop:
            return ""
        text = str(self.tokenizer.convert_ids_to_tokens(number))
        is_text = not _BYTE.fullmatch(text) and not self.prompt.control.match(text)
        return text.replace("▁", " ") if is_text else "\ufffd"

    def _in_batches(
        self, contents: Sequence[str], size: int, draft: Callable[[Sequence[str]], list[tuple[Draft, ...]]]
    ) -> list[tuple[Draft, ...]]:
        """Return what ``draft`` makes of the prompts of articles, ``size`` of like length at a time."""
        import torch

        prompts = [self.prompt.render(content) for content in contents]
        drafts: dict[int, tuple[Draft, ...]] = {}
        for batch in self.batches(contents, size):
            try:
                drafts |= zip(batch, draft([prompts[index] for index in batch]), strict=True)
            except torch.OutOfMemoryError as error:
                raise ConfigError(
                    f"the GPU has too little memory for {count(len(batch), 'article')} at a time; "
                    "lower --evaluate.batch-size, or --ray.batch-size with --engine ray"
                ) from error
        return [drafts[index] for index in range(len(contents))]

    def batches(self, contents: Sequence[str], size: int | None = None) -> list[list[int]]:
        """Return which articles are written together: those of like length, the longest first."""
        # Every prompt has the same text around its article, which is stripped.
        order = sorted(range(len(contents)), key=lambda index: -len(contents[index].strip()))
        size = size or self.settings.batch_size
        return [order[start : start + size] for start in range(0, len(order), size)]

    def _draft(self, prompts: Sequence[str], advance: Advance) -> list[tuple[Draft, ...]]:
        """Return the candidates for each prompt."""
        import torch

        settings = self.settings
        write = self._writer(prompts, advance)
        candidates = []
        for candidate in range(settings.candidates):
            torch.manual_seed(settings.seed + candidate)
            temperature = settings.temperature if candidate == 0 else candidate_temperature(settings.temperature)
            candidates.append([self._decode(title) for title in write(temperature)])
        return list(zip(*candidates, strict=True))

    def _redraw(self, prompts: Sequence[str]) -> list[tuple[Draft, ...]]:
        """Return what is drawn again for each prompt."""
        import torch

        draw = self._writer(prompts, unwatched, copies=self.redraws)
        # Behind the model's loading, which draws numbers, too.
        torch.manual_seed(self.settings.seed + 1)
        rows = list(map(self._decode, draw(redraw_temperature(self.settings.temperature))))
        return [tuple(rows[start : start + self.redraws]) for start in range(0, len(rows), self.redraws)]

    def _writer(
        self, prompts: Sequence[str], advance: Advance, copies: int = 1
    ) -> Callable[[float], Sequence[Sequence[int]]]:
        """Return a function of the temperature that writes the tokens of ``copies`` titles for each prompt."""
        settings = self.settings
        # The prompt has its <bos>.
        rows = self.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
        rows = [row for row in rows for _ in range(copies)]
        if self.decoder is not None:
            reading = self.decoder.read(rows)
            advance(_READING_SHARE * len(prompts))
            tokens = settings.max_new_tokens
            share = (1 - _READING_SHARE) * len(prompts) / settings.candidates / tokens
            return partial(self.decoder.write, reading, self.stop, tokens, on_token=lambda: advance(share))
        padding = self.tokenizer.pad_token_id
        return lambda temperature: (
            write_tokens(
                self.model,
                rows,
                padding=padding,
                stop=self.stop,
                max_new_tokens=settings.max_new_tokens,
                temperature=temperature,
            ).rows
        )

    def _decode(self, ids: Sequence[int]) -> Draft:
        """Return the text up to the stop token; control tokens before it stay visible, for they are a fault."""
        stops = {*self.stop, self.tokenizer.pad_token_id}
        end = next((index for index, token in enumerate(ids) if token in stops), len(ids))
        text = str(self.tokenizer.decode(ids[:end], skip_special_tokens=False))
        return Draft(text, tokens=end, ended=end < self.settings.max_new_tokens)


def _decoding(settings: EvaluateSettings, redraws: int) -> dict[str, object]:
    if settings.temperature == 0 and settings.candidates == 1 and not redraws:
        return {"strategy": "greedy", "max_new_tokens": settings.max_new_tokens}
    return {
        "strategy": "sampling",
        "temperature": settings.temperature,
        **describe_candidates(settings.candidates, settings.temperature, redraws),
        "seed": settings.seed,
        "max_new_tokens": settings.max_new_tokens,
        # Rows of a batch share one stream of random numbers.
        "batch_size": settings.batch_size,
    }


def _require(file: Path, what: str, command: str) -> None:
    if not file.is_file():
        raise ExportError(
            f"{file.parent} holds no {what} ({file.name} is missing); run `{command}`, or correct the path"
        )
