"""Large frozen projections in FP8: the products are torch's own, which run on a CPU, too."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fp8_error
import pytest
import torch
from gpu_curves import compare, train
from random_e4b import TINY
from training_models import (
    KINDS,
    SMALLEST_FIRST,
    gradients,
    random_batch,
    relative,
    tiny_model,
    trace_instead_of_compiling,
)
from transformers import Gemma3nTextConfig

from titlegen.errors import ConfigError, TrainError
from titlegen.settings import TrainSettings
from titlegen.train import fp8, fp8_check
from titlegen.train.backends import check_backend, load_for_training
from titlegen.train.fp8_check import use_fp8
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
    assert relative(rounded, values) == pytest.approx(fp8.ROUNDING, rel=0.2)
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
    assert relative(inputs.grad, gradient @ weight) < 1.2 * fp8.ROUNDING
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
@pytest.mark.parametrize(("kind", "apart"), [("gemma3", 0.2), ("gemma3n", 0.9), ("gemma4", 0.9)])
def test_large_projections_change_by_what_rounding_explains(kind: str, apart: float) -> None:
    model = tiny_model(kind, torch.float32)
    trim = CompletionTrim(model)
    expected = trim(BATCH)
    before = gradients(model, expected)
    drawn = torch.get_rng_state()
    found = use_fp8(trim, model, BATCH)
    # A training goes on with the same numbers.
    assert torch.equal(torch.get_rng_state(), drawn)
    assert model.training
    assert 0.01 < found.error < 0.3
    assert found.explained == pytest.approx(found.error, rel=0.3)
    assert found.loss == pytest.approx(trim(BATCH).item(), rel=1e-6)
    assert found.loss == pytest.approx(expected.item(), rel=0.02)
    assert 0.01 < relative(gradients(model, trim(BATCH)), before) < apart
    layers: Any = text_model(model).layers
    quantised = {name.split(".", 1)[1] for name, module in layers.named_modules() if hasattr(module, "codes")}
    # Gemma 4's full layers have wider queries.
    assert quantised - {f"self_attn.{part}_proj.base_layer" for part in "qo"} == {
        f"mlp.{part}_proj.base_layer" for part in ("gate", "up", "down")
    }


@pytest.mark.usefixtures("feed_forward")
def test_what_a_sparse_gate_makes_of_rounding_is_explained() -> None:
    found = []
    for keep_threshold in (True, False):
        model = tiny_model("gemma3n", torch.float32)
        trim = CompletionTrim(model)
        if not keep_threshold:
            trim.thresholds = [None] * len(trim.thresholds)
        found.append(use_fp8(trim, model, BATCH))
    sparse, whole = found
    assert sparse.error > 1.5 * whole.error
    assert sparse.explained > 1.5 * whole.explained


@pytest.mark.usefixtures("feed_forward")
def test_errors_of_a_random_e4b_are_measured_with_sparse_gates_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Gemma3nTextConfig(**TINY)
    monkeypatch.setattr(fp8_error, "text_config", lambda *_, **__: config)
    monkeypatch.setattr("sys.argv", ["fp8_error.py"])
    monkeypatch.setenv("TITLEGEN_OUTPUT", str(tmp_path))
    # The script sets it.
    monkeypatch.setattr(fp8, "multiply", fp8.multiply)
    fp8_error.main()
    assert torch.get_default_dtype() == torch.float32
    metrics = json.loads((tmp_path / "benchmarks" / "fp8_error_gemma3n.json").read_bytes())["metrics"]
    assert len(metrics) == 6
    for gates in ("", "_dense"):
        assert metrics[f"explained{gates}"] == pytest.approx(metrics[f"error{gates}"], rel=0.3)
        assert 0.01 < metrics[f"error_first_layer{gates}"] < metrics[f"error{gates}"]


def test_errors_weigh_twice_behind_a_sparse_gate() -> None:
    torch.manual_seed(0)
    gate = torch.randn(64, 16384, dtype=torch.float64)
    threshold = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(0.95))

    def left(values: torch.Tensor) -> torch.Tensor:
        return (values - values.mean(-1, keepdim=True) - values.std(-1, keepdim=True) * threshold).relu()

    off = gate + 0.01 * torch.randn_like(gate)
    # The root of what is above the threshold, squared, is 0.559.
    assert relative(left(off), left(gate)) == pytest.approx(0.01 / 0.559, rel=0.02)


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
            use_fp8(trim, model, BATCH)
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


def break_one(monkeypatch: pytest.MonkeyPatch, broken: Any, change: Callable[[Any], None]) -> None:
    """Let one layer of all come out wrong, where it is checked and where it stays."""
    whole = fp8.in_fp8

    def made(linear: Any) -> Any:
        layer: Any = whole(linear)
        if linear is broken:
            change(layer)
        return layer

    for module in (fp8, fp8_check):
        monkeypatch.setattr(module, "in_fp8", made)


def scaled(layer: Any, by: float) -> None:
    layer.scales *= by


def scales_of_others(layer: Any) -> None:
    layer.scales = layer.scales * torch.logspace(-0.1, 0.1, len(layer.scales))[:, None]


def turned(layer: Any) -> None:
    layer.codes = layer.codes.t().contiguous().view(layer.codes.shape)


def of_another(layer: Any, other: Any) -> None:
    layer.codes, layer.scales = fp8.quantise(other.weight.data)


@pytest.mark.fault
@pytest.mark.usefixtures("feed_forward")
@pytest.mark.parametrize("kind", ["gemma3", "gemma3n"])
@pytest.mark.parametrize("part", ["gate_proj", "up_proj", "down_proj"])
@pytest.mark.parametrize("fault", ["scale", "scales", "turned", "swapped"])
# In one product of all, the first and the last.
def test_one_wrong_product_is_found_and_named(
    kind: str, part: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = 3 if kind == "gemma3" else 9
    for index in (0, last):
        model = tiny_model(kind, torch.float32)
        mlp = text_model(model).layers[index].mlp
        other = text_model(model).layers[last - index].mlp
        changes: dict[str, Callable[[Any], None]] = {
            "scale": partial(scaled, by=1.1),
            "scales": scales_of_others,
            "turned": turned,
            "swapped": partial(of_another, other=getattr(other, part).base_layer),
        }
        with monkeypatch.context() as patch:
            break_one(patch, getattr(mlp, part).base_layer, changes[fault])
            expected = rf"the product in layer {index}: mlp\.{part} is [0-9.]+ times as far off as rounding to FP8 is;"
            with pytest.raises(TrainError, match=expected):
                use_fp8(CompletionTrim(model), model, BATCH)
        assert model.training


@pytest.mark.fault
@pytest.mark.usefixtures("feed_forward")
def test_a_card_that_multiplies_wrongly_is_found_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, multiply = tiny_model("gemma3", torch.float32), fp8.multiply
    monkeypatch.setattr(fp8, "multiply", lambda *given: multiply(given[0].roll(1, 1), *given[1:]))
    with pytest.raises(
        TrainError, match=r"layer 0: mlp\.gate_proj is [0-9.]+ times as far off as rounding to FP8 is; lea"
    ):
        use_fp8(CompletionTrim(model), model, BATCH)


@pytest.mark.fault
@pytest.mark.usefixtures("feed_forward")
@pytest.mark.parametrize("kind", KINDS)
def test_right_products_in_the_wrong_places_are_found(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(kind, torch.float32)
    quantise = fp8_check.quantise_weights

    def misplace(model: Any) -> None:
        quantise(model)
        for layer in text_model(model).layers:
            gate, up = layer.mlp.gate_proj, layer.mlp.up_proj
            gate.base_layer, up.base_layer = up.base_layer, gate.base_layer

    monkeypatch.setattr(fp8_check, "quantise_weights", misplace)
    with pytest.raises(TrainError, match=r"off those without, and rounding explains 0\.[1-7]\d?; leave train\.fp8"):
        use_fp8(CompletionTrim(model), model, BATCH)


@pytest.mark.fault
def test_what_gains_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gemma3", torch.float32)
    trim = CompletionTrim(model)
    with pytest.raises(TrainError, match="no projection of this model has 16,777,216 weights"):
        use_fp8(trim, model, BATCH)
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
