"""TRL's DPOTrainer over encoded pairs, with an article read once for all of its titles, and the SFT model's scores."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from titlegen.environment import one_thread
from titlegen.prefer.head import supply_head, trim_backbone
from titlegen.prefer.pairs import Pair
from titlegen.prompt import PromptFormat
from titlegen.settings import PreferSettings, TrainSettings
from titlegen.train.arguments import steps_between_checkpoints
from titlegen.train.encode import IGNORED, Batch, TrainingRow, encode, encode_prompt
from titlegen.train.memory import Plan
from titlegen.train.packed import pack, rows_alike
from titlegen.train.progress import log_class
from titlegen.train.trim import CompletionTrim

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference


class PairRow(TypedDict):
    """A pair's tokens, as TRL's trainer takes them."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


# Without a reference model: SimPO is DPO's loss on mean log-probabilities against a constant, CPO that against nothing,
# beside the best title's cross-entropy. Source: arXiv 2405.14734 and 2401.08417; trl, DPOConfig.loss_type.
_LOSSES = {"dpo": "sigmoid", "simpo": "sigmoid_norm", "cpo": "sigmoid", "sft": "sft"}


def encode_pairs(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat, max_length: int, seed: int
) -> list[PairRow]:
    """Return the pairs' tokens; articles in an order drawn by ``seed``, those of one article beside each other.

    Raises:
        TrainError: a title leaves no room for any content.
    """
    groups = [list(group) for _, group in groupby(sorted(pairs, key=lambda pair: pair.content), lambda p: p.content)]
    random.Random(seed).shuffle(groups)  # noqa: S311 - an order, no secret
    rows: list[PairRow] = []
    for group in groups:
        titles = [title for pair in group for title in (pair.chosen, pair.rejected)]
        # One prompt for all, so that they share its reading.
        longest = max(titles, key=lambda title: len(encode(tokenizer, prompt_format.render_completion(title))))
        prompt, _ = encode_prompt(group[0].content, longest, tokenizer, prompt_format, max_length, group[0].id)
        rows += [
            {
                "prompt_ids": prompt,
                "chosen_ids": encode(tokenizer, prompt_format.render_completion(pair.chosen)),
                "rejected_ids": encode(tokenizer, prompt_format.render_completion(pair.rejected)),
            }
            for pair in group
        ]
    return rows


def as_training_row(row: PairRow) -> TrainingRow:
    """Return a pair as one row of prompt and titles, which a pass over it computes about as much as for."""
    titles = row["chosen_ids"] + row["rejected_ids"]
    return {"input_ids": row["prompt_ids"] + titles, "labels": [IGNORED] * len(row["prompt_ids"]) + titles}


def build_trainer(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[PairRow],
    settings: PreferSettings,
    train: TrainSettings,
    work: Path,
    *,
    plan: Plan,
    trim: CompletionTrim | None = None,
) -> DPOTrainer:
    """Return TRL's trainer; its checkpoints and log go to ``work``.

    Args:
        model: the PEFT model with the SFT adapter, which is the reference, too.
        tokenizer: its tokenizer.
        rows: encoded pairs, in the order in which they are learned from.
        settings: objective and its parameters.
        train: what preference training has in common with the training before it.
        work: folder for checkpoints and log.
        plan: pairs in one forward pass, passes in one step.
        trim: the trimmed computation; None: the full model.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, ProgressCallback

    supply_head()
    adapter = {parameter: parameter.data for parameter in model.parameters() if parameter.requires_grad}
    trainer = _trainer_class()(
        model=model,
        args=_arguments(settings, train, len(rows), work, plan, trimmed=trim is not None),
        data_collator=_collator(tokenizer, packed=trim is not None),
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=tokenizer,
    )
    # It would be written with every checkpoint, 40 MB.
    trainer.processing_class = None
    # TRL rounds the adapter of a 4-bit model to bfloat16.
    for parameter, values in adapter.items():
        parameter.data = values
    if trim is not None:
        trim_backbone(model, trim)
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(log_class()(trainer, work))
    return trainer


def score_reference(trainer: DPOTrainer, settings: PreferSettings) -> None:
    """Score every pair with the SFT adapter before training, and not with a copy of it in each step, as TRL does.

    Objectives without a reference get what makes TRL's loss theirs.
    """
    dataset = trainer.train_dataset
    if settings.objective in {"cpo", "sft"}:
        scores = [(0.0, 0.0)] * len(dataset)
    elif settings.objective == "simpo":
        # TRL divides by the title's length; the margin is a difference of means.
        margin = settings.margin / settings.beta
        scores = [(margin * len(ids), 0.0) for ids in dataset["chosen_ids"]]
    else:
        scores = _score(trainer, dataset)
    chosen, rejected = map(list, zip(*scores, strict=True))
    scored = dataset.add_column("ref_chosen_logps", chosen).add_column("ref_rejected_logps", rejected)
    trainer.train_dataset, trainer.precompute_ref_logps = scored, True
    if "ref" in trainer.model.peft_config:
        # TRL's copy of the adapter has no further use, and would be saved.
        trainer.model.delete_adapter("ref")


def _score(trainer: DPOTrainer, dataset: Dataset) -> list[tuple[float, float]]:
    """Return the SFT model's log-probabilities of each pair's titles."""
    import sys

    from torch.utils.data import DataLoader
    from tqdm import tqdm  # type: ignore[import-untyped]

    loader = DataLoader(dataset, batch_size=trainer.args.per_device_train_batch_size, collate_fn=trainer.data_collator)
    model, device = trainer.model, trainer.args.device
    model.to(device)
    training = model.training
    model.eval()
    scores: list[tuple[float, float]] = []
    for batch in tqdm(loader, desc="scores of the SFT model", file=sys.stderr):
        moved = {key: value.to(device) for key, value in batch.items()}
        chosen, rejected = trainer.compute_ref_log_probs(model, moved)
        scores += zip(chosen.tolist(), rejected.tolist(), strict=True)
    model.train(training)
    return scores


def _arguments(
    settings: PreferSettings, train: TrainSettings, rows: int, work: Path, plan: Plan, *, trimmed: bool
) -> DPOConfig:
    import math

    import torch
    from trl import DPOConfig

    cuda = torch.cuda.is_available()
    steps = math.ceil(math.ceil(rows / (plan.batch * plan.accumulation)) * settings.num_train_epochs)
    losses = {_LOSSES[settings.objective]: 1.0}
    own = settings.sft_weight or (1.0 if settings.objective == "cpo" else 0.0)
    if own and settings.objective != "sft":
        losses["sft"] = own
    arguments = DPOConfig(
        output_dir=str(work),
        loss_type=list(losses),
        loss_weights=list(losses.values()),
        beta=settings.beta,
        optim="adamw_torch_fused",
        max_length=None,
        per_device_train_batch_size=plan.batch,
        gradient_accumulation_steps=plan.accumulation,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.num_train_epochs,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=0.1,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        logging_steps=min(train.logging_steps, max(1, steps // 4)),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="steps",
        save_steps=steps_between_checkpoints(train, steps),
        save_total_limit=train.save_total_limit,
        # Pairs of one article stand beside each other, and the articles have been put in a drawn order.
        train_sampling_strategy="sequential",
        gradient_checkpointing=plan.checkpointing and not trimmed,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=cuda,
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        seed=settings.seed,
        disable_tqdm=True,
        report_to="none",
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # noqa: SLF001 - the only way but to hide the others from the whole process
    return arguments


def _collator(tokenizer: PreTrainedTokenizerBase, *, packed: bool) -> DataCollatorForPreference:
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    class PairCollator(DataCollatorForPreference):  # type: ignore[misc] # trl is untyped
        """Packs a batch beside TRL's padded form, each article once."""

        @one_thread()
        def torch_call(self, examples: list[PairRow]) -> Batch:
            batch: Batch = super().torch_call(examples)
            if packed:
                labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED)
                prompts = [example["prompt_ids"] for example in examples]
                batch["packed"] = pack(
                    {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels},
                    # TRL puts the chosen titles first, then the rejected ones.
                    rows_alike([*prompts, *prompts]),
                )
            return batch

    return PairCollator(pad_token_id=tokenizer.pad_token_id)


def _trainer_class() -> type[DPOTrainer]:
    from trl import DPOTrainer

    class PreferenceTrainer(DPOTrainer):  # type: ignore[misc] # trl is untyped
        """DPOTrainer whose pairs come encoded."""

        tokens_seen = 0

        def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
            return dataset

        def create_model_card(self, *_: object, **__: object) -> None:
            """Write none: the model card belongs to the published model."""

        def compute_loss(self, model: nn.Module, inputs: Batch, *arguments: object, **named: object) -> Tensor:
            # As TRL's own count of tokens: both titles, each with its article.
            packed = inputs.get("packed")
            self.tokens_seen += inputs["input_ids"].numel() if packed is None else sum(packed.rows.lengths)
            loss: Tensor = super().compute_loss(model, inputs, *arguments, **named)
            return loss

    return PreferenceTrainer
