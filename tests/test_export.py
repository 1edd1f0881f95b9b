import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from titlegen import export
from titlegen.adapter import match_targets
from titlegen.errors import ExportError, MissingDependencyError
from titlegen.export import K_QUANTS, gguf_name, merge_adapter, write_gguf
from titlegen.gguf_reader import read_header
from titlegen.settings import ExportSettings
from titlegen.tensors import shard_files
from titlegen.verify import check_gguf, failures


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
    # A sharded model is a base model like any other.
    (tmp_path / "again").mkdir()
    assert merge_adapter(tmp_path, tiny_adapter, ExportSettings(), tmp_path / "again").tensors == len(whole)


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


def test_gguf_holds_the_sentencepiece_vocabulary_and_the_chat_template(
    tiny_merged: Path, tiny_gguf: Callable[[str], Path]
) -> None:
    path = tiny_gguf("f16")
    fields = read_header(path).fields
    assert fields["tokenizer.ggml.model"] == "llama"
    assert fields["tokenizer.chat_template"] == (tiny_merged / "chat_template.jinja").read_text(encoding="utf-8")
    assert fields["tokenizer.ggml.add_bos_token"] is True
    assert fields["gemma3.rope.freq_base"] == 1_000_000.0
    assert [entry.name for entry in path.parent.iterdir()] == ["titlegen-F16.gguf"]


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


def put_on_path(program: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a Python program the only llama-quantize on PATH."""
    directory.mkdir()
    path = directory / "llama-quantize"
    path.write_text(f"#!{sys.executable}\n{program}", encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))


@pytest.fixture(scope="module")
def wide_model(tiny_merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose rows are long enough for the blocks of K-quants."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    directory = Path(shutil.copytree(tiny_merged, tmp_path_factory.mktemp("wide") / "model"))
    edited = json.loads((directory / "config.json").read_bytes()) | {"hidden_size": 256, "intermediate_size": 512}
    torch.manual_seed(2)
    model = Gemma3ForCausalLM(Gemma3TextConfig(**edited))
    model.save_pretrained(directory)
    (directory / "config.json").write_text(json.dumps(edited), encoding="utf-8")
    return directory


@pytest.mark.parametrize("kind", [K_QUANTS[0], K_QUANTS[-1]])
def test_k_quants_are_made_by_the_quantiser_and_verified(
    wide_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from safetensors.torch import load_file, save_file

    script = Path(__file__).with_name("llama_quantize.py")
    put_on_path(f"import runpy\nrunpy.run_path({str(script)!r}, run_name='__main__')\n", tmp_path / "bin", monkeypatch)
    (tmp_path / "gguf").mkdir()
    path = tmp_path / "gguf" / gguf_name(kind)
    write_gguf(wide_model, kind, path)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert read_header(path).quantization == kind.upper()
    assert {tensor["type"] for tensor in read_header(path).tensors} & {"Q4_K", "Q5_K", "Q6_K"}
    checks = check_gguf(path, wide_model)
    assert not failures(checks), checks
    assert "without a bound" not in checks[1].compared
    # A step of a quarter of the weights is beyond every type.
    other = Path(shutil.copytree(wide_model, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name] = weights[name] * 1.25
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    (failure,) = failures(check_gguf(path, other))
    assert failure.name == "gguf.tensors"
    assert "blk.1.ffn_up.weight" in failure.detail


def test_the_quantiser_gets_the_models_own_precision(
    tiny_merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import shutil, sys\nshutil.copyfile(*sys.argv[1:3])\nassert sys.argv[3:] == ['Q4_K_M'], sys.argv\n"
    put_on_path(program, tmp_path / "bin", monkeypatch)
    write_gguf(tiny_merged, "q4_k_m", tmp_path / "x.gguf")
    assert read_header(tmp_path / "x.gguf").quantization == "F32"


@pytest.mark.fault
def test_a_k_quant_without_the_quantiser_names_both_ways_out(
    tiny_merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"llama-quantize on PATH.*--serve\.quantize q4_K_S"):
        write_gguf(tiny_merged, "q4_k_s", tmp_path / "x.gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.fault
def test_a_failing_quantiser_leaves_nothing_and_shows_its_output(
    tiny_merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_path("raise SystemExit('tensor blk.0 has a shape of its own')\n", tmp_path / "bin", monkeypatch)
    with pytest.raises(ExportError, match=r"llama-quantize failed.*\n.*shape of its own"):
        write_gguf(tiny_merged, "q4_k_m", tmp_path / "x.gguf")
    assert [entry.name for entry in tmp_path.iterdir()] == ["bin"]


@pytest.mark.fault
def test_a_converter_that_the_system_kills_is_said_to_lack_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    monkeypatch.setattr(export, "convert_command", lambda *_: kill)
    with pytest.raises(ExportError, match=r"converter failed.* was ended by SIGKILL \(the system.*titlegen plan"):
        write_gguf(tmp_path, "bf16", tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


_MERGE_AND_REPORT = """
import sys
from pathlib import Path
import psutil, torch, safetensors.torch
from peak_memory import peak_bytes
from titlegen.export import merge_adapter
from titlegen.settings import ExportSettings
before = psutil.Process().memory_info().rss
merge_adapter(Path(sys.argv[1]), Path(sys.argv[2]), ExportSettings(max_shard_gib=float(sys.argv[4])), Path(sys.argv[3]))
print(peak_bytes() - before)
"""


@pytest.mark.slow
def test_merging_needs_the_memory_of_a_shard_and_not_of_the_model(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    """A base model of 1.5 GiB in two shards, with mapped files counted, as a process of its own measures it."""
    import torch
    from safetensors.torch import save_file

    base, adapter, merged = tmp_path / "base", tmp_path / "adapter", tmp_path / "merged"
    shutil.copytree(tiny_base, base)
    shutil.copytree(tiny_adapter, adapter)
    merged.mkdir()
    (base / "model.safetensors").unlink()
    matrix, a, b = torch.ones(4096, 4096, dtype=torch.bfloat16), torch.ones(4, 4096), torch.ones(4096, 4)
    updates: dict[str, Any] = {}
    weight_map: dict[str, str] = {}
    for number in range(2):
        shard = {}
        for layer in range(24 * number, 24 * number + 24):
            # A small tensor beside each large one: it must not keep its neighbour's pages.
            shard[f"model.layers.{layer}.input_layernorm.weight"] = torch.ones(64, dtype=torch.bfloat16)
            shard[f"model.layers.{layer}.mlp.up_proj.weight"] = matrix.clone()
            module = f"base_model.model.model.layers.{layer}.mlp.up_proj"
            updates |= {f"{module}.lora_A.weight": a.clone(), f"{module}.lora_B.weight": b.clone()}
        save_file(shard, base / f"model-{number}.safetensors", metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, f"model-{number}.safetensors")
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    save_file(updates, adapter / "adapter_model.safetensors")
    largest = max(path.stat().st_size for path in base.glob("*.safetensors"))
    command = [sys.executable, "-c", _MERGE_AND_REPORT, str(base), str(adapter), str(merged), str(largest / 2**30)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)  # noqa: S603 - ours
    assert int(result.stdout) <= 1.3 * largest + 2**29
    assert len(shard_files(merged)) == 2
    # Three gigabytes are not kept until the next run.
    shutil.rmtree(base)
    shutil.rmtree(merged)


@pytest.mark.fault
def test_a_shard_name_cannot_leave_the_directory(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "../secret.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ExportError, match="outside of its directory"):
        shard_files(tmp_path)
