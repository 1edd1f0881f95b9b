"""The two training back ends: loading the model, and checking that it can run here."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.environment import prepare_training_environment
from titlegen.errors import TrainError
from titlegen.models import family_at, load_tokenizer, uncollected
from titlegen.settings import TrainSettings
from titlegen.train.fp8 import check_fp8
from titlegen.train.init_adapter import load_init_adapter, resolve_init_adapter
from titlegen.train.memory import gpu_limit

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Source: Unsloth's requirements, CUDA capability 7.0 (V100) and later.
_MIN_CAPABILITY = (7, 0)
# Measured on an H100 with --train.low-memory; see docs/performance.md.
MIN_GIB = 8
# The versions of these decide whether a training is the tested one.
_CHECKED = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "unsloth")


def check_backend(settings: TrainSettings) -> list[str]:
    """Check that this machine can train with the chosen back end, before anything is downloaded.

    The environment variables of the training libraries are set, too.

    Returns:
        What :func:`check_environment` returns.

    Raises:
        TrainError: no usable GPU, too little memory, or versions that do not work; the message names the remedy.
    """
    # Before torch is imported, which reads its memory's configuration then.
    prepare_training_environment(compile_model=settings.compile is True and not settings.completion_trim)
    if settings.backend == "unsloth":
        # First the faults that no installation can mend.
        _check_gpu()
    if settings.fp8:
        check_fp8()
    return check_environment(settings)


def _check_gpu() -> None:
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
    gib = gpu_limit() / 2**30
    if gib < MIN_GIB:
        raise TrainError(
            f"training an E4B needs {MIN_GIB} GiB of GPU memory, and {torch.cuda.get_device_name()} has "
            f"{gib:.1f}; use a larger card, or --profile quickstart"
        )


def check_environment(settings: TrainSettings) -> list[str]:
    """Check the installed training packages against what titlegen was tested with.

    Returns:
        Packages whose version is allowed but not the locked one, such as ``torch 2.11.0 (locked 2.13.0)``.

    Raises:
        TrainError: a package is missing or outside the allowed range; the message names it.
    """
    from packaging.requirements import Requirement

    try:
        declared = metadata.requires("titlegen") or []
    except metadata.PackageNotFoundError:
        # A source tree that is not installed declares nothing.
        return []
    unsloth = settings.backend == "unsloth"
    optional = {"unsloth": unsloth, "bitsandbytes": unsloth or settings.load_in_4bit}
    wanted = [name for name in _CHECKED if optional.get(name, True)]
    problems = []
    for requirement in map(Requirement, declared):
        marker = requirement.marker
        if requirement.name not in wanted or not (marker is None or marker.evaluate({"extra": "gpu"})):
            continue
        installed = _version(requirement.name)
        if installed is None:
            problems.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(installed.partition("+")[0], prereleases=True):
            problems.append(f"{requirement.name} {installed} is outside {requirement.specifier}")
    if problems:
        raise TrainError(
            f"cannot train with these versions: {'; '.join(problems)}; run: python -m pip install -c constraints.txt "
            "-e '.[gpu]' (without a GPU: -e ., and --train.no-load-in-4bit)"
        )
    return [
        f"{name} {installed} (locked {locked})"
        for name, locked in _locked().items()
        if (installed := _version(name)) is not None and installed.partition("+")[0] != locked
    ]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _locked() -> dict[str, str]:
    """Return the locked versions of the checked packages; empty outside a source tree."""
    path = Path(__file__).resolve().parents[2] / "constraints.txt"
    if not path.is_file():
        return {}
    pins = (line.partition(";")[0].strip().partition("==") for line in path.read_text(encoding="utf-8").splitlines())
    return {name: version for name, _, version in pins if name in _CHECKED}


def load_for_training(base: Path, settings: TrainSettings) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """Load base model and tokenizer and put an adapter on the model: a fresh one, or the one to start from.

    Returns:
        The PEFT model, trainable, and its tokenizer.

    Raises:
        ConfigError: there is no adapter to start from where the settings say.
        TrainError: the adapter to start from does not fit.
    """
    # Checked before minutes go into loading.
    start = None if settings.init_adapter is None else resolve_init_adapter(settings.init_adapter)
    model, tokenizer = _load_unsloth(base, settings) if settings.backend == "unsloth" else _load_peft(base, settings)
    if start is not None:
        load_init_adapter(model, start, base, settings)
    return model, tokenizer


def _load_peft(base: Path, settings: TrainSettings) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    with uncollected():
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig, set_seed

    family = family_at(base)
    towers = rf".*{family.towers}\..*"
    # Gemma overflows in float16; bfloat16 is slow on most CPUs.
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    tokenizer = load_tokenizer(base)
    # Source: QLoRA (arXiv 2305.14314), and Unsloth's arguments: NormalFloat, and the scales quantised too.
    in_4bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(family.not_quantised),
    )
    model = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=dtype,
        device_map={"": torch.cuda.current_device()} if torch.cuda.is_available() else None,
        quantization_config=in_4bit if settings.load_in_4bit else None,
    )
    if settings.load_in_4bit:
        _keep_weights_as_loaded(model)
    model.config.use_cache = False
    set_seed(settings.seed)
    lora = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.target_modules),
        # A tower for sound has layers of the same names.
        exclude_modules=towers if any(re.fullmatch(towers, name) for name, _ in model.named_modules()) else None,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora), tokenizer


def _keep_weights_as_loaded(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for inference, which it does on a CPU with AVX512-BF16.

    The first pass in evaluation mode would do it, for good: the loss is then computed in bfloat16, the layers pass no
    gradient on to those below, so that training after the first validation is broken without a word, and matrices
    whose sides are no multiples of 32 and 64 fail. Source: bitsandbytes 0.50, ``Linear4bit.forward`` and
    ``matmul_4bit``.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _load_unsloth(base: Path, settings: TrainSettings) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    # Unsloth patches trl, transformers and peft, so it comes before any of them.
    with uncollected():
        import unsloth  # noqa: I001 - and before torch is used
        import torch

    model, tokenizer = unsloth.FastModel.from_pretrained(
        model_name=str(base),
        max_seq_length=settings.max_length,
        load_in_4bit=settings.load_in_4bit,
        dtype=None,
        # Its own choice spreads one model over all cards.
        **({"device_map": {"": torch.cuda.current_device()}} if torch.distributed.is_initialized() else {}),
        # Unsloth's checkpointing replaces torch's for the whole process, so it is left out of both calls or neither.
        use_gradient_checkpointing=_unsloth_checkpointing(settings),
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
        use_gradient_checkpointing=_unsloth_checkpointing(settings),
        random_state=settings.seed,
    )
    _allow_quantised_coefficients(model)
    # A multimodal model comes with a processor around it, for which TRL would prepare pictures.
    return model, getattr(tokenizer, "tokenizer", tokenizer)


def _allow_quantised_coefficients(model: PeftModel) -> None:
    """Leave out Gemma 3n's clamp of AltUp's coefficients when these are 4-bit codes.

    Unsloth quantises them, and the model's clamp of the packed bytes fails in the first training step. The published
    coefficients lie far within the limit, so the clamp changes nothing.
    """
    coefficients = [module for name, module in model.named_modules() if name.endswith("altup.prediction_coefs")]
    if any(not module.weight.is_floating_point() for module in coefficients):
        # The configuration's own check of types allows numbers only.
        object.__setattr__(model.config.get_text_config(), "altup_coef_clip", None)


def _unsloth_checkpointing(settings: TrainSettings) -> str | bool:
    # The trimmed computation recomputes its own layers.
    return "unsloth" if settings.gradient_checkpointing and not settings.completion_trim else False
