"""A GGUF model that llama.cpp runs like any other, and that writes what it is told to.

Its layers add nothing, so that the next token depends on the last one alone: the output matrix holds, for each token,
the embedding of the token that it has to follow. Small, quick and exact: what a test of serving needs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

Vocabulary = tuple[list[str], list[float], list[int]]
END_OF_TURN = "<end_of_turn>"
_WIDTH, _HEADS, _HEAD_WIDTH, _FFN = 128, 1, 32, 32
_BOS_ID, _EOS_ID, _UNK_ID, _PAD_ID = 2, 1, 3, 0
_F32_FILE, _F16_FILE = 0, 1


def write_scripted_gguf(
    path: Path,
    vocabulary: Vocabulary,
    follows: Mapping[str, str | Sequence[str]],
    *,
    dtype: type[np.floating] = np.float32,
    context_length: int = 32768,
) -> None:
    """Write a model in which each key of ``follows`` is followed by its value, and every other token by the end.

    Where the value is several tokens, they are equally likely.
    ``vocabulary`` is tokens, scores and types, as the GGUF format numbers them.
    """
    tokens, scores, kinds = vocabulary
    embedding, output = _matrices(tokens, follows)
    writer = GGUFWriter(path, "gemma3")
    writer.add_context_length(context_length)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_FFN)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_key_length(_HEAD_WIDTH)
    writer.add_value_length(_HEAD_WIDTH)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_sliding_window(512)
    writer.add_file_type(_F16_FILE if dtype is np.float16 else _F32_FILE)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(list(tokens))
    writer.add_token_scores(list(scores))
    writer.add_token_types(list(kinds))
    writer.add_bos_token_id(_BOS_ID)
    writer.add_eos_token_id(_EOS_ID)
    writer.add_unk_token_id(_UNK_ID)
    writer.add_pad_token_id(_PAD_ID)
    writer.add_add_bos_token(value=True)
    writer.add_add_space_prefix(value=False)
    for name, matrix in _tensors(embedding, output).items():
        vector = matrix.ndim == 1
        writer.add_tensor(
            name,
            matrix.astype(np.float32 if vector else dtype),
            raw_dtype=GGMLQuantizationType.F16 if dtype is np.float16 and not vector else GGMLQuantizationType.F32,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _matrices(tokens: Sequence[str], follows: Mapping[str, str | Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the embedding and the output matrix."""
    ids = {token: index for index, token in enumerate(tokens)}
    embedding = np.random.default_rng(0).normal(size=(len(tokens), _WIDTH)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    # The first number is the same for all tokens: by it, the end of the turn follows where nothing else does.
    embedding[:, 0] = 0.3
    output = np.zeros_like(embedding)
    # More than chance likeness of two embeddings gives, less than a successor gets.
    output[ids[END_OF_TURN], 0] = 80.0
    for token, following in follows.items():
        for one in [following] if isinstance(following, str) else following:
            output[ids[one], 1:] += 40.0 * embedding[ids[token], 1:]
    return embedding, output


def _tensors(embedding: np.ndarray, output: np.ndarray) -> dict[str, np.ndarray]:
    attention = _HEADS * _HEAD_WIDTH
    block = {
        "attn_norm": np.ones(_WIDTH),
        "attn_q": np.zeros((attention, _WIDTH)),
        "attn_k": np.zeros((attention, _WIDTH)),
        "attn_v": np.zeros((attention, _WIDTH)),
        "attn_output": np.zeros((_WIDTH, attention)),
        "attn_q_norm": np.ones(_HEAD_WIDTH),
        "attn_k_norm": np.ones(_HEAD_WIDTH),
        "post_attention_norm": np.ones(_WIDTH),
        "ffn_norm": np.ones(_WIDTH),
        "ffn_gate": np.zeros((_FFN, _WIDTH)),
        "ffn_up": np.zeros((_FFN, _WIDTH)),
        "ffn_down": np.zeros((_WIDTH, _FFN)),
        "post_ffw_norm": np.ones(_WIDTH),
    }
    named = {f"blk.0.{name}.weight": matrix for name, matrix in block.items()}
    return {
        "token_embd.weight": embedding,
        "output.weight": output,
        "output_norm.weight": np.ones(_WIDTH),
        **named,
    }


def chain(text: str, start: str = "\n") -> dict[str, str | Sequence[str]]:
    """Return what makes the model write ``text``, whose characters have to differ, after ``start``."""
    characters = list(text.replace(" ", "▁"))
    if len(set(characters)) != len(characters):
        raise ValueError(f"{text!r} has a character twice")
    return dict(zip([start, *characters], [*characters, END_OF_TURN], strict=True))


def with_characters(vocabulary: Vocabulary, text: str) -> Vocabulary:
    """Return the vocabulary and, at its end, the characters of ``text`` that it lacks."""
    tokens, scores, kinds = list(vocabulary[0]), list(vocabulary[1]), list(vocabulary[2])
    lacking = [char for char in dict.fromkeys(text.replace(" ", "▁")) if char not in tokens]
    scores += [min(scores) - 1 - index for index in range(len(lacking))]
    return tokens + lacking, scores, kinds + [1] * len(lacking)
