import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from titlegen.errors import ExportError
from titlegen.export import gguf_name, match_targets, merge_adapter, shard_files, write_gguf
from titlegen.settings import ExportSettings


def test_merged_model_gives_the_adapters_logits(tiny_base: Path, tiny_adapter: Path, tiny_merged: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ids = torch.arange(200, 260)[None]
    base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32).eval()
    with torch.no_grad():
        untuned = base(ids).logits
        adapted = PeftModel.from_pretrained(base, tiny_adapter).eval()(ids).logits
        exported = AutoModelForCausalLM.from_pretrained(tiny_merged, dtype=torch.float32).eval()(ids).logits
    assert (adapted - untuned).abs().max() > 0.1, "an adapter without effect would show nothing"
    torch.testing.assert_close(exported, adapted, rtol=1e-4, atol=1e-4)


def test_merging_into_shards_gives_the_same_tensors(
    tiny_base: Path, tiny_adapter: Path, tiny_merged: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    merge_adapter(tiny_base, tiny_adapter, ExportSettings(max_shard_gib=0.0002), tmp_path)
    shards = shard_files(tmp_path)
    assert len(shards) > 2
    sharded: dict[str, Any] = {}
    for shard in shards:
        sharded |= load_file(shard)
    whole = load_file(tiny_merged / "model.safetensors")
    assert sharded.keys() == whole.keys()
    assert all((sharded[key] == whole[key]).all() for key in whole)
    assert not list(tmp_path.glob(".part-*"))
    # A sharded model is a base model like any other.
    (tmp_path / "again").mkdir()
    assert merge_adapter(tmp_path, tiny_adapter, ExportSettings(), tmp_path / "again")["tensors"] == len(whole)


def test_configs_carry_both_rope_forms_and_both_stop_tokens(tiny_merged: Path) -> None:
    config = json.loads((tiny_merged / "config.json").read_bytes())
    assert config["architectures"] == ["Gemma3ForCausalLM"]
    assert (config["rope_theta"], config["rope_local_base_freq"]) == (1_000_000.0, 10_000.0)
    assert config["rope_parameters"]["sliding_attention"]["rope_theta"] == 10_000.0
    assert json.loads((tiny_merged / "generation_config.json").read_bytes())["eos_token_id"] == [1, 106]
    assert {"tokenizer.json", "tokenizer.model", "chat_template.jinja", "NOTICE"} <= {
        p.name for p in tiny_merged.iterdir()
    }


def test_dtype_can_be_chosen(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    merge_adapter(tiny_base, tiny_adapter, ExportSettings(dtype="bfloat16"), tmp_path)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "config.json").read_bytes())["dtype"] == "bfloat16"


def test_gguf_holds_the_sentencepiece_vocabulary_and_the_chat_template(tiny_merged: Path, tmp_path: Path) -> None:
    import gguf

    path = tmp_path / gguf_name("f16")
    write_gguf(tiny_merged, "f16", path)
    fields = {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}
    assert fields["tokenizer.ggml.model"] == "llama"
    assert fields["tokenizer.chat_template"] == (tiny_merged / "chat_template.jinja").read_text(encoding="utf-8")
    assert fields["tokenizer.ggml.add_bos_token"] is True
    assert fields["gemma3.rope.freq_base"] == 1_000_000.0
    assert [entry.name for entry in tmp_path.iterdir()] == ["titlegen-F16.gguf"]


@pytest.mark.parametrize(
    "module", ["model.layers.0.self_attn.q_proj", "model.language_model.layers.0.self_attn.q_proj"]
)
def test_targets_are_found_whatever_the_prefix(module: str) -> None:
    keys = [
        "model.language_model.layers.0.self_attn.q_proj.weight",
        "model.vision_tower.layers.0.self_attn.q_proj.weight",
    ]
    assert match_targets([module], keys) == {keys[0]: module}


@pytest.mark.fault
def test_an_adapter_of_another_model_is_refused(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="has 0 times; the adapter was trained on another base model"):
        match_targets(["model.layers.9.self_attn.q_proj"], ["model.layers.0.self_attn.q_proj.weight"])
    other = tmp_path / "other"
    shutil.copytree(tiny_adapter, other)
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "adapter_model.safetensors")
    key = next(key for key in weights if "q_proj.lora_B" in key)
    weights[key] = weights[key][:-1].contiguous()
    save_file(weights, other / "adapter_model.safetensors")
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match="has shape"):
        merge_adapter(tiny_base, other, ExportSettings(), tmp_path / "out")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("change", "reason"),
    [({"use_dora": True}, "use_dora"), ({"peft_type": "IA3"}, "IA3"), ({"bias": "all"}, "bias 'all'")],
)
def test_an_adapter_that_is_not_plain_lora_is_refused(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_adapter, other)
    config = json.loads((other / "adapter_config.json").read_bytes()) | change
    (other / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ExportError, match=reason):
        merge_adapter(tiny_base, other, ExportSettings(), tmp_path)


@pytest.mark.fault
def test_gguf_without_the_sentencepiece_model_is_refused(tiny_merged: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_merged, other)
    (other / "tokenizer.model").unlink()
    with pytest.raises(ExportError, match=r"no tokenizer\.model"):
        write_gguf(other, "f16", tmp_path / "x.gguf")


@pytest.mark.fault
def test_a_failing_converter_leaves_nothing_and_shows_its_output(tiny_merged: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_merged, other)
    (other / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ExportError, match="converter failed"):
        write_gguf(other, "f16", tmp_path / "x.gguf")
    assert not list(tmp_path.glob("*.gguf*"))


@pytest.mark.fault
def test_a_shard_name_cannot_leave_the_directory(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "../secret.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ExportError, match="outside of its directory"):
        shard_files(tmp_path)
