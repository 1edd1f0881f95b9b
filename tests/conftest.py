"""Fixtures that several test modules share: a tiny model with Gemma's tokenizer format, and a few articles."""

import json
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest

from titlegen.models import write_tokenizer

SHARED = Path(__file__).resolve().parents[2] / "shared"


def corpus_rows() -> list[dict[str, str]]:
    """Return the articles of the embedded corpus."""
    folder = resources.files("titlegen") / "corpus"
    files = sorted((item for item in folder.iterdir() if item.name.endswith(".jsonl")), key=lambda item: item.name)
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def tiny_vocabulary() -> tuple[list[str], list[float], list[int]]:
    """Return tokens, scores and types with Gemma's control ids, bytes, and the corpus' frequent characters and pairs."""
    control = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "[multimodal]", *(f"<unused{i}>" for i in range(99))]
    control += ["<start_of_turn>", "<end_of_turn>"]
    defined = ["\n", "\n\n", "\n\n\n", "  ", "   "]
    text = "".join(row["content"] + row["title"] for row in corpus_rows())
    characters = [char for char, _ in Counter(text.replace("\n", "").replace(" ", "▁")).most_common(1200)]
    characters += [char for char in "▁abcdefghijklmnopqrstuvwxyz" if char not in characters]
    pairs = Counter(a + b for a, b in zip(text, text[1:], strict=False) if a in characters and b in characters)
    frequent = [pair for pair, _ in pairs.most_common(300)]
    words = ["us", "er", "user", "mo", "mod", "el", "model"]
    tokens = [*control, *defined, *(f"<0x{i:02X}>" for i in range(256)), *frequent, *words, *characters]
    kinds = [3] * len(control) + [4] * len(defined) + [6] * 256 + [1] * (len(frequent) + len(words) + len(characters))
    kinds[5] = 4
    scores = [-1000.0] * (len(control) + len(defined)) + [0.0] * 256
    scores += [-float(i) for i in range(len(frequent) + len(words) + len(characters))]
    return tokens, scores, kinds


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Gemma3ForCausalLM of two layers in a Hugging Face directory, with every tokenizer file."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    directory = tmp_path_factory.mktemp("base") / "tiny-gemma3"
    directory.mkdir()
    tokens, scores, kinds = tiny_vocabulary()
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=64,
        max_position_embeddings=2048,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={
            "full_attention": {"rope_theta": 1_000_000.0, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"},
        },
        bos_token_id=2,
        eos_token_id=[1, 106],
        pad_token_id=0,
    )
    Gemma3ForCausalLM(config).save_pretrained(directory)
    write_tokenizer(directory, tokens, scores, kinds)
    return directory


@pytest.fixture(scope="session")
def articles() -> list[dict[str, str]]:
    """A few articles of the embedded corpus."""
    return corpus_rows()[:12]
