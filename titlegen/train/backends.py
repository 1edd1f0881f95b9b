"""What differs between the two training back ends: how the model is loaded and where it can run."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from titlegen.errors import MissingDependencyError, TrainError
from titlegen.settings import TrainSettings

# Source: Unsloth's requirements, CUDA capability 7.0 (V100) and later.
_MIN_CAPABILITY = (7, 0)


def check_backend(settings: TrainSettings) -> None:
    """Check that this machine can train with the chosen back end, before anything is downloaded.

    Raises:
        TrainError: no usable GPU; the message names the remedy.
        MissingDependencyError: Unsloth is not installed.
    """
    if settings.backend == "peft":
        return
    import torch

    if not torch.cuda.is_available():
        raise TrainError(
            "train.backend 'unsloth' needs an NVIDIA GPU and a CUDA build of torch, and torch sees none; run on a GPU "
            "machine (`titlegen doctor` says what is missing), or use --profile quickstart"
        )
    capability = torch.cuda.get_device_capability()
    if capability < _MIN_CAPABILITY:
        raise TrainError(
            f"train.backend 'unsloth' needs CUDA capability {_MIN_CAPABILITY[0]}.{_MIN_CAPABILITY[1]} or later; "
            f"{torch.cuda.get_device_name()} has {capability[0]}.{capability[1]}"
        )
    if find_spec("unsloth") is None:
        raise MissingDependencyError(
            "train.backend 'unsloth' is not installed; run: python -m pip install -c constraints.txt -e '.[gpu]'"
        )


def load_for_training(base: Path, settings: TrainSettings) -> tuple[Any, Any]:
    """Load base model and tokenizer and put a fresh adapter on the model.

    Returns:
        The PEFT model, trainable, and its tokenizer.
    """
    return _load_unsloth(base, settings) if settings.backend == "unsloth" else _load_peft(base, settings)


def _load_peft(base: Path, settings: TrainSettings) -> tuple[Any, Any]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    # Gemma overflows in float16; bfloat16 is slow on most CPUs.
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=dtype, device_map="cuda" if torch.cuda.is_available() else None
    )
    model.config.use_cache = False
    set_seed(settings.seed)
    lora = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.target_modules),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora), tokenizer


def _load_unsloth(base: Path, settings: TrainSettings) -> tuple[Any, Any]:
    # Unsloth patches trl, transformers and peft, so it comes before any of them.
    import unsloth

    model, tokenizer = unsloth.FastModel.from_pretrained(
        model_name=str(base),
        max_seq_length=settings.max_length,
        load_in_4bit=settings.load_in_4bit,
        dtype=None,
    )
    model = unsloth.FastModel.get_peft_model(
        model,
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.target_modules),
        finetune_vision_layers=False,
        finetune_language_layers=True,
        finetune_attention_modules=True,
        finetune_mlp_modules=True,
        use_gradient_checkpointing="unsloth" if settings.gradient_checkpointing else False,
        random_state=settings.seed,
    )
    return model, tokenizer
