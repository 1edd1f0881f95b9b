"""A tiny random Gemma 4 of the true architecture, with a real tokenizer."""

from pathlib import Path

from corpus import tiny_vocabulary

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
    from safetensors.torch import load_file, save_file
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
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.05)
    for index, layer in enumerate(model.model.layers):
        layer.layer_scalar.fill_(0.7 + 0.05 * index)
        # The attention scale is 1: with wilder queries, rounding alone makes two runs look unrelated.
        layer.self_attn.q_norm.weight.data.fill_(0.3)
        if hasattr(layer.self_attn, "k_norm"):
            layer.self_attn.k_norm.weight.data.fill_(0.3)
    model.save_pretrained(directory)
    # Published checkpoints keep k/v weights on the shared layers; transformers drops them.
    weights = load_file(directory / "model.safetensors")
    for index in range(FIRST_SHARED, LAYERS):
        attention, width = f"model.layers.{index}.self_attn.", WIDE_HEAD if index % 6 == 5 else HEAD
        weights |= {
            f"{attention}k_proj.weight": torch.zeros(width, HIDDEN),
            f"{attention}v_proj.weight": torch.zeros(width, HIDDEN),
            f"{attention}k_norm.weight": torch.ones(width),
        }
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
