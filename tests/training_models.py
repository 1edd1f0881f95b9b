"""Tiny random Gemma models with an adapter, and batches for them."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    Gemma3ForCausalLM,
    Gemma3nForCausalLM,
    Gemma3nTextConfig,
    Gemma3TextConfig,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
)

from titlegen.settings import TrainSettings
from titlegen.train.encode import IGNORED, EncodedRow
from titlegen.train.memory import Plan
from titlegen.train.ranks import Ranks
from titlegen.train.trainer import build_trainer
from titlegen.train.trim import CompletionTrim

VOCABULARY = 300
KINDS = ["gemma3n", "gemma3", "gemma4"]
# For what takes long with any but the smallest.
SMALLEST_FIRST = ["gemma3", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gemma3n", "gemma4"))]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def tiny_model(kind: str, dtype: torch.dtype, dropout: float = 0.0, layers: int = 10) -> Any:
    """Return a PEFT model in training mode whose adapter is not zero."""
    torch.manual_seed(0)
    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "sliding_window": 8,
        "pad_token_id": 0,
    }
    kinds = [("full_attention" if i % 3 == 2 or i == layers - 1 else "sliding_attention") for i in range(layers)]
    model: Any
    if kind == "gemma3n":
        model = Gemma3nForCausalLM(
            Gemma3nTextConfig(
                **common,
                num_hidden_layers=layers,
                layer_types=kinds,
                vocab_size_per_layer_input=VOCABULARY,
                hidden_size_per_layer_input=8,
                num_kv_shared_layers=4,
                laurel_rank=4,
                activation_sparsity_pattern=[0.95] * 3 + [0.0] * (layers - 3),
            )
        )
    elif kind == "gemma4":
        model = Gemma4ForCausalLM(
            Gemma4TextConfig(
                **common,
                num_hidden_layers=layers,
                layer_types=kinds,
                # Full layers have wider heads.
                global_head_dim=16,
                vocab_size_per_layer_input=VOCABULARY,
                hidden_size_per_layer_input=8,
                num_kv_shared_layers=4,
                final_logit_softcapping=30.0,
            )
        )
        for index, layer in enumerate(model.model.layers):
            layer.layer_scalar.fill_(0.8 + 0.05 * index)
    else:
        model = Gemma3ForCausalLM(
            Gemma3TextConfig(**common, num_hidden_layers=4, layer_types=kinds[:3] + kinds[-1:], query_pre_attn_scalar=8)
        )
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules=TARGETS, task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.1 if "lora_B" in name else 0.08)
        if kind != "gemma3" and ("q_norm" in name or "k_norm" in name):
            # These do not scale their dot products: undamped random ones blow rounding up.
            parameter.data.fill_(0.3)
    return model.to(dtype).train()


def random_batch(
    rows: list[tuple[int, int]], seed: int, *, left: bool = False, shared: int = 0
) -> dict[str, torch.Tensor]:
    """Return a padded batch of (prompt, title) lengths, whose prompts begin with the same ``shared`` tokens."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randint(5, VOCABULARY, (shared,), generator=generator)
    width = max(prompt + title for prompt, title in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for i, (prompt, title) in enumerate(rows):
        start = width - prompt - title if left else 0
        end = start + prompt + title
        ids[i, start:end] = torch.randint(5, VOCABULARY, (prompt + title,), generator=generator)
        ids[i, start : start + min(shared, prompt)] = common[:prompt]
        mask[i, start:end] = 1
        labels[i, start + prompt : end] = ids[i, start + prompt : end]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def keep_double(patch: Any) -> None:
    """Let float64 stay float64 where the models round to float32: in norms, routers and the loss."""
    original = torch.Tensor.float
    patch.setattr(torch.Tensor, "float", lambda x: x if x.dtype == torch.float64 else original(x))


def gradients(model: Any, loss: torch.Tensor) -> torch.Tensor:
    """Return the gradient of every trained parameter as one vector."""
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the distance relative to what is expected."""
    return float((found - expected).norm() / expected.norm())


def trace_instead_of_compiling(patch: Any) -> None:
    """Let the compiler stop before it generates code, which takes a C++ compiler."""
    traced = partial(torch.compile, backend="aot_eager")
    patch.setattr(torch, "compile", lambda function, **_: traced(function, fullgraph=True))


def random_rows(count: int, seed: int) -> list[EncodedRow]:
    """Return encoded rows of unequal lengths that begin alike, as prompts do."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[EncodedRow] = []
    for number in range(count):
        prompt, title = (int(torch.randint(low, high, (), generator=generator)) for low, high in ((4, 40), (1, 9)))
        ids = [7, 8, 9, *torch.randint(10, VOCABULARY, (prompt + title,), generator=generator).tolist()]
        labels = [IGNORED] * (3 + prompt) + ids[3 + prompt :]
        rows.append(EncodedRow(id=f"a{number}", input_ids=ids, labels=labels, shortened=False, left_out_chars=0))
    return rows


def train_exactly(kind: str, accumulation: int, tokenizer: Any, work: Path, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Train a tiny model in float64 for ten steps of 18 rows; return loss by step and the adapter.

    The last step of an epoch has one row: some rank has none.
    """
    settings = TrainSettings(
        backend="peft",
        load_in_4bit=False,
        num_train_epochs=10 / 3,
        learning_rate=2e-3,
        lora_dropout=0.0,
        save_steps=100,
        logging_steps=1,
    )
    model = tiny_model(kind, torch.float64)
    trim = CompletionTrim(model)
    plan = Plan(18 // accumulation // ranks.count, accumulation, checkpointing=False)
    work.mkdir(exist_ok=True)
    trainer = build_trainer(model, tokenizer, random_rows(37, 1), [], settings, work, plan=plan, loss=trim, ranks=ranks)
    share, losses = trainer.pass_loss, torch.zeros(10, dtype=torch.float64)

    def recorded(*arguments: Any) -> Any:
        loss = share(*arguments)
        losses[trainer.state.global_step] += loss.detach() / ranks.count
        return loss

    trainer.pass_loss = recorded
    trainer.train()
    adapter = torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
    return {"losses": sum(ranks.gather(losses)), "adapter": adapter}
