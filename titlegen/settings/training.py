"""The settings of fine-tuning."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from titlegen.errors import ConfigError
from titlegen.settings.stage import Seed, Share, StageSettings


class TrainSettings(StageSettings):
    """Fine-tuning; the defaults are the specification's."""

    backend: Literal["unsloth", "peft"] = "unsloth"
    """`unsloth` (CUDA) or `peft` (TRL and PEFT alone, CPU or CUDA)."""
    load_in_4bit: bool = True
    """Quantise the frozen weights to 4 bits while training (QLoRA); needs bitsandbytes."""
    max_length: Annotated[int, Field(ge=32)] = 2048
    """Longest row, tokens of prompt and title together."""
    num_train_epochs: Annotated[float, Field(gt=0)] = 3
    """Passes over the train split."""
    per_device_train_batch_size: Annotated[int, Field(ge=1)] = 4
    """Rows in one forward pass."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] = 8
    """Forward passes in one optimizer step; times the batch size it is the effective batch."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """Peak learning rate of AdamW."""
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate after warm-up."""
    warmup_ratio: Share = 0.03
    """Share of the steps in which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's decoupled weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""
    lora_r: Annotated[int, Field(ge=1)] = 16
    """Rank of the adapter."""
    lora_alpha: Annotated[int, Field(ge=1)] = 32
    """Scale of the adapter: its update is multiplied by alpha / r."""
    lora_dropout: Share = 0.05
    """Dropout in front of the adapter."""
    target_modules: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Linear layers that get an adapter."""
    init_adapter: str | None = None
    """Adapter to start from: a directory, `ORG/NAME` on the Hub, `embedded` for the one shipped (270M), or `none`."""
    control_share: Share = 0.0
    """Share of the rows that ask for their title's length, or a word of it, in a line before the article."""
    auto_batch: bool = False
    """Find the batch size that is fastest on the GPU; the effective batch stays."""
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Cards of this host that train together (processes without a GPU); `auto` takes all that divide the batch."""
    completion_trim: bool = True
    """Leave out all work that the loss on titles does not need (Gemma 3, 3n and 4); exact, and checked at start."""
    compile: bool | Literal["auto"] = "auto"
    """Compile each kind of layer for the GPU; `auto` does so when the run is long enough to win the time back."""
    fp8: bool = False
    """Multiply by the large frozen weights in FP8, half the bytes of 16 bits; not exact; for cards that have it."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute activations in the backward pass: less memory, more time; `auto` does so when memory is short."""
    low_memory: bool = False
    """Least memory: 4-bit weights stay packed, activations are recomputed, per-layer embeddings lie on the host."""
    group_by_length: bool = True
    """Batch rows of like length, so that little of a batch is padding."""
    logging_steps: Annotated[int, Field(ge=1)] = 20
    """Optimizer steps between two log lines."""
    save_steps: Annotated[int, Field(ge=1)] = 500
    """Optimizer steps between two checkpoints."""
    save_total_limit: Annotated[int, Field(ge=1)] = 2
    """Checkpoints kept on disk."""
    early_stopping_patience: Annotated[int, Field(ge=0)] = 0
    """Stop after this many validations without a lower loss, 0 for never."""
    tensorboard: bool = False
    """Also write TensorBoard events, into `tensorboard/` beside the adapter."""
    seed: Seed = 3407
    """Seed of initialisation, order and dropout."""

    @field_validator("init_adapter")
    @classmethod
    def _none_is_a_word(cls, value: str | None) -> str | None:
        # So that the command line can take back what a profile says.
        return None if value is None or value.strip().lower() in {"", "none"} else value

    @model_validator(mode="after")
    def _low_memory_is_the_trims(self) -> "TrainSettings":
        if self.low_memory and not self.completion_trim:
            raise ConfigError("train.low_memory needs train.completion_trim; leave one of the two as it is by default")
        return self

    @model_validator(mode="after")
    def _fp8_is_compiled(self) -> "TrainSettings":
        if self.fp8 and (self.low_memory or self.compile is False or not self.completion_trim):
            raise ConfigError(
                "train.fp8 needs train.completion_trim and train.compile, and goes without train.low_memory; leave "
                "these as they are by default, or train.fp8 off"
            )
        return self
