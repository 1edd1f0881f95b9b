"""Gemma 3: the quickstart's 270M."""

import re
from collections.abc import Mapping
from typing import Any

from titlegen.families.family import Licence, ModelFamily, Rope, TokenIds
from titlegen.families.gemma3_decoder import Gemma3Decoder
from titlegen.families.size import ModelSize, linear_sides
from titlegen.prompt import PromptFormat
from titlegen.settings import EMBEDDED

BOS, START_OF_TURN, END_OF_TURN = "<bos>", "<start_of_turn>", "<end_of_turn>"
# Source: Gemma 3 and Gemma 3n generation_config.json: <eos> is 1 and <end_of_turn> is 106.
TOKENS = TokenIds(pad=0, eos=1, bos=2, unk=3, end_of_turn=106)
# Source: Gemma 3 and 3n, whose older configurations name the two frequencies.
ROPE = {
    "full_attention": Rope(
        parameters={"rope_type": "default", "rope_theta": 1_000_000.0}, flat="rope_theta", scaling="rope_scaling"
    ),
    "sliding_attention": Rope(parameters={"rope_type": "default", "rope_theta": 10_000.0}, flat="rope_local_base_freq"),
}

PROMPT = PromptFormat(
    bos=BOS,
    start_of_turn=START_OF_TURN,
    end_of_turn=END_OF_TURN,
    # Gemma 3 has no system role: the system text opens the user turn.
    opening=f"{START_OF_TURN}user\n",
    before_system="",
    after_system="\n\n",
    before_text="",
    after_text=f"{END_OF_TURN}\n{START_OF_TURN}model\n",
    # The embedded base model's GGUF file carries none.
    chat_template=(
        "{{ bos_token }}"
        "{% if messages[0]['role'] == 'system' %}"
        "{% set first = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}"
        "{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
        "{% for message in turns %}"
        "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
        "{{ (first if loop.first else '') + message['content'] | trim + '<end_of_turn>\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    # <bos>, <start_of_turn>, <unused12>, [multimodal], ...
    control=re.compile(
        r"<(?=/?(?:bos|eos|pad|unk|mask|start_of_turn|end_of_turn|start_of_image|end_of_image|image_soft_token|"
        r"audio_soft_token|start_of_audio|end_of_audio|start_of_function\w*|end_of_function\w*|unused\d+)>)"
        r"|\[(?=(?:multimodal|@BOS@)\])",
        re.IGNORECASE,
    ),
)

LICENCE = Licence(
    hub_id="gemma",
    notice="""\
Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms

The weights in this directory are a modification of a Gemma model. By using, copying or distributing them you accept
those terms, including the Prohibited Use Policy at ai.google.dev/gemma/prohibited_use_policy. titlegen's own code is
under the Apache License 2.0.
""",
    card="""\
Gemma is provided under and subject to the Gemma Terms of Use found at
[ai.google.dev/gemma/terms](https://ai.google.dev/gemma/terms), and this model with it.""",
)

# Source: the model's config.json.
_270M = ModelSize(
    title="Gemma 3 270M",
    names=(EMBEDDED,),
    layers=18,
    parameters=268.1e6,
    text_parameters=268.1e6,
    stored_bytes=4,
    largest_tensor=262_144 * 640,
    linear=linear_sides(layers=18, own_kv=18, hidden=640, attention=1024, kv=256, feed_forward=2048),
    cache_bytes=18 * 2 * 256 * 2,
    on_gpu=False,
)


def gguf_fields(text: Mapping[str, Any]) -> dict[str, object]:
    """Return the GGUF fields of a text configuration."""
    return {
        "block_count": text.get("num_hidden_layers"),
        "embedding_length": text.get("hidden_size"),
        "attention.head_count": text.get("num_attention_heads"),
        "attention.head_count_kv": text.get("num_key_value_heads"),
        "attention.key_length": text.get("head_dim"),
        "attention.sliding_window": text.get("sliding_window"),
        "rope.freq_base": text.get("rope_theta"),
        "rope.freq_base_swa": text.get("rope_local_base_freq"),
    }


FAMILY = ModelFamily(
    name="gemma3",
    title="Gemma 3",
    model_types=frozenset({"gemma3_text"}),
    architectures=frozenset({"Gemma3ForCausalLM"}),
    tokens=TOKENS,
    prompt=PROMPT,
    tokenizer_files=("tokenizer.json", "tokenizer.model"),
    rope=ROPE,
    # Source: llama.cpp's gemma3 architecture.
    full_every=6,
    towers="(audio|vision)_tower",
    # The head is tied to the embeddings.
    not_quantised=("lm_head",),
    decoder=Gemma3Decoder,
    gguf_norm_shift=1.0,
    gguf_tokenizer="llama",
    gguf_fields=gguf_fields,
    # Source: llama.cpp's gemma3 and gemma3n.
    gguf_defaults={"rope.freq_base_swa": 10_000.0},
    gguf_stacked=None,
    sizes=(_270M,),
    renamed={},
    renamed_in_ollama={},
    licence=LICENCE,
)
