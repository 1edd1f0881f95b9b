"""Large frozen projections in FP8: the products are torch's own, which run on a CPU, too."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_curves import compare, train
from training_models import (
    KINDS,
    SMALLEST_FIRST,
    gradients,
    random_batch,
    relative,
    tiny_model,
    trace_instead_of_compiling,
)

from titlegen.errors import ConfigError, TrainError
from titlegen.settings import TrainSettings
from titlegen.train import fp8
from titlegen.train.backends import check_backend, load_for_training
from titlegen.train.trim import CompletionTrim, text_model
from titlegen.train.weights import prepare_weights

pytestmark = pytest.mark.usefixtures("one_thread")
BATCH = random_batch([(20, 4), (5, 9), (30, 6)], seed=0, shared=4)


@pytest.fixture
def feed_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed-forward layers of tiny models are what is large."""
    monkeypatch.setattr(fp8, "LARGE", 32 * 64)


def keep(kept: list[torch.Tensor], tensor: torch.Tensor) -> torch.Tensor:
    """Note what the backward pass will need."""
    kept.append(tensor)
    return tensor


def layer_of(*shape: int) -> tuple[Any, torch.Tensor]:
    """Return a layer in FP8, and the weight that its codes stand for."""
    # Channels of unlike sizes, as trained ones are.
    weight = torch.randn(*shape) * torch.logspace(-3, 1, shape[0])[:, None]
    layer: Any = fp8._linear_fp8()(weight)
    return layer, layer.codes.float() * layer.scales


def test_each_row_is_rounded_to_three_bits_of_its_own() -> None:
    torch.manual_seed(0)
    values = torch.randn(64, 4096) * torch.logspace(-8, 8, 64)[:, None]
    codes, scales = fp8.quantise(values)
    assert (codes.dtype, scales.shape) == (torch.float8_e4m3fn, (64, 1))
    rounded = codes.float() * scales
    near = values.abs() > values.abs().amax(-1, keepdim=True) / 448 / 64
    assert ((rounded - values).abs() / values.abs())[near].max() <= 2**-4
    assert relative(rounded, values) == pytest.approx(fp8._ROUNDING, rel=0.2)
    assert torch.equal(fp8.quantise(torch.zeros(2, 16))[0].float(), torch.zeros(2, 16))
    assert fp8.quantise(values.T)[0].is_contiguous()
    # What is broken is not made whole.
    assert fp8.quantise(torch.tensor([[1.0, math.nan], [math.inf, 1.0]]))[0].float().isnan().any(-1).all()


def test_products_and_gradients_are_those_of_the_weight_that_the_codes_stand_for() -> None:
    torch.manual_seed(0)
    layer, weight = layer_of(48, 80)
    inputs = torch.randn(2, 7, 80, requires_grad=True)
    output = layer(inputs)
    codes, scales = fp8.quantise(inputs.detach().flatten(0, 1))
    assert relative(output.detach().flatten(0, 1), (codes.float() * scales) @ weight.T) < 1e-6
    # Stored the other way round, as a product's own gradient may be.
    gradient = torch.randn(48, 7, 2).transpose(0, 2)
    output.backward(gradient)
    assert inputs.grad is not None
    # The gradient alone is rounded, and the weight not a second time.
    assert relative(inputs.grad, gradient @ weight) < 1.2 * fp8._ROUNDING
    codes, scales = fp8.quantise((gradient * layer.scales.T).flatten(0, 1))
    assert relative(inputs.grad.flatten(0, 1), (codes.float() @ layer.codes.float()) * scales) < 1e-6
    assert layer.codes.nbytes == 48 * 80
    assert not list(layer.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:.*Function.* should not be instantiated:DeprecationWarning")
# Inductor imports what torch itself has deprecated.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_the_compiler_makes_one_graph_of_it_that_keeps_the_weight_once() -> None:
    torch.manual_seed(0)
    (gate, _), (down, _) = layer_of(96, 64), layer_of(64, 96)

    def block(inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = down(torch.nn.functional.gelu(gate(inputs * inputs.pow(2).mean(-1, keepdim=True))))
        return result

    torch._dynamo.reset()
    # Which keeps what other tests have counted.
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(block, fullgraph=True, options={"shape_padding": False, "pattern_matcher": False})
    for tokens in (96, 130, 40):
        inputs = [torch.randn(tokens, 64).requires_grad_()]
        inputs.append(inputs[0].detach().clone().requires_grad_())
        torch._dynamo.maybe_mark_dynamic(inputs[0], 0)
        kept: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(partial(keep, kept), lambda one: one):
            output = compiled(inputs[0])
        expected = block(inputs[1])
        # A sum in another order may round a code the other way.
        assert relative(output.detach(), expected.detach()) < 5e-3
        for one in (output, expected):
            one.sin().sum().backward()
        assert relative(inputs[0].grad, inputs[1].grad) < 5e-3  # type: ignore[arg-type]
        weights = {one.data_ptr() for one in kept if one.dtype == torch.float8_e4m3fn}
        assert weights == {gate.codes.data_ptr(), down.codes.data_ptr()}
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.usefixtures("feed_forward")
# Random weights of ten layers carry any rounding far.
@pytest.mark.parametrize(("kind", "apart"), [("gemma3", 0.2), ("gemma4", 0.9)])
def test_large_projections_change_within_what_rounding_explains(kind: str, apart: float) -> None:
    model = tiny_model(kind, torch.float32)
    trim = CompletionTrim(model)
    expected = trim(BATCH)
    before = gradients(model, expected)
    loss, error = fp8.use_fp8(trim, model, BATCH)
    assert model.training
    assert 0.01 < error < 0.2
    assert loss == pytest.approx(trim(BATCH).item(), rel=1e-6)
    assert loss == pytest.approx(expected.item(), rel=0.02)
    found = gradients(model, trim(BATCH))
    assert 0.01 < relative(found, before) < apart
    layers: Any = text_model(model).layers
    in_fp8 = {name.split(".", 1)[1] for name, module in layers.named_modules() if hasattr(module, "codes")}
    # Gemma 4's full layers have wider queries.
    assert in_fp8 - {f"self_attn.{part}_proj.base_layer" for part in "qo"} == {
        f"mlp.{part}_proj.base_layer" for part in ("gate", "up", "down")
    }


@pytest.mark.usefixtures("feed_forward")
@pytest.mark.parametrize("low_memory", [False, True])
def test_weights_in_4_bits_become_fp8_packed_or_not(low_memory: bool, tiny_base: Path) -> None:
    settings = TrainSettings(backend="peft", load_in_4bit=True)
    found = []
    for in_fp8 in (False, True):
        model, _ = load_for_training(tiny_base, settings)
        prepare_weights(model, low_memory=low_memory)
        trim = CompletionTrim(model)
        if in_fp8:
            fp8.use_fp8(trim, model, BATCH)
        with torch.no_grad():
            found.append(trim(BATCH).item())
    assert found[0] != found[1]
    assert found[1] == pytest.approx(found[0], rel=0.02)


@pytest.mark.usefixtures("feed_forward")
# Tracing looks at the gradients of what has none, and makes an instance of a function's class.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:.*Function.* should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("kind", SMALLEST_FIRST)
def test_layers_in_fp8_compile(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(kind, torch.float32)
    fp8.quantise_weights(model)
    expected = gradients(model, CompletionTrim(model)(BATCH))
    trace_instead_of_compiling(monkeypatch)
    trim = CompletionTrim(model, kept_share=lambda _: 0.5, compiled=True)
    assert relative(gradients(model, trim(BATCH)), expected) < 1e-2
    assert trim.compiled


@pytest.mark.slow
@pytest.mark.usefixtures("feed_forward")
@pytest.mark.parametrize("kind", KINDS)
def test_fifty_steps_differ_less_than_those_of_two_seeds(kind: str) -> None:
    model = tiny_model(kind, torch.float32, dropout=0.05)
    start = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    batches = [random_batch([(20, 4), (5, 9)], step % 10, shared=4) for step in range(50)]
    trim, settings = CompletionTrim(model), TrainSettings(learning_rate=2e-3)
    losses = {f"whole_{seed}": train(model, start, batches, trim, settings, seed) for seed in (0, 1)}
    fp8.quantise_weights(model)
    losses |= {f"fp8_{seed}": train(model, start, batches, trim, settings, seed) for seed in (0, 1)}
    for curve in losses.values():
        assert sum(curve[-10:]) < 0.95 * sum(curve[:10])
    found = compare(losses)
    assert 0 < found["apart_mean"] < found["seeds_apart_mean"]


@pytest.mark.fault
@pytest.mark.usefixtures("feed_forward")
def test_a_card_that_multiplies_wrongly_is_found_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, multiply = tiny_model("gemma3", torch.float32), fp8.multiply
    monkeypatch.setattr(fp8, "multiply", lambda *given: multiply(given[0].roll(1, 1), *given[1:]))
    with pytest.raises(TrainError, match=r"off those without, and rounding explains 0\.25; leave train\.fp8"):
        fp8.use_fp8(CompletionTrim(model), model, BATCH)


@pytest.mark.fault
def test_what_gains_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gemma3", torch.float32)
    trim = CompletionTrim(model)
    with pytest.raises(TrainError, match="no projection of this model has 16,777,216 weights"):
        fp8.use_fp8(trim, model, BATCH)
    assert model.training
    for others in ({"compile": False}, {"low_memory": True}, {"completion_trim": False}):
        with pytest.raises(ConfigError, match=r"fp8 needs train\.completion_trim and train\.compile"):
            TrainSettings(fp8=True, **others)
    settings = TrainSettings(backend="peft", load_in_4bit=False, fp8=True)
    with pytest.raises(TrainError, match=r"needs an NVIDIA GPU of compute capability 8\.9"):
        check_backend(settings)
    ones = torch.ones
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(TrainError, match="gains nothing without compiling"):
        fp8.check_compiled(trim)
    # An older card: torch's message.
    monkeypatch.setattr(torch, "ones", lambda *size, **_: ones(*size))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))

    def refuse(*_: Any) -> None:
        raise RuntimeError("torch._scaled_mm is only supported on CUDA devices with compute capability >= 9.0\nat x")

    monkeypatch.setattr(fp8, "multiply", refuse)
    with pytest.raises(
        TrainError, match=r"NVIDIA A100 \(8\.0\) does not: torch\._scaled_mm is only .* >= 9\.0; leave it"
    ):
        fp8.check_fp8()
