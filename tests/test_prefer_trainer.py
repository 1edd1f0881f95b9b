"""The preference pass beside TRL's own: the same losses, gradients and metrics, with each article read once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from training_models import KINDS, tiny_model

from titlegen.models import family_at, load_tokenizer
from titlegen.prefer.pairs import Pair
from titlegen.prefer.trainer import PairRow, build_trainer, encode_pairs, score_reference
from titlegen.settings import PreferSettings, TrainSettings
from titlegen.train.memory import Plan
from titlegen.train.trim import CompletionTrim

pytestmark = pytest.mark.usefixtures("one_thread")
OBJECTIVES = [("dpo", 1.0), ("simpo", 0.0), ("cpo", 0.0), ("sft", 0.0)]
OTHERS = [kind for kind in KINDS if kind != "gemma3"]
_LOGGED = ("loss", "grad_norm", "rewards/margins", "rewards/accuracies", "entropy", "logits/chosen", "logps/rejected")


def random_rows() -> list[PairRow]:
    """Return pairs about three articles, two of them about one; their prompts begin alike."""
    generator = torch.Generator().manual_seed(1)

    def ids(length: int) -> list[int]:
        found: list[int] = torch.randint(5, 300, (length,), generator=generator).tolist()
        return found

    instruction, articles = ids(6), [ids(9), ids(17), ids(4)]
    return [
        {"prompt_ids": instruction + articles[which], "chosen_ids": ids(4), "rejected_ids": ids(7)}
        for which in (0, 0, 1, 2)
    ]


def train(
    kind: str, objective: Any, base: Path, work: Path, *, trimmed: bool, sft_weight: float = 0.0
) -> tuple[list[list[float]], int]:
    """Return what TRL logs in each of four steps, and how many adapters the model has at the end."""
    model = tiny_model(kind, torch.float32)
    settings = PreferSettings(
        objective=objective, sft_weight=sft_weight, num_train_epochs=2, batch_size=2, learning_rate=1e-2
    )
    trainer = build_trainer(
        model,
        load_tokenizer(base),
        random_rows(),
        settings,
        TrainSettings(logging_steps=1),
        work,
        plan=Plan(2, 1, checkpointing=False),
        trim=CompletionTrim(model) if trimmed else None,
    )
    score_reference(trainer, settings)
    trainer.train()
    logged = [[record[name] for name in _LOGGED] for record in trainer.state.log_history if "loss" in record]
    return logged, len(model.peft_config)


# Each objective once, and each family once; the others take long.
@pytest.mark.parametrize(
    ("kind", "objective", "own"),
    [
        *(("gemma3", objective, own) for objective, own in OBJECTIVES),
        *((kind, *OBJECTIVES[0]) for kind in OTHERS),
        *(pytest.param(kind, *each, marks=pytest.mark.slow) for kind in OTHERS for each in OBJECTIVES[1:]),
    ],
)
def test_training_is_trls_own_to_rounding(
    kind: str, objective: str, own: float, tiny_base: Path, tmp_path: Path
) -> None:
    full, _ = train(kind, objective, tiny_base, tmp_path / "full", trimmed=False, sft_weight=own)
    trimmed, adapters = train(kind, objective, tiny_base, tmp_path / "trimmed", trimmed=True, sft_weight=own)
    assert len(full) == 4
    for step, (found, expected) in enumerate(zip(trimmed, full, strict=True)):
        # Rounding of ten layers grows with each step of this learning rate.
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4), f"step {step}"
    assert adapters == 1, "no second adapter stays"
    checkpoint = max((tmp_path / "trimmed").glob("checkpoint-*"))
    assert (checkpoint / "adapter_model.safetensors").is_file()
    assert not list(checkpoint.glob("tokenizer*"))


def test_simpo_is_its_paper_s_loss(tiny_base: Path, tmp_path: Path) -> None:
    """Source: Meng, Xia and Chen, SimPO, 2024, equation 6."""
    logged, _ = train("gemma3", "simpo", tiny_base, tmp_path, trimmed=True)
    settings = PreferSettings()
    model = tiny_model("gemma3", torch.float32).eval()
    losses = []
    for row in random_rows()[:2]:
        means = []
        for ids in (row["chosen_ids"], row["rejected_ids"]):
            tokens = torch.tensor([row["prompt_ids"] + ids])
            with torch.no_grad():
                logs = model(tokens).logits[0, :-1].log_softmax(-1)
            means.append(logs.gather(-1, tokens[0, 1:, None])[-len(ids) :].mean())
        margin = settings.beta * (means[0] - means[1]) - settings.margin
        losses.append(-torch.nn.functional.logsigmoid(margin))
    assert logged[0][0] == pytest.approx(float(sum(losses) / 2), rel=1e-4)


def test_pairs_of_one_article_stand_beside_each_other_under_one_prompt(tiny_base: Path) -> None:
    tokenizer, prompt = load_tokenizer(tiny_base), family_at(tiny_base).prompt
    pairs = [Pair(str(n % 3), f"{n % 3}號公園明年完工。" * 40, f"公園{n}完工", "完" * (n + 1)) for n in range(6)]
    rows = encode_pairs(pairs, tokenizer, prompt, 120, seed=1)
    prompts = [tuple(row["prompt_ids"]) for row in rows]
    assert [prompts[0] == prompts[1], prompts[2] == prompts[3], prompts[4] == prompts[5]] == [True] * 3
    assert len(set(prompts)) == 3
    assert all(len(row["prompt_ids"] + row[key]) <= 120 for row in rows for key in ("chosen_ids", "rejected_ids"))
    assert any(encode_pairs(pairs, tokenizer, prompt, 120, seed) != rows for seed in range(2, 8)), "a drawn order"
