from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from training_models import KINDS, VOCABULARY, tiny_model

from titlegen.generation import decoder as decoding
from titlegen.generation.decoder import TitleDecoder, _Cache
from titlegen.train.trim import text_model

pytestmark = pytest.mark.usefixtures("one_thread")
TOKENS = 12


@cache
def model_of(kind: str, dtype: torch.dtype) -> torch.nn.Module:
    model: torch.nn.Module = tiny_model(kind, dtype).eval()
    return model


@pytest.fixture
def prompts() -> list[list[int]]:
    """Prompts shorter and longer than the window of 8 tokens, which begin alike."""
    generator = torch.Generator().manual_seed(0)
    return [[7, 9, *torch.randint(5, 300, (n,), generator=generator).tolist()] for n in (20, 3, 11, 31, 7, 1)]


def likeliest(model: torch.nn.Module, prompt: Sequence[int], number: int) -> list[int]:
    """Return the likeliest tokens, every one after a pass over all that stands before it."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(number):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_titles_are_the_full_models_likeliest_tokens(kind: str, dtype: torch.dtype, prompts: list[list[int]]) -> None:
    model = model_of(kind, dtype)
    expected = [likeliest(model, prompt, TOKENS) for prompt in prompts]
    decoder = TitleDecoder(model)
    assert decoder.generate(prompts, {-1}, TOKENS) == expected
    assert decoder.generate(prompts[:1], {-1}, 1) == [expected[0][:1]]
    # Each row ends where its own stop comes; the others go on.
    stop = expected[0][4]
    ends = [row.index(stop) if stop in row else TOKENS for row in expected]
    assert decoder.generate(prompts, {stop}, TOKENS) == [row[:end] for row, end in zip(expected, ends, strict=True)]


def test_tokens_without_a_per_layer_row_are_read_like_the_first(prompts: list[list[int]]) -> None:
    model = tiny_model("gemma3n", torch.float32).eval()
    inner: Any = text_model(model)
    decoder, table = TitleDecoder(model), inner.embed_tokens_per_layer
    with torch.no_grad():
        table.weight[VOCABULARY // 2 :] = table.weight[0]
    expected = decoder.generate(prompts, {1}, TOKENS)
    assert max(map(max, expected)) >= VOCABULARY // 2
    assert expected == [likeliest(model, prompt, TOKENS) for prompt in prompts]
    with torch.no_grad():
        table.weight = torch.nn.Parameter(table.weight[: VOCABULARY // 2].clone())
    inner.config.vocab_size_per_layer_input = VOCABULARY // 2
    assert decoder.generate(prompts, {1}, TOKENS) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_titles_are_drawn_as_often_as_they_are_likely(kind: str, prompts: list[list[int]]) -> None:
    model, draws, temperature = model_of(kind, torch.float64), 4000, 0.2
    torch.manual_seed(0)
    rows = torch.tensor(TitleDecoder(model).generate([prompts[0]] * draws, {-1}, 2, temperature))
    likely = int(rows[:, 0].mode().values)
    with torch.no_grad():
        logits = model(torch.tensor([[*prompts[0], likely]]), use_cache=False).logits[0, -2:]
    for expected, drawn in zip(logits, (rows[:, 0], rows[rows[:, 0] == likely, 1]), strict=True):
        shares = torch.bincount(drawn, minlength=VOCABULARY) / len(drawn)
        chances = (expected / temperature).softmax(-1)
        assert 0.02 < float(chances.max()) < 0.98
        # Five standard deviations of a share.
        assert bool(((shares - chances).abs() <= 5 * (chances / len(drawn)).sqrt() + 1 / len(drawn)).all())


def test_a_draw_can_be_repeated(prompts: list[list[int]]) -> None:
    decoder = TitleDecoder(model_of("gemma3n", torch.float32))
    titles = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        titles.append(decoder.generate(prompts, {1}, TOKENS, 1.0))
    assert titles[0] == titles[1] != titles[2]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_read_serves_any_number_of_titles(kind: str, prompts: list[list[int]]) -> None:
    decoder = TitleDecoder(model_of(kind, torch.float64))
    greedy = decoder.generate(prompts, {1}, TOKENS)
    torch.manual_seed(1)
    drawn = decoder.generate(prompts, {1}, TOKENS, 1.0)
    reading = decoder.read(prompts)
    for seed in (2, 1):
        torch.manual_seed(seed)
        assert (decoder.write(reading, {1}, TOKENS, 1.0) == drawn) == (seed == 1)
    assert decoder.write(reading, {1}, TOKENS) == greedy


def test_it_ends_when_every_row_has_ended(prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gemma3", torch.float32)
    steps: list[int] = []
    add = _Cache.add

    def count(cached: _Cache, *rest: Any) -> None:
        steps.append(int(cached.step))
        add(cached, *rest)

    monkeypatch.setattr(_Cache, "add", count)
    first = likeliest(model, prompts[0], 3)
    TitleDecoder(model).generate(prompts[:1], {first[2]}, 1000)
    assert max(steps) == 1


def record(function: Any, example: torch.Tensor) -> Any:
    """Return the operations of one step, with every number that is no tensor as it was then, as a CUDA graph does."""
    operations = make_fx(function)(example)
    # Recording on a GPU runs nothing.
    function.args[0].step.sub_(1)
    return operations


@pytest.mark.parametrize("kind", KINDS)
def test_one_recorded_step_serves_for_all(kind: str, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = TitleDecoder(model_of(kind, torch.float64))
    expected = decoder.generate(prompts, {1}, TOKENS)
    monkeypatch.setattr(decoding, "_can_record", lambda _: True)
    monkeypatch.setattr(decoding, "_recorded", record)
    assert decoder.generate(prompts, {1}, TOKENS) == expected


@pytest.mark.fault
def test_a_number_of_the_step_that_is_no_tensor_shows(
    prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = TitleDecoder(model_of("gemma3n", torch.float64))
    expected = decoder.generate(prompts, {1}, TOKENS)
    steps: list[int] = []

    def masks(cached: _Cache) -> dict[int | None, torch.Tensor]:
        steps.append(len(steps))
        moving, cached.step = cached.step, torch.tensor(steps[-1])
        found = original(cached)
        cached.step = moving
        return found

    original = _Cache.masks
    monkeypatch.setattr(_Cache, "masks", masks)
    assert decoder.generate(prompts, {1}, TOKENS) == expected
    steps.clear()
    monkeypatch.setattr(decoding, "_can_record", lambda _: True)
    monkeypatch.setattr(decoding, "_recorded", record)
    assert decoder.generate(prompts, {1}, TOKENS) != expected


@pytest.mark.fault
@pytest.mark.parametrize("fault", ["window", "padding", "neighbour"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_cache_shows(kind: str, fault: str, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(kind, torch.float64)
    decoder = TitleDecoder(model)
    sound = decoder.generate(prompts, {1}, TOKENS)
    masks, attend = _Cache.masks, _Cache.attend
    if fault == "window":
        # One token too old is seen, and the newest is not.
        monkeypatch.setattr(
            _Cache, "masks", lambda *rest: {key: m.roll(-(key is not None), -1) for key, m in masks(*rest).items()}
        )
    elif fault == "padding":
        monkeypatch.setattr(
            _Cache, "masks", lambda *rest: {key: torch.ones_like(mask) for key, mask in masks(*rest).items()}
        )
    else:
        monkeypatch.setattr(_Cache, "attend", lambda *rest: attend(*rest).roll(1, 0))
    assert decoder.generate(prompts, {1}, TOKENS) != sound
