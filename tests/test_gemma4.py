"""A tiny Gemma 4 all the way: adapter, merge, GGUF, llama.cpp. Its weights are random, its tokenizer is real."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gemma4_models import CONTROL, FIRST_SHARED, LAYERS, WIDE_HEAD, write_tiny_gemma4
from hypothesis import given
from hypothesis import strategies as st
from logits import compare_logits
from tiny_models import edit_json, edit_weights

from titlegen.data import Example
from titlegen.errors import ConfigError, TrainError
from titlegen.export import gguf_name, merge_adapter, write_gguf
from titlegen.families.gemma3 import PROMPT as PROMPT_3
from titlegen.families.gemma4 import E4B, FAMILY, PROMPT
from titlegen.gguf_reader import read_header
from titlegen.models import family_at, load_tokenizer, resolve_base
from titlegen.plan.sizes import find_model
from titlegen.prompt import INSTRUCTION, SYSTEM
from titlegen.settings import ExportSettings, ModelSettings, TrainSettings
from titlegen.template import Template
from titlegen.train import fit
from titlegen.train.encode import check_tokenizer
from titlegen.verify import check_export, check_gguf, check_prompt_bytes, check_token_ids, failures
from titlegen.verify.llama_cpp import ask, llama_server

BREAKING = ["<|turn>", "<turn|>", "<bos>", "<eos>", "<unused12>", "model\n", "<turn|>\n<|turn>model\n"]
BREAKING += CONTROL.values()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Gemma 4."""
    directory = tmp_path_factory.mktemp("gemma4") / "tiny-gemma4"
    directory.mkdir()
    write_tiny_gemma4(directory)
    return directory


@pytest.fixture
def export(merged: Path, tmp_path: Path) -> Path:
    """A copy of a good export, for a test to break."""
    return Path(shutil.copytree(merged, tmp_path / "export"))


def load(directory: Path) -> Any:
    import torch
    from transformers import Gemma4ForCausalLM

    return Gemma4ForCausalLM.from_pretrained(directory, dtype=torch.float32)


# Prompt


def test_the_prompt_is_exactly_the_documented_bytes() -> None:
    assert PROMPT.render("臺北市政府今日宣布。\n第二段。") == (
        "<bos><|turn>system\n"
        "你是精煉新聞標題的助理，回覆僅輸出標題，不需解釋。<turn|>\n"
        "<|turn>user\n"
        "請將以下內容濃縮成一則新聞標題（僅輸出標題）：\n"
        "臺北市政府今日宣布。\n第二段。<turn|>\n"
        "<|turn>model\n"
    )
    assert PROMPT.render_completion(" 北市擴大站點 ") == "北市擴大站點<turn|>"
    assert "<|think|>" not in PROMPT.template
    assert "<|channel>" not in PROMPT.template


def test_ollamas_template_renders_the_prompt_of_training() -> None:
    template = Template(PROMPT.template)
    assert PROMPT.bos + template.render({"System": SYSTEM, "Prompt": "內文"}) == PROMPT.render("內文")
    assert PROMPT.bos + template.render({"System": "", "Prompt": "內文"}) == PROMPT.render("內文", system="")
    assert INSTRUCTION in PROMPT.template


@given(st.lists(st.one_of(st.sampled_from(BREAKING), st.text(max_size=8), st.sampled_from("<>|/_ \n")), max_size=12))
def test_no_article_can_write_a_control_token(parts: list[str]) -> None:
    content = "".join(parts)
    safe = PROMPT.neutralise(content)
    assert PROMPT.neutralise(safe) == safe
    assert len(safe) == len(content)
    ids = TOKENIZER().encode(safe, add_special_tokens=False).ids
    assert not [i for i in ids if i <= 106 and i != 3]
    ids = TOKENIZER().encode(PROMPT.render(content), add_special_tokens=False).ids
    assert [i for i in ids if i in {1, 2, 98, 100, 105, 106}] == [2, 105, 106, 105, 106, 105]
    title = TOKENIZER().encode(PROMPT.render_completion(content), add_special_tokens=False).ids
    assert [i for i in title if i <= 106 and i != 3] == [106]


def TOKENIZER() -> Any:  # noqa: N802 - a constant that is made once
    from titlegen.verify.integrity import load_vocabulary

    return load_vocabulary(VOCABULARY_OF[0])


VOCABULARY_OF: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def _vocabulary(base: Path) -> None:
    VOCABULARY_OF[:] = [base]


# Export


def test_the_export_is_proven_and_keeps_the_weights_that_transformers_drops(
    base: Path, adapter: Path, merged: Path
) -> None:
    from safetensors import safe_open

    with safe_open(merged / "model.safetensors", framework="pt") as file:
        assert f"model.layers.{LAYERS - 1}.self_attn.k_proj.weight" in file.keys()  # noqa: SIM118
    assert not failures(check_export(merged, base, adapter)), failures(check_export(merged, base, adapter))
    config = json.loads((merged / "config.json").read_bytes())
    assert config["global_head_dim"] == WIDE_HEAD
    assert config["rope_parameters"]["full_attention"]["rope_type"] == "proportional"
    assert "rope_theta" not in config
    assert config["eos_token_id"] == [1, 106]
    assert "Apache" in (merged / "NOTICE").read_text("utf-8")
    assert "Gemma Terms" not in (merged / "NOTICE").read_text("utf-8")
    assert family_at(merged) is FAMILY


def test_the_gguf_file_agrees_with_the_export(merged: Path, gguf_file: Path, articles: list[dict[str, str]]) -> None:
    contents = [row["content"] for row in articles] + ["<|turn>model\n壞<turn|>", '  <|"|>x \n']
    assert not failures(check_gguf(gguf_file, merged)), failures(check_gguf(gguf_file, merged))
    assert check_prompt_bytes(merged, contents).passed
    assert not failures(check_token_ids(merged, [gguf_file], contents)), failures(
        check_token_ids(merged, [gguf_file], contents)
    )
    assert read_header(gguf_file).architecture == "gemma4"


def test_llama_cpp_gives_the_logits_of_transformers_at_every_position(
    merged: Path, gguf_file: Path, articles: list[dict[str, str]]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(merged)
    rows = [tokenizer(PROMPT.render(row["content"][:12]), add_special_tokens=False)["input_ids"] for row in articles]
    cosines = compare_logits(load(merged).eval(), rows[:10], gguf_file)
    assert len(cosines) > 300
    assert min(cosines) >= 0.999


# Faults


@pytest.mark.fault
def test_an_export_through_transformers_lacks_them_and_is_caught(base: Path, adapter: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    PeftModel.from_pretrained(load(base), adapter).merge_and_unload().save_pretrained(tmp_path)
    for path in base.iterdir():
        if not (tmp_path / path.name).exists():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    failed = {check.name: check for check in failures(check_export(tmp_path, base, adapter))}
    assert failed["weights.keys"].figure == f"{3 * (LAYERS - FIRST_SHARED)} wrong"
    assert ".self_attn.k_norm.weight is missing" in failed["weights.keys"].detail
    assert "global_head_dim is None" in failed["config.values"].detail


@pytest.mark.fault
def test_a_gguf_file_without_them_is_named(base: Path, adapter: Path, merged: Path, tmp_path: Path) -> None:
    """llama.cpp loads it, as it does not load Gemma 3n's: the comparison with the export alone tells."""
    from peft import PeftModel

    lacking, path = tmp_path / "lacking", tmp_path / gguf_name("f16")
    PeftModel.from_pretrained(load(base), adapter).merge_and_unload().save_pretrained(lacking)
    for found in merged.iterdir():
        if found.suffix != ".safetensors":
            shutil.copyfile(found, lacking / found.name)
    write_gguf(lacking, "f16", path)
    with llama_server(path) as client:
        assert ask(client, "/tokenize", {"content": "臺北"})["tokens"]
    (failed,) = failures(check_gguf(path, merged))
    assert failed.name == "gguf.tensors"
    assert failed.figure.startswith(f"{3 * (LAYERS - FIRST_SHARED)} wrong")
    assert "self_attn.k_norm.weight is not in the file" in failed.detail


def lost_stop(config: dict[str, Any]) -> None:
    config["eos_token_id"] = 1


def other_rope(config: dict[str, Any]) -> None:
    config["rope_parameters"]["full_attention"]["partial_rotary_factor"] = 0.5


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "change", "detail"),
    [
        ("config.json", lost_stop, "without <turn|> the model writes on"),
        ("generation_config.json", lost_stop, "without <turn|> the model writes on"),
        ("config.json", other_rope, "rope_parameters are"),
        (
            "config.json",
            lambda config: config.pop("global_head_dim"),
            "global_head_dim is None, 128 is needed",
        ),
        ("config.json", lambda config: config.update(num_kv_shared_layers=0), "num_kv_shared_layers is 0"),
        ("config.json", lambda config: config.update(architectures=["Gemma3ForCausalLM"]), "is not importable"),
        ("config.json", lambda config: config.update(final_logit_softcapping=None), "final_logit_softcapping is None"),
        (
            "tokenizer_config.json",
            lambda config: config.update(extra_special_tokens=["<|turn>", "<turn|>", "。"]),
            "extra_special_tokens are not the base model's",
        ),
    ],
)
def test_a_wrong_configuration_is_caught(
    export: Path, base: Path, adapter: Path, name: str, change: Callable[[dict[str, Any]], Any], detail: str
) -> None:
    edit_json(export / name, change)
    (failed,) = failures(check_export(export, base, adapter))
    assert failed.name == "config.values"
    assert detail in failed.detail


@pytest.mark.fault
@pytest.mark.parametrize("key", ["layer_scalar", "per_layer_input_gate.weight", "self_attn.q_norm.weight"])
def test_a_touched_tensor_outside_of_the_adapter_is_caught(export: Path, base: Path, adapter: Path, key: str) -> None:
    touched = f"model.layers.7.{key}"
    edit_weights(export, lambda weights: weights[touched].add_(1e-3))
    (failed,) = failures(check_export(export, base, adapter))
    assert failed.name == "weights.untouched"
    assert touched in failed.detail


@pytest.mark.fault
@pytest.mark.parametrize(("times", "cause"), [(0, "the adapter is not merged"), (2, "it is merged twice")])
def test_a_wrong_merge_is_caught(export: Path, base: Path, adapter: Path, times: int, cause: str) -> None:
    (export / "model.safetensors").unlink()
    if times == 0:
        shutil.copyfile(base / "model.safetensors", export / "model.safetensors")
    else:
        once = export.with_name("once")
        once.mkdir()
        merge_adapter(base, adapter, ExportSettings(), once)
        merge_adapter(once, adapter, ExportSettings(), export)
    (failed,) = failures(check_export(export, base, adapter))
    assert failed.name == "weights.merged"
    assert cause in failed.detail


def scaled(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda weights: weights[name].mul_(1.1)


@pytest.mark.fault
def test_a_gguf_file_of_other_weights_is_caught(export: Path, gguf_file: Path) -> None:
    for touched, named in (("layer_scalar", "blk.7.layer_output_scale"), ("self_attn.q_proj.weight", "blk.7.attn_q")):
        edit_weights(export, scaled(f"model.layers.7.{touched}"))
        failed = {check.name: check for check in failures(check_gguf(gguf_file, export))}
        assert named in failed["gguf.tensors"].detail


@pytest.mark.fault
def test_turn_marks_stored_as_text_are_caught(export: Path, merged: Path, tmp_path: Path) -> None:
    """What the converter makes of a tokenizer whose turn marks are no special tokens."""

    def plain(config: dict[str, Any]) -> None:
        for token in config["added_tokens"]:
            token["special"] = token["content"] not in {"<|turn>", "<turn|>"} and token["special"]

    edit_json(export / "tokenizer.json", plain)
    edit_json(export / "tokenizer_config.json", lambda config: config.pop("added_tokens_decoder"))
    edit_json(export / "tokenizer_config.json", lambda config: config.pop("extra_special_tokens", None))
    path = tmp_path / gguf_name("f16")
    write_gguf(export, "f16", path)
    failed = {check.name: check for check in failures(check_gguf(path, merged))}
    assert "<|turn>, <turn|> not stored as control tokens" in failed["gguf.metadata"].detail


@pytest.mark.fault
@pytest.mark.parametrize("fault", ["thinking on", "empty thought", "a line break before each turn"])
def test_another_chat_template_is_caught(export: Path, base: Path, articles: list[dict[str, str]], fault: str) -> None:
    template = PROMPT.chat_template
    changed = {
        "thinking on": template.replace("{{ bos_token }}", "{{ bos_token }}<|turn>system\n<|think|>\n"),
        "empty thought": template.replace("'<|turn>model\n'", "'<|turn>model\n<|channel>thought\n<channel|>'"),
        "a line break before each turn": template.replace("'<|turn>' +", "'\n<|turn>' +"),
    }[fault]
    assert changed != template
    (export / "chat_template.jinja").write_text(changed, encoding="utf-8")
    check = check_prompt_bytes(export, [row["content"] for row in articles[:2]])
    assert not check.passed
    assert "the chat template renders" in check.detail
    assert "chat_template.jinja differs" in failures(check_export(export, base))[0].detail


@pytest.mark.fault
def test_training_refuses_a_checkpoint_that_was_saved_with_thinking_on(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    check_tokenizer(tokenizer, FAMILY)
    thinking = "{{ bos_token }}<|turn>system\n<|think|>\n"
    tokenizer.chat_template = PROMPT.chat_template.replace("{{ bos_token }}", thinking)
    with pytest.raises(TrainError, match=r"renders '<\|think\|>.* where Gemma 4's own has .*thinking on"):
        check_tokenizer(tokenizer, FAMILY)
    tokenizer.chat_template = "{% for x in %}"
    with pytest.raises(TrainError, match="renders '' where"):
        check_tokenizer(tokenizer, FAMILY)


@pytest.mark.fault
def test_training_refuses_another_familys_tokenizer(base: Path, tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"has '<turn\|>' as 3, and Gemma 4's is 106: it is of another family"):
        check_tokenizer(load_tokenizer(tiny_base), FAMILY)
    # As a command meets it: in the model's folder, before a step is done.
    directory = Path(shutil.copytree(base, tmp_path / "mixed"))
    for path in tiny_base.glob("tokenizer*"):
        shutil.copyfile(path, directory / path.name)
    rows = [Example("a", "臺北市政府今日宣布擴大站點。", "北市擴大站點", "test", None)]
    settings = TrainSettings(backend="peft", load_in_4bit=False)
    with pytest.raises(TrainError, match="it is of another family"):
        fit(rows, [], directory, settings, tmp_path / "work", tmp_path)
    assert not list(tmp_path.glob("work/checkpoint-*"))


# Names and sizes


@pytest.mark.fault
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"enable_moe_block": True, "num_experts": 128}, "26B-A4B is a mixture of experts"),
        ({"hidden_size_per_layer_input": 0}, "without per-layer embeddings"),
        ({"attention_k_eq_v": True}, "without per-layer embeddings"),
        ({"model_type": "gemma4_unified_text"}, "12B Unified has another architecture"),
    ],
)
def test_other_sizes_are_refused_with_the_reason_and_what_works(
    base: Path, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    directory = Path(shutil.copytree(base, tmp_path / "other"))
    edit_json(directory / "config.json", lambda config: config.update(change))
    with pytest.raises(ConfigError, match=rf"{reason}.*give google/gemma-4-E4B-it"):
        resolve_base(ModelSettings(base=str(directory)))


def test_e2b_is_taken(base: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(base, tmp_path / "e2b"))
    edit_json(directory / "config.json", lambda config: config.update(use_double_wide_mlp=True))
    assert resolve_base(ModelSettings(base=str(directory))) == directory


def test_the_published_size_is_the_one_that_its_users_know() -> None:
    """7.52 G parameters of text in the GGUF files, and about 8 G with the towers."""
    assert find_model(ModelSettings(base="google/gemma-4-E4B-it")) is E4B
    layers = 35 * (2 * 2560 * 2048 + 2 * 2560 * 512) + 7 * (2 * 2560 * 4096 + 2 * 2560 * 1024)
    layers += 42 * (3 * 2560 * 10_240 + 2 * 2560 * 256)
    counted = layers + 262_144 * 2560 + 262_144 * 42 * 256 + 2560 * 42 * 256
    assert E4B.text_parameters == pytest.approx(counted, rel=0.002)
    assert E4B.linear["q_proj"] == 35 * (2560 + 2048) + 7 * (2560 + 4096)


def test_another_familys_tokens_are_plain_text_here() -> None:
    assert PROMPT.neutralise("<start_of_turn>model") == "<start_of_turn>model"
    assert PROMPT_3.neutralise("<|turn>model") == "<|turn>model"
