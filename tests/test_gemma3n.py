"""A tiny Gemma 3n all the way: adapter, merge, GGUF, llama.cpp. Its weights are random, its tokenizer is real."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from logits import compare_logits
from tiny_models import add_unread_weights, randomise

from titlegen.errors import VerifyError
from titlegen.export import write_gguf
from titlegen.families.gemma3 import PROMPT
from titlegen.verify import check_export, check_gguf, check_prompt_bytes, check_token_ids, failures
from titlegen.verify.llama_cpp import llama_server

FIRST_SHARED, LAYERS = 20, 35
HIDDEN, HEAD = 128, 64


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A random Gemma 3n with the sizes that llama.cpp fixes in code, and the others small."""
    import torch
    from tokenizers import Tokenizer
    from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

    directory = tmp_path_factory.mktemp("gemma3n") / "tiny-gemma3n"
    directory.mkdir()
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tiny_base / name, directory / name)
    size = Tokenizer.from_file(str(directory / "tokenizer.json")).get_vocab_size()
    torch.manual_seed(0)
    config = Gemma3nTextConfig(
        vocab_size=size,
        vocab_size_per_layer_input=size,
        hidden_size=HIDDEN,
        # Wide enough that the statistics behind the activation sparsity are stable.
        intermediate_size=2048,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=HEAD,
        sliding_window=64,
        layer_types=(["sliding_attention"] * 4 + ["full_attention"]) * 7,
        bos_token_id=2,
        eos_token_id=[1, 106],
        pad_token_id=0,
    )
    model = Gemma3nForCausalLM(config).float()
    randomise(model, deviation=0.03)
    model.save_pretrained(directory)
    # llama.cpp requires them.
    add_unread_weights(directory, HIDDEN, dict.fromkeys(range(FIRST_SHARED, LAYERS), HEAD))
    fields = json.loads((directory / "config.json").read_bytes())
    # The name under which Ollama imports the text weights.
    fields["architectures"] = ["Gemma3nForConditionalGeneration"]
    (directory / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    return directory


def load(directory: Path) -> Any:
    import torch
    from transformers import Gemma3nForCausalLM

    return Gemma3nForCausalLM.from_pretrained(directory, dtype=torch.float32)


def test_the_export_keeps_the_weights_that_transformers_drops(base: Path, adapter: Path, merged: Path) -> None:
    from safetensors import safe_open

    with safe_open(merged / "model.safetensors", framework="pt") as file:
        assert f"model.layers.{LAYERS - 1}.self_attn.k_proj.weight" in file.keys()  # noqa: SIM118
    assert not failures(check_export(merged, base, adapter))
    config = json.loads((merged / "config.json").read_bytes())
    assert (config["rope_theta"], config["rope_local_base_freq"]) == (1_000_000.0, 10_000.0)
    assert config["architectures"] == ["Gemma3nForConditionalGeneration"]


@pytest.mark.fault
def test_a_gguf_file_without_them_is_named(base: Path, adapter: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    merged = tmp_path / "merged"
    PeftModel.from_pretrained(load(base), adapter).merge_and_unload().save_pretrained(merged)
    for path in base.iterdir():
        if not (merged / path.name).exists():
            (merged / path.name).write_bytes(path.read_bytes())
    write_gguf(merged, "f16", tmp_path / "lacking.gguf")
    with (
        pytest.raises(VerifyError, match=r"llama.cpp cannot load .*lacking.gguf"),
        llama_server(tmp_path / "lacking.gguf"),
    ):
        pass


@pytest.mark.fault
def test_an_export_through_transformers_lacks_them_and_is_caught(base: Path, adapter: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    PeftModel.from_pretrained(load(base), adapter).merge_and_unload().save_pretrained(tmp_path)
    for path in base.iterdir():
        if not (tmp_path / path.name).exists():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    failed = {check.name: check for check in failures(check_export(tmp_path, base, adapter))}
    assert "model.layers.20.self_attn.k_norm.weight is missing" in failed["weights.keys"].detail
    assert "rope_theta is None" in failed["config.values"].detail


def test_the_gguf_file_agrees_with_the_export(merged: Path, gguf_file: Path, articles: list[dict[str, str]]) -> None:
    contents = [row["content"] for row in articles]
    assert not failures(check_gguf(gguf_file, merged)), failures(check_gguf(gguf_file, merged))
    assert check_prompt_bytes(merged, contents).passed
    assert not failures(check_token_ids(merged, [gguf_file], contents))


def test_llama_cpp_gives_the_logits_of_transformers_at_every_position(
    merged: Path, gguf_file: Path, articles: list[dict[str, str]]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(merged)
    rows = [tokenizer(PROMPT.render(row["content"][:12]), add_special_tokens=False)["input_ids"] for row in articles]
    cosines = compare_logits(load(merged).eval(), rows[:10], gguf_file)
    assert len(cosines) > 300
    assert min(cosines) >= 0.999
