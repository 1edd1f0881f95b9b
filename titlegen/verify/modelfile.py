"""A Modelfile that any tool may have written against the model's own chat template, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.families import ModelFamily
from titlegen.modelfile import Modelfile, read_modelfile
from titlegen.models import family_at, load_tokenizer
from titlegen.plural import count
from titlegen.prompt import INSTRUCTION, SYSTEM
from titlegen.template import Template, TemplateError, values_of
from titlegen.verify.check import Check, none_wrong

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_modelfile(directory: Path, path: Path, articles: Sequence[str]) -> list[Check]:
    """Check that Ollama would give the model the tokens that its own chat template gives it.

    Args:
        directory: the model, with its tokenizer and chat template.
        path: the Modelfile.
        articles: what is asked about.

    Raises:
        ConfigError: the Modelfile or the model's configuration cannot be read.
    """
    modelfile, family = read_modelfile(path), family_at(directory)
    tokenizer = load_tokenizer(directory)
    return [
        _check_prompt(modelfile, family, tokenizer, articles, path.name),
        _check_stops(modelfile, family, path.name),
    ]


def _check_prompt(
    modelfile: Modelfile, family: ModelFamily, tokenizer: PreTrainedTokenizerBase, articles: Sequence[str], name: str
) -> Check:
    compared = f"{count(len(articles), 'article')}, TEMPLATE of {name} and the model's chat template"
    if modelfile.renderer is not None:
        reason = f"RENDERER {modelfile.renderer} lets Ollama's own code write the prompt, which cannot be compared here"
        return none_wrong("modelfile.prompt", compared, [reason])
    if modelfile.template is None:
        return none_wrong("modelfile.prompt", compared, ["it has no TEMPLATE, so that Ollama guesses one"])
    try:
        template = Template(modelfile.template)
        # Callers may send a system text of their own, or none, where the file has none.
        systems = (modelfile.system,) if modelfile.system else (SYSTEM, "")
        wrong = [
            fault
            for system in systems
            for number, article in enumerate(articles)
            if (fault := _first_difference(template, modelfile.template, system, article, family, tokenizer, number))
        ]
    except TemplateError as error:
        wrong = [f"its TEMPLATE is not rendered here: {error}"]
    return none_wrong("modelfile.prompt", compared, wrong)


def _first_difference(  # noqa: PLR0917 - one prompt, and what it is made of
    template: Template,
    source: str,
    system: str,
    article: str,
    family: ModelFamily,
    tokenizer: PreTrainedTokenizerBase,
    number: int,
) -> str:
    """Return where the tokens of one prompt part, empty where they do not."""
    text = family.prompt.neutralise(article).strip()
    asked = f"{INSTRUCTION}\n{text}"
    messages = [{"role": "user", "content": asked}]
    messages = [{"role": "system", "content": system}, *messages] if system else messages
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    # A template may hold the instruction itself, as titlegen's does.
    served = template.render(values_of(system, text if INSTRUCTION in source else asked))
    # Ollama puts the first token there once, whether the template has it or not.
    bos = family.prompt.bos
    wanted, found = (_ids(tokenizer, bos + prompt.removeprefix(bos)) for prompt in (expected, served))
    at = next((i for i, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b), min(len(wanted), len(found)))
    if at == len(wanted) == len(found):
        return ""
    what = "with a system text" if system else "without a system text"
    return (
        f"article {number}, {what}: token {at} is {_shown(tokenizer, found[at:])}, the chat template's "
        f"{_shown(tokenizer, wanted[at:])}, after {_shown(tokenizer, wanted[max(0, at - 3) : at], all_of_them=True)}"
    )


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _shown(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, all_of_them: bool = False) -> str:
    if not ids:
        return "the end"
    return repr(str(tokenizer.decode(ids if all_of_them else ids[:1], skip_special_tokens=False)))


def _check_stops(modelfile: Modelfile, family: ModelFamily, name: str) -> Check:
    """A stop is a control token: the file's own end of turn ends a title, and plain text may stand in one."""
    plain = [stop for stop in modelfile.stops if family.prompt.neutralise(stop) == stop]
    wrong = [f"PARAMETER stop {stop!r} is plain text, at which a title would be cut off" for stop in plain]
    return none_wrong("modelfile.stop", f"{count(len(modelfile.stops), 'stop')} of {name}", wrong)
