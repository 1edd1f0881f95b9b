"""A tiny random Gemma 4 of the true architecture, with a real tokenizer."""

from pathlib import Path

from corpus import tiny_vocabulary
from tiny_models import add_unread_weights, randomise

from titlegen.families.gemma4 import PROMPT
from titlegen.models import write_tokenizer

FIRST_SHARED, LAYERS = 6, 12
HIDDEN, HEAD, WIDE_HEAD = 128, 64, 128
# Source: the published tokenizer; the places of some are others.
CONTROL = {
    98: "<|think|>",
    100: "<|channel>",
    101: "<channel|>",
    52: '<|"|>',
    48: "<|tool_call>",
    49: "<tool_call|>",
    90: "<|image|>",
}


def write_tiny_gemma4(directory: Path) -> None:
    """Write a random Gemma 4 in the shape of the published E4B, with few and narrow layers."""
    import torch
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig

    vocabulary = tiny_vocabulary(("<|turn>", "<turn|>"), CONTROL)
    write_tokenizer(directory, *vocabulary, PROMPT)
    # The published model has none.
    (directory / "tokenizer.model").unlink()
    size = len(vocabulary[0])
    torch.manual_seed(0)
    config = Gemma4TextConfig(
        vocab_size=size,
        vocab_size_per_layer_input=size,
        hidden_size=HIDDEN,
        hidden_size_per_layer_input=32,
        intermediate_size=256,
        num_hidden_layers=LAYERS,
        num_kv_shared_layers=LAYERS - FIRST_SHARED,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=HEAD,
        global_head_dim=WIDE_HEAD,
        sliding_window=64,
        layer_types=(["sliding_attention"] * 5 + ["full_attention"]) * 2,
        final_logit_softcapping=30.0,
        max_position_embeddings=4096,
        bos_token_id=2,
        eos_token_id=[1, 106],
        pad_token_id=0,
    )
    model = Gemma4ForCausalLM(config).float()
    randomise(model, deviation=0.05)
    for index, layer in enumerate(model.model.layers):
        layer.layer_scalar.fill_(0.7 + 0.05 * index)
    model.save_pretrained(directory)
    heads = {index: WIDE_HEAD if index % 6 == 5 else HEAD for index in range(FIRST_SHARED, LAYERS)}
    add_unread_weights(directory, HIDDEN, heads)
