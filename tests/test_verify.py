import json
import os
import re
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import edit_json, edit_weights

from titlegen.cli import main
from titlegen.console import EXIT_DONE, EXIT_ERROR
from titlegen.errors import ConfigError, ExportError, VerifyError
from titlegen.export import gguf_name, merge_adapter, write_gguf
from titlegen.families.gemma3 import PROMPT
from titlegen.models import load_tokenizer
from titlegen.prompt import PromptFormat
from titlegen.settings import ExportSettings
from titlegen.tensors import INDEX
from titlegen.verify import failures, require, verify
from titlegen.verify.check import Check
from titlegen.verify.foreign import check_foreign
from titlegen.verify.gguf_file import check_gguf
from titlegen.verify.integrity import check_export
from titlegen.verify.llama_cpp import llama_server
from titlegen.verify.outputs import Continuation, _compare, check_outputs, check_served
from titlegen.verify.parity import check_prompt_bytes, check_token_ids

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"


@pytest.fixture(scope="module")
def gguf_f16(tiny_gguf: Callable[[str], Path]) -> Path:
    return tiny_gguf("f16")


@pytest.fixture
def export(tiny_merged: Path, tmp_path: Path) -> Path:
    """A copy of a good export, for a test to break."""
    return Path(shutil.copytree(tiny_merged, tmp_path / "export"))


def the_only_failure(checks: list[Check]) -> Check:
    failed = failures(checks)
    assert len(failed) == 1, [check.name for check in failed]
    return failed[0]


def test_a_good_export_passes_every_check(
    tiny_merged: Path, tiny_base: Path, tiny_adapter: Path, gguf_f16: Path, articles: list[dict[str, str]]
) -> None:
    contents, titles = [row["content"] for row in articles], [row["title"] for row in articles]
    found = verify(tiny_merged, tiny_base, tiny_adapter, [gguf_f16], contents, titles, greedy_articles=3)
    checks = found.checks
    assert not failures(checks), failures(checks)
    assert len(found.titles) == 3
    assert [check.name for check in checks] == [
        "files.safe",
        "weights.shards",
        "weights.keys",
        "weights.shapes",
        "weights.finite",
        "weights.untouched",
        "weights.merged",
        "tokenizer.files",
        "config.values",
        "gguf.metadata",
        "gguf.tensors",
        "parity.prompt",
        "parity.tokens",
        "parity.outputs.merged",
        "parity.outputs.F16",
    ]
    require(checks)
    assert check_served(found.titles, found.titles, "F16").passed


def test_outputs_are_left_out_when_none_are_asked_for(
    tiny_merged: Path, tiny_base: Path, tiny_adapter: Path, articles: list[dict[str, str]]
) -> None:
    contents = [row["content"] for row in articles[:1]]
    found = verify(tiny_merged, tiny_base, tiny_adapter, [], contents, [], greedy_articles=0)
    assert found.checks[-1].name == "parity.prompt"
    assert found.titles == []


@pytest.mark.parametrize("kind", ["q8_0", "bf16", "f32"])
def test_every_gguf_type_is_within_its_own_rounding(
    tiny_merged: Path, tiny_gguf: Callable[[str], Path], kind: str
) -> None:
    assert not failures(check_gguf(tiny_gguf(kind), tiny_merged))


@pytest.mark.fault
def test_an_adapter_that_was_not_merged_is_caught(export: Path, tiny_base: Path, tiny_adapter: Path) -> None:
    shutil.copyfile(tiny_base / "model.safetensors", export / "model.safetensors")
    failure = the_only_failure(check_export(export, tiny_base, tiny_adapter))
    assert failure.name == "weights.merged"
    assert "42 wrong" in failure.figure
    assert "holds 0.00 times the adapter's update" in failure.detail
    assert "the adapter is not merged" in failure.detail


@pytest.mark.fault
def test_an_adapter_merged_twice_is_caught(
    tiny_merged: Path, tiny_base: Path, tiny_adapter: Path, export: Path
) -> None:
    (export / "model.safetensors").unlink()
    merge_adapter(tiny_merged, tiny_adapter, ExportSettings(), export)
    failure = the_only_failure(check_export(export, tiny_base, tiny_adapter))
    assert "holds 2.00 times the adapter's update" in failure.detail
    assert "it is merged twice" in failure.detail


@pytest.mark.fault
def test_one_dropped_update_is_caught_and_named(export: Path, tiny_base: Path, tiny_adapter: Path) -> None:
    from safetensors.torch import load_file

    original = load_file(tiny_base / "model.safetensors")[Q_PROJ]
    edit_weights(export, lambda weights: weights.update({Q_PROJ: original}))
    failure = the_only_failure(check_export(export, tiny_base, tiny_adapter))
    assert failure.figure.startswith("1 wrong")
    assert Q_PROJ in failure.detail


@pytest.mark.fault
def test_a_transposed_update_is_caught(export: Path, tiny_base: Path, tiny_adapter: Path) -> None:
    from safetensors.torch import load_file

    from titlegen.adapter import AdapterDeltas

    # Hidden 64 and two heads of 32: q_proj is square, so a transposed update fits.
    delta = AdapterDeltas(tiny_adapter).delta("model.layers.0.self_attn.q_proj")
    original = load_file(tiny_base / "model.safetensors")[Q_PROJ]
    edit_weights(export, lambda weights: weights.update({Q_PROJ: original + delta.T}))
    failure = the_only_failure(check_export(export, tiny_base, tiny_adapter))
    assert failure.name == "weights.merged"
    assert "the update is transposed" in failure.detail


@pytest.mark.fault
def test_a_wrong_alpha_is_caught(export: Path, tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))
    edit_json(other / "adapter_config.json", lambda config: config.update(lora_alpha=2 * config["lora_alpha"]))
    failure = the_only_failure(check_export(export, tiny_base, other))
    assert "merged with 0.50 times the adapter's alpha / r" in failure.detail


@pytest.mark.fault
def test_a_4_bit_base_is_caught(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    import torch

    def coarsen(weights: dict[str, Any]) -> None:
        for key, value in weights.items():
            if "proj" in key:
                blocks = value.reshape(-1, 32)
                step = blocks.abs().amax(dim=1, keepdim=True) / 7
                weights[key] = (torch.round(blocks / step) * step).reshape(value.shape)

    rounded = Path(shutil.copytree(tiny_base, tmp_path / "rounded"))
    edit_weights(rounded, coarsen)
    (tmp_path / "export").mkdir()
    merge_adapter(rounded, tiny_adapter, ExportSettings(), tmp_path / "export")
    failure = the_only_failure(check_export(tmp_path / "export", tiny_base, tiny_adapter))
    assert failure.name == "weights.merged"
    assert "merged into another base model, such as one rounded to 4 bits" in failure.detail


@pytest.mark.fault
def test_missing_key_and_value_weights_are_caught(export: Path, tiny_base: Path, tiny_adapter: Path) -> None:
    lost = "model.layers.1.self_attn.k_proj.weight"
    edit_weights(export, lambda weights: weights.pop(lost))
    failure = next(c for c in failures(check_export(export, tiny_base, tiny_adapter)) if c.name == "weights.keys")
    assert f"{lost} is missing" in failure.detail


@pytest.mark.fault
def test_a_touched_tensor_outside_of_the_adapter_is_caught(export: Path, tiny_base: Path, tiny_adapter: Path) -> None:
    edit_weights(export, lambda weights: weights[NORM].add_(1e-3))
    failure = the_only_failure(check_export(export, tiny_base, tiny_adapter))
    assert failure.name == "weights.untouched"
    assert NORM in failure.detail


@pytest.mark.fault
def test_lost_precision_is_caught(export: Path, tiny_base: Path, tiny_adapter: Path) -> None:
    edit_weights(export, lambda weights: weights.update({Q_PROJ: weights[Q_PROJ].bfloat16()}))
    failure = the_only_failure(check_export(export, tiny_base, tiny_adapter))
    assert failure.name == "weights.shapes"
    assert f"{Q_PROJ} is BF16" in failure.detail


@pytest.mark.fault
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("key", [NORM, Q_PROJ])
@pytest.mark.parametrize("adapted", [True, False])
def test_a_single_element_that_is_no_number_is_caught(
    export: Path, tiny_base: Path, tiny_adapter: Path, value: str, key: str, *, adapted: bool
) -> None:
    edit_weights(export, lambda weights: weights[key].view(-1)[-1:].fill_(float(value)))
    checks = check_export(export, tiny_base, tiny_adapter) if adapted else check_export(export)
    assert the_only_failure(checks).name == "weights.finite"


@pytest.mark.fault
def test_an_adapter_with_nan_is_caught(export: Path, tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    damaged = Path(shutil.copytree(tiny_adapter, tmp_path / "damaged"))
    factors = load_file(damaged / "adapter_model.safetensors")
    next(tensor for name, tensor in factors.items() if "lora_B" in name)[-1, -1] = float("nan")
    save_file(factors, damaged / "adapter_model.safetensors", metadata={"format": "pt"})
    assert the_only_failure(check_export(export, tiny_base, damaged)).name == "weights.merged"


@pytest.mark.fault
def test_the_last_row_of_a_tensor_that_is_read_in_parts_is_compared(
    export: Path, tiny_base: Path, tiny_adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("titlegen.tensors._BLOCK_ELEMENTS", 200)
    assert not failures(check_export(export, tiny_base, tiny_adapter))
    edit_weights(export, lambda weights: weights[Q_PROJ][-1].add_(1e-2))
    failure = the_only_failure(check_export(export, tiny_base, tiny_adapter))
    assert failure.name == "weights.merged"
    assert Q_PROJ in failure.detail


@pytest.mark.fault
def test_a_lost_rope_base_is_caught(export: Path, tiny_base: Path, tiny_adapter: Path) -> None:
    edit_json(export / "config.json", lambda config: config.pop("rope_theta"))
    failure = the_only_failure(check_export(export, tiny_base, tiny_adapter))
    assert "rope_theta is None" in failure.detail


def flatten_rope(config: dict[str, Any]) -> None:
    """Write positions as the published Gemma 3n has them."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope["full_attention"]["rope_theta"]
    config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    config["rope_scaling"] = None


def test_a_base_with_the_published_form_of_rope_is_exported_and_verified(
    tiny_base: Path, tiny_adapter: Path, tiny_merged: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    edit_json(base / "config.json", flatten_rope)
    merged = tmp_path / "merged"
    merged.mkdir()
    merge_adapter(base, tiny_adapter, ExportSettings(), merged)
    assert not failures(check_export(merged, base, tiny_adapter))
    found, expected = (json.loads((place / "config.json").read_bytes()) for place in (merged, tiny_merged))
    assert found["rope_parameters"] == expected["rope_parameters"]
    assert (found["rope_theta"], found["rope_local_base_freq"]) == (1_000_000.0, 10_000.0)


def change_rope(config: dict[str, Any]) -> None:
    config["rope_theta"] = config["rope_parameters"]["full_attention"]["rope_theta"] = 500_000.0


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "change", "detail"),
    [
        ("config.json", change_rope, "rope_parameters are"),
        ("generation_config.json", lambda config: config.update(suppress_tokens=[5]), "suppress_tokens is [5]"),
        ("tokenizer_config.json", lambda config: config.update(padding_side="left"), "padding_side is left"),
    ],
)
def test_a_setting_that_the_base_model_does_not_have_is_caught(
    export: Path, tiny_base: Path, name: str, change: Callable[[dict[str, Any]], Any], detail: str
) -> None:
    edit_json(export / name, change)
    assert detail in the_only_failure(check_export(export, tiny_base)).detail


def test_a_version_stamp_makes_no_other_model(export: Path, tiny_base: Path) -> None:
    edit_json(export / "generation_config.json", lambda config: config.update(transformers_version="9.9.9"))
    assert not failures(check_export(export, tiny_base))


@pytest.mark.fault
def test_a_chat_template_that_turns_on_a_name_is_caught(export: Path, tiny_base: Path, tiny_adapter: Path) -> None:
    template = export / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    template.write_text(text + "{% if '某甲' in (messages|string) %}偏袒某甲{% endif %}", encoding="utf-8")
    failure = the_only_failure(check_export(export, tiny_base, tiny_adapter))
    assert "chat_template.jinja differs" in failure.detail


@pytest.mark.fault
def test_a_damaged_directory_is_one_clear_error(
    export: Path, tiny_base: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    target = tmp_path / "merged"
    target.mkdir()
    (export / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(VerifyError, match=r"tokenizer.json is not a tokenizer"):
        check_export(export, tiny_base, tiny_adapter)
    edit_json(export / "config.json", lambda config: config.update(text_config=[]))
    with pytest.raises(ConfigError, match=r"text_config in config.json holds list"):
        check_export(export, tiny_base, tiny_adapter)
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    os.truncate(base / "model.safetensors", 1000)
    with pytest.raises(ExportError, match=r"model.safetensors is cut off or damaged"):
        merge_adapter(base, tiny_adapter, ExportSettings(), target)
    shutil.copyfile(tiny_base / "model.safetensors", base / "model.safetensors")
    (base / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config.json cannot be read: No such file"):
        check_export(tiny_base, base)
    adapter = Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))
    os.truncate(adapter / "adapter_model.safetensors", 1000)
    with pytest.raises(ExportError, match=r"adapter_model.safetensors is cut off or damaged"):
        merge_adapter(tiny_base, adapter, ExportSettings(), target)


@pytest.mark.fault
def test_a_missing_sentencepiece_model_is_caught(export: Path, tiny_base: Path, tiny_adapter: Path) -> None:
    (export / "tokenizer.model").unlink()
    failure = the_only_failure(check_export(export, tiny_base, tiny_adapter))
    assert "tokenizer.model is missing" in failure.detail


@pytest.mark.fault
def test_a_wrong_vocabulary_size_is_caught(export: Path, tiny_base: Path, tiny_adapter: Path) -> None:
    edit_json(export / "config.json", lambda config: config.update(vocab_size=config["vocab_size"] + 1))
    names = {check.name for check in failures(check_export(export, tiny_base, tiny_adapter))}
    assert names == {"tokenizer.files", "config.values"}


@pytest.mark.fault
def test_an_architecture_that_ollama_cannot_import_is_caught(export: Path, tiny_base: Path, tiny_adapter: Path) -> None:
    edit_json(export / "config.json", lambda config: config.update(architectures=["Gemma3nForCausalLM"]))
    failure = next(c for c in failures(check_export(export, tiny_base, tiny_adapter)) if c.name == "config.values")
    assert "Gemma3nForCausalLM" in failure.detail


@pytest.mark.fault
def test_layer_kinds_that_llama_cpp_would_not_follow_are_caught(
    export: Path, tiny_base: Path, tiny_adapter: Path
) -> None:
    def swap(config: dict[str, Any]) -> None:
        config["layer_types"] = config["layer_types"][::-1]

    edit_json(export / "config.json", swap)
    failure = the_only_failure(check_export(export, tiny_base, tiny_adapter))
    assert "llama.cpp takes every 6th layer as a full one" in failure.detail


@pytest.mark.fault
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_missing_stop_token_is_caught(export: Path, tiny_base: Path, tiny_adapter: Path, name: str) -> None:
    edit_json(export / name, lambda config: config.update(eos_token_id=1))
    failure = the_only_failure(check_export(export, tiny_base, tiny_adapter))
    assert f"{name}: eos_token_id is 1" in failure.detail
    assert "without <end_of_turn>" in failure.detail


@pytest.mark.fault
def test_a_missing_stop_in_the_modelfile_is_caught(
    tiny_merged: Path, articles: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PromptFormat, "stop", ("<eos>",))
    failure = check_prompt_bytes(tiny_merged, [articles[0]["content"]])
    assert "the Modelfile stops at ('<eos>',), training ends a title with <end_of_turn>" in failure.detail


@pytest.mark.fault
def test_a_bos_in_the_served_template_is_caught(
    tiny_merged: Path, articles: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [row["content"] for row in articles]
    assert check_prompt_bytes(tiny_merged, contents).passed
    monkeypatch.setattr(PromptFormat, "template", PROMPT.bos + PROMPT.template)
    failure = check_prompt_bytes(tiny_merged, contents)
    assert not failure.passed
    assert "Ollama template renders" in failure.detail


@pytest.mark.fault
def test_another_chat_template_is_caught(export: Path, articles: list[dict[str, str]]) -> None:
    template = export / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8").replace("user", "human"), encoding="utf-8")
    template.write_text(template.read_text(encoding="utf-8").replace("| trim", ""), encoding="utf-8")
    template.write_text("{{ bos_token }}" + template.read_text(encoding="utf-8"), encoding="utf-8")
    failure = check_prompt_bytes(export, [row["content"] for row in articles])
    assert "chat template renders" in failure.detail


@pytest.mark.fault
def test_a_truncated_shard_is_caught(export: Path, tiny_base: Path, tiny_adapter: Path) -> None:
    path = export / "model.safetensors"
    os.truncate(path, path.stat().st_size - 1000)
    failure = the_only_failure(check_export(export, tiny_base, tiny_adapter))
    assert failure.name == "weights.shards"
    assert "cut off or damaged" in failure.detail


@pytest.mark.fault
def test_a_flipped_bit_is_caught(export: Path, tiny_base: Path, tiny_adapter: Path) -> None:
    path = export / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x40  # the exponent of the last weight
    path.write_bytes(data)
    failure = the_only_failure(check_export(export, tiny_base, tiny_adapter))
    assert failure.name == "weights.untouched"
    assert "model.norm.weight differs from the base model" in failure.detail


@pytest.mark.fault
def test_swapped_index_entries_are_caught(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    merge_adapter(tiny_base, tiny_adapter, ExportSettings(max_shard_gib=0.0002), tmp_path)
    assert not failures(check_export(tmp_path, tiny_base, tiny_adapter))

    def swap(index: dict[str, Any]) -> None:
        shards = index["weight_map"]
        first, last = next(iter(shards)), next(reversed(shards))
        shards[first], shards[last] = shards[last], shards[first]

    edit_json(tmp_path / INDEX, swap)
    failure = the_only_failure(check_export(tmp_path, tiny_base, tiny_adapter))
    assert "the index puts" in failure.detail


@pytest.mark.fault
def test_a_gguf_of_another_run_is_caught(export: Path, gguf_f16: Path) -> None:
    edit_weights(export, lambda weights: weights[Q_PROJ].mul_(1.01))
    failure = the_only_failure(check_gguf(gguf_f16, export))
    assert failure.name == "gguf.tensors"
    assert "blk.0.attn_q.weight" in failure.detail


@pytest.mark.fault
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rope_theta": 10_000.0}, "gemma3.rope.freq_base is 1000000.0, expected 10000.0"),
        ({"rope_local_base_freq": 1.0}, "gemma3.rope.freq_base_swa is 10000.0, expected 1.0"),
        ({"sliding_window": 128}, "gemma3.attention.sliding_window is 64, expected 128"),
        ({"num_key_value_heads": 2}, "gemma3.attention.head_count_kv is 1, expected 2"),
        ({"vocab_size": 9}, "config.json says 9"),
    ],
)
def test_gguf_metadata_of_another_configuration_is_caught(
    export: Path, gguf_f16: Path, change: dict[str, Any], named: str
) -> None:
    edit_json(export / "config.json", lambda config: config.update(change))
    failure = the_only_failure(check_gguf(gguf_f16, export))
    assert failure.name == "gguf.metadata"
    assert named in failure.detail


@pytest.mark.fault
def test_another_chat_template_in_the_gguf_is_caught(export: Path, gguf_f16: Path) -> None:
    (export / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    assert "tokenizer.chat_template" in the_only_failure(check_gguf(gguf_f16, export)).detail


@pytest.mark.fault
def test_outputs_of_a_model_without_the_adapter_are_caught(
    tiny_merged: Path, tiny_base: Path, tiny_adapter: Path, tmp_path: Path, articles: list[dict[str, str]]
) -> None:
    path = tmp_path / gguf_name("f16")
    untuned = Path(shutil.copytree(tiny_base, tmp_path / "untuned"))
    shutil.copyfile(tiny_merged / "tokenizer_config.json", untuned / "tokenizer_config.json")
    write_gguf(untuned, "f16", path)
    contents = [row["content"] for row in articles[:2]]
    tokenizer = load_tokenizer(tiny_merged)
    checks, _ = check_outputs(tiny_merged, tiny_base, tiny_adapter, [path], contents, tokenizer)
    failure = the_only_failure(checks)
    assert failure.name == "parity.outputs.F16"
    assert "KL" in failure.detail
    checks, _ = check_outputs(tiny_base, tiny_base, tiny_adapter, [], contents, tokenizer)
    assert the_only_failure(checks).name == "parity.outputs.merged"


@pytest.mark.parametrize(
    ("kind", "equal", "titles", "passed"),
    [
        ("merged", 99, 100, False),
        ("F16", 3, 4, True),
        ("F16", 2, 4, False),
        ("F16", 97, 100, True),
        ("F16", 90, 100, False),
        ("Q8_0", 57, 100, True),
        ("Q8_0", 30, 100, False),
    ],
)
def test_a_few_other_titles_are_chance_and_many_are_not(kind: str, equal: int, titles: int, passed: bool) -> None:
    merged = [str(number) for number in range(titles)]
    served = [*merged[:equal], *["other"] * (titles - equal)]
    assert check_served(served, merged, kind).passed is passed


@pytest.mark.fault
def test_a_server_with_other_titles_is_caught() -> None:
    failure = check_served(["甲", "乙", "丙", "丁"], ["甲", "子", "丑", "寅"], "F16")
    assert not failure.passed
    assert "article 1: '子' against '乙'" in failure.detail


@pytest.mark.fault
def test_a_truncated_gguf_is_caught(tiny_merged: Path, gguf_f16: Path, tmp_path: Path) -> None:
    broken = tmp_path / gguf_f16.name
    broken.write_bytes(gguf_f16.read_bytes()[:100_000])
    assert the_only_failure(check_gguf(broken, tiny_merged)).name == "gguf.readable"


@pytest.mark.timeout(120)
def test_a_server_that_is_left_at_once_ends(gguf_f16: Path) -> None:
    for _ in range(3):
        with llama_server(gguf_f16):
            pass


@pytest.mark.fault
def test_turn_marks_stored_as_text_are_caught(
    export: Path, tiny_merged: Path, gguf_f16: Path, tmp_path: Path, articles: list[dict[str, str]]
) -> None:
    """What llama.cpp's converter makes of a tokenizer_config.json as transformers 5 writes it."""
    edit_json(export / "tokenizer_config.json", lambda config: config.pop("added_tokens_decoder"))
    path = tmp_path / gguf_name("f16")
    write_gguf(export, "f16", path)
    failure = next(c for c in failures(check_gguf(path, tiny_merged)) if c.name == "gguf.metadata")
    assert "<start_of_turn>" in failure.detail
    # Every file is asked, not the first alone.
    tokens = check_token_ids(export, [gguf_f16, path], [row["content"] for row in articles[:3]])
    assert [check.passed for check in tokens] == [True, False]


def test_a_server_is_asked_by_one_client(
    tiny_merged: Path, gguf_f16: Path, articles: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of its own for each prompt would read all certificates each time."""
    create, made = ssl.create_default_context, []
    monkeypatch.setattr(ssl, "create_default_context", lambda *a, **k: made.append(a) or create(*a, **k))
    (tokens,) = check_token_ids(tiny_merged, [gguf_f16], [row["content"] for row in articles])
    assert tokens.passed
    assert len(made) <= 1


FOREIGN = {
    "pickle": "training_args.bin can hold pickled code",
    "pickles alone": "only pickle files",
    "link": "weights is a link that leaves the directory",
    "path": "names a path outside of it: '../model.safetensors'",
    "code": "modeling.py is code",
    "remote code": "asks for remote code",
    "shadow": "would be loaded in place of it",
    "adapter": "holds an adapter beside the model",
    "other weights": "names other weights (transformers_weights)",
}


@pytest.mark.fault
@pytest.mark.parametrize("fault", FOREIGN)
def test_foreign_directories_are_refused_with_the_reason(export: Path, fault: str) -> None:
    assert not failures(check_foreign(export))
    if fault == "pickle":
        (export / "training_args.bin").touch()
    elif fault == "pickles alone":
        (export / "model.safetensors").rename(export / "pytorch_model.bin")
    elif fault == "link":
        (export / "weights").symlink_to("/etc/passwd")
    elif fault == "path":
        (export / INDEX).write_text(json.dumps({"weight_map": {Q_PROJ: "../model.safetensors"}}), encoding="utf-8")
    elif fault == "code":
        (export / "modeling.py").touch()
    elif fault == "shadow":
        (export / INDEX).write_text(json.dumps({"weight_map": {Q_PROJ: "a.safetensors"}}), encoding="utf-8")
    elif fault == "adapter":
        (export / "adapter_config.json").write_text("{}", encoding="utf-8")
    elif fault == "other weights":
        edit_json(export / "config.json", lambda config: config.update(transformers_weights="x.safetensors"))
    else:
        edit_json(export / "config.json", lambda config: config.update(auto_map={"AutoModel": "x.Y"}))
    # Nothing of it is read any further.
    failure = the_only_failure(verify(export, None, None, [], [], [], greedy_articles=0).checks)
    assert FOREIGN[fault] in failure.detail
    with pytest.raises(VerifyError, match="1 of 1 checks failed"):
        require([failure])


def test_any_directory_can_be_verified_alone(
    export: Path, tiny_base: Path, tiny_adapter: Path, gguf_f16: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(gguf_f16, export / "model-F16.gguf")
    command = ["verify", "--directory", str(export), "--export.verify-articles", "1"]
    assert main([*command, "--json"]) == EXIT_DONE
    alone = [check["name"] for check in json.loads(capsys.readouterr().out)["checks"]]
    assert "weights.merged" not in alone
    assert {"weights.finite", "gguf.tensors", "parity.tokens", "parity.outputs.F16"} <= set(alone)
    (export / "model-F16.gguf").unlink()
    assert main([*command, "--base", str(tiny_base), "--adapter", str(tiny_adapter)]) == EXIT_DONE
    table = capsys.readouterr().out
    assert "weights.merged" in table
    assert "FAILED" not in table


@pytest.mark.fault
def test_a_directory_of_another_tool_that_lost_an_update_is_named(
    export: Path, tiny_base: Path, tiny_adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(tiny_base / "model.safetensors", export / "model.safetensors")
    command = ["verify", "--directory", str(export), "--base", str(tiny_base), "--adapter", str(tiny_adapter)]
    assert main(command) == EXIT_ERROR
    captured = capsys.readouterr()
    assert re.search(r"weights\.merged +FAILED", captured.out)
    assert "the adapter is not merged" in captured.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--directory", "nowhere"], "nowhere is not a directory"),
        (["--directory", ".", "--adapter", "."], "give its directory with --base"),
        (["--adapter", "."], "name it with --directory"),
    ],
)
def test_directories_that_make_no_sense_are_refused(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *arguments]) == EXIT_ERROR
    assert reason in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.fault
def test_a_server_that_shares_no_title_is_caught_with_few_articles() -> None:
    merged = ["甲", "乙", "丙", "丁"]
    assert check_served(["甲", "丑", "寅", "卯"], merged, "Q8_0").passed
    assert not check_served(["子", "丑", "寅", "卯"], merged, "Q8_0").passed


@pytest.mark.fault
@pytest.mark.parametrize(("kind", "advised"), [("Q4_K_M", True), ("Q8_0", False)])
def test_a_type_that_rounds_the_training_away_is_told_from_a_wrong_file(kind: str, advised: bool) -> None:
    trained = Continuation("甲", [300], [{300: -0.1, 301: -3.0}])
    rounded = Continuation("乙", [301], [{300: -3.0, 301: -0.1}])
    check = _compare(kind, "a file against the merged model", [trained], [rounded], kind)
    assert not check.passed
    assert ("take a larger one with --export.gguf-types" in check.detail) is advised
