import gc
import sys
import weakref
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.exc import Unsupported
from torch._inductor import config as inductor_config
from torch.utils._pytree import tree_leaves
from training_models import (
    KINDS,
    SMALLEST_FIRST,
    gradients,
    keep_double,
    random_batch,
    relative,
    tiny_model,
    trace_instead_of_compiling,
)

from titlegen.errors import TrainError
from titlegen.families.gemma3n_decoder import Gemma3nDecoder
from titlegen.families.gemma4_decoder import Gemma4Decoder
from titlegen.train.loss import check_trim, completion_loss
from titlegen.train.packed import Packed, pack
from titlegen.train.trim import CompletionTrim, can_trim, text_model

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = st.lists(st.tuples(st.integers(1, 24), st.integers(1, 12)), min_size=1, max_size=5)


@cache
def model_of(kind: str, dtype: torch.dtype) -> torch.nn.Module:
    return tiny_model(kind, dtype)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(
    rows=ROWS,
    seed=st.integers(0, 2**31),
    left=st.booleans(),
    shared=st.integers(0, 26),
    kept=st.sampled_from([0.0, 0.4, 1.0]),
)
def test_loss_and_gradients_equal_the_full_models(
    kind: str,
    rows: list[tuple[int, int]],
    seed: int,
    left: bool,
    shared: int,
    kept: float,
) -> None:
    model = model_of(kind, torch.float64)
    batch = random_batch(rows, seed, left=left, shared=shared)
    trim = CompletionTrim(model, kept_share=lambda _: kept)
    # The model rounds to float32 in its norms and its loss; without that both computations agree to float64.
    with pytest.MonkeyPatch.context() as patch:
        keep_double(patch)
        full, trimmed = completion_loss(model, batch), trim(batch)
        assert trimmed.item() == pytest.approx(full.item(), abs=1e-6)
        expected = gradients(model, full)
        assert relative(gradients(model, trimmed), expected) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(rows=ROWS, seed=st.integers(0, 2**31), shared=st.integers(0, 26))
def test_float32_agrees_to_rounding(kind: str, rows: list[tuple[int, int]], seed: int, shared: int) -> None:
    model = model_of(kind, torch.float32)
    batch = random_batch(rows, seed, shared=shared)
    trim = CompletionTrim(model)
    full, trimmed = completion_loss(model, batch), trim(batch)
    assert trimmed.item() == pytest.approx(full.item(), rel=2e-6)
    expected = gradients(model, full)
    assert relative(gradients(model, trimmed), expected) < 1e-4  # float32 rounding of ten layers


@pytest.mark.parametrize("kind", KINDS)
def test_packing_leaks_nothing_between_rows(kind: str) -> None:
    model = model_of(kind, torch.float64)
    rows = [(20, 4), (3, 9), (11, 2)]
    batch = random_batch(rows, 1)
    trim = CompletionTrim(model)
    with torch.no_grad():
        packed = pack(batch)
        together = trim.hidden(packed).split(packed.kept_rows.lengths)
        for i, (prompt, title) in enumerate(rows):
            alone = {key: value[i : i + 1, : prompt + title] for key, value in batch.items()}
            assert torch.allclose(trim.hidden(pack(alone)), together[i], atol=1e-6)


@pytest.mark.parametrize("shared", [1, 7, 10])
def test_what_prompts_begin_with_is_computed_once(shared: int) -> None:
    # The last token of a prompt predicts its title, so it is the row's own even if the first row has it.
    rows = [(20, 4), (10, 9), (11, 2)]
    batch = random_batch(rows, 3, shared=shared)
    packed = pack(batch)
    assert packed.rows.lengths == (23, 18, 12)
    assert packed.own_rows.lengths == (23, 18 - min(shared, 9), 12 - min(shared, 10))
    assert len(packed.ids) == sum(packed.own_rows.lengths)
    whole = [row[: sum(length) - 1] for row, length in zip(batch["input_ids"], rows, strict=True)]
    assert torch.equal(packed.complete(packed.ids), torch.cat(whole))
    assert pack(random_batch(rows, 3)).places is None
    assert pack(random_batch(rows, 3, left=True, shared=shared)).places is None, "padded on the left"


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6)
@given(
    articles=st.lists(st.integers(1, 16), min_size=1, max_size=3),
    titles=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6)), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
    shared=st.integers(0, 18),
)
def test_titles_of_one_article_share_its_reading(
    kind: str, articles: list[int], titles: list[tuple[int, int]], seed: int, shared: int
) -> None:
    model = model_of(kind, torch.float64)
    chosen = [(which % len(articles), length) for which, length in titles]
    batch = random_batch([(articles[which], length) for which, length in chosen], seed, shared=shared)
    firsts = [next(i for i, other in enumerate(chosen) if other[0] == which) for which, _ in chosen]
    for row, first in enumerate(firsts):
        prompt = articles[chosen[row][0]]
        batch["input_ids"][row, :prompt] = batch["input_ids"][first, :prompt]
    packed = pack(batch, firsts)
    for row, first in enumerate(firsts):
        if row != first:
            assert packed.own_rows.lengths[row] == chosen[row][1], "the title, and the token that predicts its first"
    trim = CompletionTrim(model)
    with pytest.MonkeyPatch.context() as patch:
        keep_double(patch)
        full, trimmed = completion_loss(model, batch), trim({"packed": packed})
        assert trimmed.item() == pytest.approx(full.item(), abs=1e-6)
        assert relative(gradients(model, trimmed), gradients(model, full)) < 1e-5


@pytest.mark.parametrize("alike", [[0, 1, 1], [0, 2, 1], [2, 2, 2]])
def test_a_row_that_names_no_earlier_one_shares_with_none_before_it(alike: list[int]) -> None:
    packed = pack(random_batch([(9, 3)] * 3, 3, shared=9), alike)
    own = [row for row, named in enumerate(alike) if named >= row]
    assert own
    assert [packed.own_rows.lengths[row] for row in own] == [packed.rows.lengths[row] for row in own]
    assert all(packed.own_rows.lengths[row] < packed.rows.lengths[row] for row in {0, 1, 2} - {*own})


@pytest.mark.parametrize("shared", [0, 7])
def test_a_packed_batch_moves_as_a_whole(shared: int) -> None:
    packed = pack(random_batch([(20, 4), (10, 9)], 3, shared=shared))
    moved = packed.to("meta", non_blocking=True)
    assert moved.kept_rows.lengths == packed.kept_rows.lengths
    tensors = [moved.ids, moved.positions, moved.kept, moved.targets]
    tensors += [spans.bounds for spans in (moved.rows, moved.own_rows, moved.kept_rows)]
    assert (moved.places is not None) == bool(shared)
    tensors += [] if moved.places is None else [moved.places]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_a_batch_is_packed_once() -> None:
    model = model_of("gemma3n", torch.float64)
    batch = random_batch([(20, 4), (3, 9)], 5)
    packed = batch | {"packed": pack(batch)}
    assert CompletionTrim(model)(packed).item() == CompletionTrim(model)(batch).item()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("titlegen.train.trim.pack", None)
        CompletionTrim(model)(packed)


def test_a_micro_batch_is_its_share_of_the_whole_step() -> None:
    model = model_of("gemma3n", torch.float64)
    trim = CompletionTrim(model)
    rows = [(20, 4), (3, 9), (11, 2), (7, 7)]
    batch = random_batch(rows, 5)
    labels = sum(title for _, title in rows)
    halves = [{key: value[part] for key, value in batch.items()} for part in (slice(0, 2), slice(2, 4))]
    whole = gradients(model, trim(batch, labels))
    parts = gradients(model, trim(halves[0], labels) + trim(halves[1], labels))
    assert relative(parts, whole) < 1e-6


def test_dropout_is_applied_to_the_adapter() -> None:
    model = tiny_model("gemma3n", torch.float32, dropout=0.5)
    batch = random_batch([(20, 4)], 1)
    trim = CompletionTrim(model)
    assert trim(batch).item() != trim(batch).item()
    model.eval()
    assert trim(batch).item() == trim(batch).item()


def test_checkpointing_repeats_the_dropout_of_the_forward_pass() -> None:
    model = tiny_model("gemma3n", torch.float32, dropout=0.5)
    batch = random_batch([(20, 4), (5, 5)], 1)
    found = []
    for kept in (1.0, 0.5, 0.0):
        torch.manual_seed(3)
        shares = dict.fromkeys(range(100), kept)
        found.append(gradients(model, CompletionTrim(model, kept_share=shares.__getitem__)(batch)))
    assert relative(found[1], found[0]) < 1e-6
    assert relative(found[2], found[0]) < 1e-6


def test_many_titles_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gemma3", torch.float64)
    batch = random_batch([(4, 9), (4, 9)], 2)
    trim = CompletionTrim(model)
    whole = gradients(model, trim(batch))
    monkeypatch.setattr("titlegen.train.trim._HEAD_TOKENS", 5)
    assert relative(gradients(model, trim(batch)), whole) < 1e-6


def test_labels_before_masked_tokens_are_refused() -> None:
    batch = random_batch([(6, 4), (5, 5)], 1)
    batch["labels"][1, -2] = -100
    with pytest.raises(TrainError, match="row 1 of the batch has labels before masked tokens"):
        CompletionTrim(model_of("gemma3", torch.float64))(batch)


def test_the_self_check_passes_on_a_sound_trim() -> None:
    for kind, dtype in product(KINDS, (torch.float32, torch.float64)):
        model = model_of(kind, dtype)
        trimmed, full = check_trim(CompletionTrim(model), model, random_batch([(20, 4), (5, 7)], 1))
        assert trimmed == pytest.approx(full, rel=1e-5), (kind, dtype)
        assert model.training


def test_other_architectures_are_left_alone() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    assert not can_trim(LlamaForCausalLM(config))


@pytest.mark.fault
@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        *product(("gemma3n", "gemma4"), ("window", "scale", "position", "shared")),
        ("gemma3n", "stream"),
        ("gemma3n", "threshold"),
        ("gemma4", "layer scalar"),
        ("gemma4", "per-layer inputs"),
        ("gemma4", "whose keys"),
    ],
)
def test_the_self_check_catches_a_broken_trim(monkeypatch: pytest.MonkeyPatch, kind: str, fault: str) -> None:
    model = model_of(kind, torch.float32)
    trim = CompletionTrim(model)
    attend = __import__("titlegen.train.packed", fromlist=["attend"]).attend
    if fault == "window":
        broken = lambda *rest, window, scale: attend(*rest, window=None, scale=scale)  # noqa: E731, ARG005
        monkeypatch.setattr("titlegen.train.trim.attend", broken)
    elif fault == "scale":
        broken = lambda *rest, window, scale: attend(*rest, window=window, scale=scale * 2)  # noqa: E731
        monkeypatch.setattr("titlegen.train.trim.attend", broken)
    elif fault == "position":
        original = trim.angles
        monkeypatch.setattr(
            trim, "angles", lambda *rest: {k: (c.roll(1, 0), s.roll(1, 0)) for k, (c, s) in original(*rest).items()}
        )
    elif fault == "stream":
        write = Gemma3nDecoder.write
        monkeypatch.setattr(Gemma3nDecoder, "write", staticmethod(lambda *rest: write(*rest)[::-1]))
    elif fault == "threshold":
        monkeypatch.setattr(trim, "thresholds", [None] * 10)
    elif fault == "layer scalar":
        plain = Gemma4Decoder.write
        scaled = lambda layer, *rest: tuple(part / layer.layer_scalar for part in plain(layer, *rest))  # noqa: E731
        monkeypatch.setattr(Gemma4Decoder, "write", staticmethod(scaled))
    elif fault == "per-layer inputs":
        embed = Gemma4Decoder.embed
        monkeypatch.setattr(
            Gemma4Decoder, "embed", staticmethod(lambda *rest: (embed(*rest)[0], embed(*rest)[1].roll(1, 1)))
        )
    elif fault == "whose keys":
        # The first layer that has no keys of its own takes those of another kind of layer, or of an earlier one.
        monkeypatch.setattr(trim, "boundary", trim.boundary - 1)
    else:
        monkeypatch.setattr(Packed, "complete", lambda packed, part: part[packed.places.roll(4)])
    with pytest.raises(TrainError, match="differs from the full model's"):
        check_trim(trim, model, random_batch([(20, 4), (5, 7)], 1, shared=4))


# Tracing looks at the gradients of what has none.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("kept", [0.0, 1.0])
@pytest.mark.parametrize("kind", SMALLEST_FIRST)
def test_every_kind_of_layer_compiles(kind: str, kept: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(kind, torch.float64)
    batch = random_batch([(20, 4), (5, 3)], seed=0, shared=4)
    expected = gradients(model, CompletionTrim(model)(batch))
    trace_instead_of_compiling(monkeypatch)
    norm = type(model.get_base_model().model.norm)
    # As Unsloth does with the norms of some families.
    monkeypatch.setattr(norm, "forward", torch.compiler.disable(norm.forward))
    trim = CompletionTrim(model, kept_share=lambda _: kept, compiled=True)
    assert relative(gradients(model, trim(batch)), expected) < 1e-6
    assert trim.compiled


@pytest.mark.fault
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_layer_that_is_closed_to_the_compiler_is_run_as_it_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("gemma3", torch.float32)
    batch = random_batch([(9, 4), (5, 3)], seed=0)
    expected = gradients(model, CompletionTrim(model)(batch))
    activation = model.get_base_model().model.layers[0].mlp.act_fn
    # The first half of the layer compiles; recomputing must not mix.
    activation.forward = torch.compiler.disable(activation.forward)
    trace_instead_of_compiling(monkeypatch)
    trim = CompletionTrim(model, kept_share=lambda _: 0.0, compiled=True)
    escaped: list[Exception] = []
    original = torch.utils.checkpoint.checkpoint

    def checkpoint(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        def run(*given: Any) -> Any:
            try:
                return function(*given)
            except Unsupported as error:
                escaped.append(error)
                raise

        return original(run, *arguments, **options)

    monkeypatch.setattr("torch.utils.checkpoint.checkpoint", checkpoint)
    compute, handled = trim.hidden, []
    monkeypatch.setattr(trim, "hidden", lambda packed: handled.append(sys.exception()) or compute(packed))
    assert torch.equal(gradients(model, trim(batch)), expected)
    assert not trim.compiled
    assert "goes on without compiling" in caplog.text
    assert "disable" in caplog.text
    # torch 2.11 would save into the checkpoint that an error left what later layers keep.
    assert not escaped
    # While an error is handled, its traceback holds what the broken pass had computed.
    assert handled == [None, None]


@pytest.mark.fault
def test_an_error_of_the_compiler_while_recomputing_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    trim = CompletionTrim(tiny_model("gemma3", torch.float32), kept_share=lambda _: 0.0)
    loss = trim(random_batch([(9, 4), (5, 3)], seed=0))

    def refuse(*_: Any) -> Any:
        raise Unsupported("the real reason")

    monkeypatch.setattr(trim, "run", refuse)
    with pytest.raises(Unsupported, match="the real reason"):
        loss.backward()


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_what_is_recomputed_is_freed_at_once(kept: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gemma3n", torch.float32)
    trim = CompletionTrim(model, kept_share=lambda _: kept)
    made: list[Any] = []
    run = trim.run

    def note(*arguments: Any) -> Any:
        result = run(*arguments)
        made.extend(map(weakref.ref, tree_leaves(result)))
        return result

    monkeypatch.setattr(trim, "run", note)
    gc.collect()
    gc.disable()
    try:
        trim(random_batch([(9, 4), (5, 3)], seed=0)).backward()
        # Stopping a recomputation that has all it needs is an exception to torch, and those hold what they passed.
        assert len(made) > 2 * len(text_model(model).layers)
        assert not [tensor for tensor in made if tensor() is not None]
    finally:
        gc.enable()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_norms_that_unsloth_closes_to_the_compiler_are_no_hindrance(
    kept: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("gemma3", torch.float64)
    batch = random_batch([(20, 4), (5, 3)], seed=0)
    expected = gradients(model, CompletionTrim(model)(batch))
    for module in model.modules():
        if type(module).__name__ == "Gemma3RMSNorm":
            module.forward = torch.compiler.disable(module.forward)
    trace_instead_of_compiling(monkeypatch)
    trim = CompletionTrim(model, kept_share=lambda _: kept, compiled=True)
    assert relative(gradients(model, trim(batch)), expected) < 1e-6
    assert trim.compiled


@pytest.mark.fault
def test_a_machine_without_a_compiler_trains_as_it_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = tiny_model("gemma3", torch.float32)
    batch = random_batch([(9, 4), (5, 3)], seed=0)
    expected = gradients(model, CompletionTrim(model)(batch))
    # An empty cache, or what was compiled once would be found there.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(inductor_config.cpp, "cxx", ("no-such-compiler",))
    trim = CompletionTrim(model, kept_share=lambda _: 0.0, compiled=True)
    assert torch.equal(gradients(model, trim(batch)), expected)
    assert not trim.compiled
    assert "goes on without compiling" in caplog.text
