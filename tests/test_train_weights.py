"""How the frozen weights are held while training; the 4-bit ones are those of the real bitsandbytes."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from training_models import KINDS, gradients, random_batch, relative, tiny_model, trace_instead_of_compiling
from transformers import AutoModelForCausalLM

from titlegen.errors import TrainError
from titlegen.settings import TrainSettings
from titlegen.train import backends, weights
from titlegen.train.loss import check_trim, completion_loss
from titlegen.train.trim import CompletionTrim, text_model

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = TrainSettings(backend="peft", load_in_4bit=True, lora_r=4, lora_alpha=8, lora_dropout=0.0)
BATCH = random_batch([(20, 4), (5, 3)], seed=0, shared=4)


@pytest.fixture(scope="module", params=KINDS)
def base(request: pytest.FixtureRequest, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model of each kind on disk."""
    directory = shutil.copytree(tiny_base, tmp_path_factory.mktemp("base") / request.param)
    tiny_model(request.param, torch.float32).unload().save_pretrained(directory)
    return directory


def load(base: Path, settings: TrainSettings = SETTINGS) -> Any:
    """Return the model as training loads it, with an adapter that is not zero."""
    model, _ = backends.load_for_training(base, settings)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


def inner(model: Any) -> Any:
    """Return the decoder with all of its parts."""
    return text_model(model)


def in_4_bits(model: Any) -> set[str]:
    """Return the layers whose weights are bitsandbytes' codes."""
    names = (name for name, module in inner(model).named_modules() if hasattr(module, "weight"))
    found = {name for name in names if hasattr(inner(model).get_submodule(name).weight, "quant_state")}
    return {name.removesuffix(".base_layer") for name in found}


def test_all_but_head_and_mixing_is_in_4_bits(base: Path) -> None:
    model = load(base)
    linear = {
        name.removesuffix(".base_layer")
        for name, module in inner(model).named_modules()
        if isinstance(module, torch.nn.Linear) and "lora_" not in name and "altup." not in name
    }
    assert in_4_bits(model) == linear
    assert {"layers.0.self_attn.q_proj", "layers.0.mlp.down_proj"} <= linear
    assert model.get_base_model().lm_head.weight.dtype == torch.float32


def test_towers_get_no_adapter(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_plain = AutoModelForCausalLM.from_pretrained

    def load_with_a_tower(*arguments: Any, **options: Any) -> Any:
        model = load_plain(*arguments, **options)
        # Gemma 3n's for sound; its class needs timm.
        model.model.audio_tower = torch.nn.ModuleDict({"attn": torch.nn.ModuleDict({"q_proj": torch.nn.Linear(4, 4)})})
        return model

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load_with_a_tower)
    model, _ = backends.load_for_training(base, SETTINGS.model_copy(update={"load_in_4bit": False}))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any("self_attn.q_proj" in name for name in trained)
    assert not any("audio_tower" in name for name in trained)


def test_the_untuned_loss_is_that_of_the_dequantised_model(base: Path) -> None:
    settings = SETTINGS.model_copy(update={"load_in_4bit": False})
    whole, _ = backends.load_for_training(base, settings)
    model, _ = backends.load_for_training(base, SETTINGS)
    expected = completion_loss(model, BATCH).item()
    assert expected != pytest.approx(completion_loss(whole, BATCH).item(), rel=1e-3)
    # The weights that bitsandbytes itself unpacks, in a model that was never quantised.
    by_hand = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for name in in_4_bits(model):
        quantised = inner(model).get_submodule(name)
        quantised = getattr(quantised, "base_layer", quantised).weight
        values = weights._bitsandbytes().dequantize_4bit(quantised.data, quantised.quant_state)
        by_hand.model.get_submodule(name).weight.data = values
    by_hand.train()
    assert expected == pytest.approx(completion_loss(by_hand, BATCH).item(), rel=1e-6)


@pytest.mark.parametrize("repacks", [True, False])
def test_a_validation_changes_neither_weights_nor_gradients(
    base: Path, tiny_base: Path, repacks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whether the processor has AVX512-BF16, where bitsandbytes repacks weights whose sides are multiples of 32 and 64,
    # as the second model's are, and fails with others.
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: repacks)
    for directory in (base, tiny_base):
        model = load(directory)
        loss = completion_loss(model, BATCH)
        expected = gradients(model, loss)
        with torch.no_grad():
            assert completion_loss(model.eval(), BATCH).item() == pytest.approx(loss.item(), rel=1e-6)
        assert relative(gradients(model, completion_loss(model.train(), BATCH)), expected) < 1e-6


@pytest.mark.parametrize(("low_memory", "held"), [(False, "float32"), (True, "4-bit")])
def test_unpacked_or_not_nothing_changes(base: Path, low_memory: bool, held: str) -> None:
    model = load(base)
    loss = completion_loss(model, BATCH)
    expected = gradients(model, loss)
    assert weights.prepare_weights(model, low_memory=low_memory) == held
    assert not in_4_bits(model)
    trimmed = CompletionTrim(model)(BATCH)
    assert trimmed.item() == pytest.approx(loss.item(), rel=1e-5)
    assert relative(gradients(model, trimmed), expected) < 1e-4
    check_trim(CompletionTrim(model), model, BATCH)


@pytest.mark.parametrize("low_memory", [False, True])
def test_the_check_knows_the_rounding_of_the_computation(base: Path, low_memory: bool) -> None:
    model = load(base)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and "lora_" not in name:
            parameter.data = parameter.data.to(torch.bfloat16)
    weights.prepare_weights(model, low_memory=low_memory)
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
    full = completion_loss(model.eval(), BATCH)
    check_trim(lambda _: full * 1.01, model, BATCH)  # type: ignore[arg-type]
    with pytest.raises(TrainError, match="more than rounding in bfloat16 explains"):
        check_trim(lambda _: full * 1.03, model, BATCH)  # type: ignore[arg-type]


def test_a_weight_in_4_bits_takes_half_a_byte_and_its_scale(base: Path) -> None:
    model = load(base)
    weights.prepare_weights(model, low_memory=True)
    layer = inner(model).layers[0].mlp.down_proj.base_layer
    count = layer.form[2][0] * layer.form[2][1]
    assert sum(buffer.nbytes for buffer in layer.buffers()) == count / 2 + 4 * count / 64
    assert not list(layer.parameters())


@pytest.mark.slow
# Tracing looks at the gradients of what has none, and makes an instance of a function's class.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:.*Function.* should not be instantiated:DeprecationWarning")
def test_layers_in_4_bits_compile(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(base)
    weights.prepare_weights(model, low_memory=True)
    expected = gradients(model, CompletionTrim(model)(BATCH))
    trace_instead_of_compiling(monkeypatch)
    trim = CompletionTrim(model, kept_share=lambda _: 0.0, compiled=True)
    assert relative(gradients(model, trim(BATCH)), expected) < 1e-4
    assert trim.compiled


@pytest.mark.parametrize(
    ("tables", "low_memory", "host"),
    # Free memory in multiples of the table's size; None: there is no GPU.
    [(2.9, False, True), (3.1, False, False), (3.1, True, True), (None, False, False)],
)
def test_per_layer_embeddings_leave_room_for_activations(
    tables: float | None, low_memory: bool, host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("gemma3n", torch.float32)
    table, batch = inner(model).embed_tokens_per_layer, random_batch([(9, 4), (5, 3)], 0)
    expected = CompletionTrim(model)(batch)
    if tables is not None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(weights, "gpu_memory", lambda: (tables * table.weight.nbytes, 0.0))
    weights.prepare_weights(model, low_memory=low_memory)
    assert (inner(model).embed_tokens_per_layer is not table) == host
    assert torch.equal(CompletionTrim(model)(batch), expected)


def test_rows_of_a_table_that_is_on_the_host_already_go_to_the_gpu() -> None:
    decoder = inner(tiny_model("gemma3n", torch.float32))
    table = decoder.embed_tokens_per_layer.weight.data
    # Unsloth moves the table on a small card. The meta device, on which nothing is computed, plays the GPU.
    decoder.to("meta")
    decoder.embed_tokens_per_layer.weight = torch.nn.Parameter(table, requires_grad=False)
    weights._move_to_host(decoder, "embed_tokens_per_layer")
    assert decoder.embed_tokens_per_layer(torch.zeros(3, dtype=torch.long)).device.type == "meta"
