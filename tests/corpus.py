"""What several test modules are made of: the embedded corpus, and a small vocabulary in Gemma's format."""

import json
from collections import Counter
from importlib import resources
from itertools import pairwise
from pathlib import Path

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_VOCABULARY_ROWS = 192
SHARED = Path(__file__).resolve().parents[2] / "shared"


def corpus_rows() -> list[dict[str, str]]:
    """Return the articles of the embedded corpus, part by part."""
    folder = resources.files("titlegen") / "corpus"
    parts = [item for item in folder.iterdir() if item.name.endswith(".jsonl")]
    files = sorted(parts, key=lambda item: int(item.name.removeprefix("part").removesuffix(".jsonl")))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def tiny_vocabulary(
    turns: tuple[str, str] = ("<start_of_turn>", "<end_of_turn>"), others: dict[int, str] | None = None
) -> tuple[list[str], list[float], list[int]]:
    """Return tokens, scores and types with Gemma's control ids, and the corpus' frequent characters and pairs.

    ``others`` are control tokens that take the place of unused ones.
    """
    control = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "[multimodal]", *(f"<unused{i}>" for i in range(99))]
    control = [(others or {}).get(place, token) for place, token in enumerate([*control, *turns])]
    defined = ["\n", "\n\n", "\n\n\n", "  ", "   "]
    # A part of the corpus: the small models of the tests stay what they are when it grows.
    text = "".join(row["content"] + row["title"] for row in corpus_rows()[:_VOCABULARY_ROWS])
    characters = [char for char, _ in Counter(text.replace("\n", "").replace(" ", "▁")).most_common(1200)]
    characters += [char for char in "▁abcdefghijklmnopqrstuvwxyz" if char not in characters]
    pairs = Counter(a + b for a, b in pairwise(text) if a in characters and b in characters)
    frequent = [pair for pair, _ in pairs.most_common(300)]
    words = ["us", "er", "user", "mo", "mod", "el", "model"]
    tokens = [*control, *defined, *(f"<0x{i:02X}>" for i in range(256)), *frequent, *words, *characters]
    kinds = [3] * len(control) + [4] * len(defined) + [6] * 256 + [1] * (len(frequent) + len(words) + len(characters))
    kinds[5] = 4
    scores = [-1000.0] * (len(control) + len(defined)) + [0.0] * 256
    scores += [-float(i) for i in range(len(frequent) + len(words) + len(characters))]
    return tokens, scores, kinds
