"""Exports with a scripted model in them, for the tests of deployment and of the client."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from corpus import tiny_vocabulary
from scripted_model import chain, with_characters, write_scripted_gguf

from titlegen import serve
from titlegen.families.gemma3 import PROMPT
from titlegen.manifest import write_manifest
from titlegen.models import write_tokenizer
from titlegen.results import Check
from titlegen.settings import ServeSettings

TITLE, OTHER_TITLE = "市府擴大公車路網 盼減空污", "國中生發明節水器 獲全球獎"
WRONG_NUMBER, EXPLAINED = "鐵道再添新站共79處", "標題：捷運延長"
ARTICLE = "市府今天宣布，下個月起擴大公車路網，新增十二條路線。交通局說，民眾可以用手機查詢。"
VOCABULARY = with_characters(tiny_vocabulary(), TITLE + OTHER_TITLE + WRONG_NUMBER + EXPLAINED)
# Characters that are tokens of their own: each question has its own answer.
_CHARACTERS = [token for token in VOCABULARY[0][400:] if len(token) == 1 and "\u4e00" <= token <= "\u9fff"]
QUESTIONS, ANSWERS = _CHARACTERS[:200], _CHARACTERS[200:400]
# The prompt of training and, after it, the article once more: its last character decides what is answered.
ECHO_TEMPLATE = PROMPT.template.replace("{{ .Response }}", "{{ .Prompt }}{{ .Response }}")


def question(number: int) -> str:
    """Return an article that ``ANSWERS[number]`` answers; the letter keeps its last character a token of its own."""
    return f"第{number}則。{ARTICLE}x{QUESTIONS[number]}"


def quiz() -> dict[str, str]:
    """Return what makes a model answer each question with its answer."""
    return dict(zip(QUESTIONS, ANSWERS, strict=True))


@dataclasses.dataclass
class Export:
    """The directories that an export leaves, with a scripted model in them."""

    merged: Path
    gguf: Path

    @property
    def file(self) -> Path:
        """The exported GGUF file."""
        return self.gguf / "titlegen-Q8_0.gguf"

    def write(self, follows: Mapping[str, str | Sequence[str]]) -> "Export":
        """Export another model."""
        shutil.rmtree(self.gguf, ignore_errors=True)
        self.gguf.mkdir(parents=True)
        write_scripted_gguf(self.file, VOCABULARY, follows)
        write_manifest(self.gguf, "gguf", {}, {}, {"types": ["q8_0"]})
        return self

    def deploy(
        self,
        settings: ServeSettings,
        state: Path,
        say: Callable[[str], None] = print,
        accept: Callable[[serve.Client], Check] | None = None,
    ) -> dict[str, Any]:
        return serve.deploy(self.merged, self.gguf, settings, state, say, accept).as_json()


def new_export(directory: Path) -> Export:
    """Return an export whose model writes TITLE."""
    found = Export(directory / "final-hf", directory / "gguf")
    found.merged.mkdir(parents=True)
    write_tokenizer(found.merged, *VOCABULARY)
    config = {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}
    (found.merged / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return found.write(chain(TITLE))
