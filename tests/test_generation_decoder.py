from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from training_models import KINDS, SMALLEST_FIRST, VOCABULARY, tiny_model, trace_instead_of_compiling

from titlegen.generation import decoder as decoding
from titlegen.generation import writing
from titlegen.generation.cache import Columns, KeyCache
from titlegen.generation.decoder import TitleDecoder
from titlegen.generation.writing import Writing
from titlegen.train import trim
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
    for lookup in (0, 1, 3):
        decoder = TitleDecoder(model, lookup)
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


@pytest.mark.parametrize("kind", SMALLEST_FIRST)
@pytest.mark.parametrize("lookup", [0, 2])
def test_titles_are_drawn_as_often_as_they_are_likely(
    kind: str, lookup: int, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, draws, temperature = model_of(kind, torch.float64), 4000, 0.2
    # Some drafts are right and some are not.
    monkeypatch.setattr(writing, "look_up", lambda history, *_: torch.randint(VOCABULARY, (len(history), lookup)) // 60)
    torch.manual_seed(0)
    rows = torch.tensor(TitleDecoder(model, lookup).generate([prompts[0]] * draws, {-1}, 2, temperature))
    likely = int(rows[:, 0].mode().values)
    with torch.no_grad():
        logits = model(torch.tensor([[*prompts[0], likely]]), use_cache=False).logits[0, -2:]
    for expected, drawn in zip(logits, (rows[:, 0], rows[rows[:, 0] == likely, 1]), strict=True):
        shares = torch.bincount(drawn, minlength=VOCABULARY) / len(drawn)
        chances = (expected / temperature).softmax(-1)
        assert 0.02 < float(chances.max()) < 0.98
        # Five standard deviations of a share.
        assert bool(((shares - chances).abs() <= 5 * (chances / len(drawn)).sqrt() + 1 / len(drawn)).all())


@pytest.mark.parametrize(("number", "expected"), [(0.0, 1), (0.4, 1), (0.6, 2), (1.0, 2)])
def test_no_token_without_a_share_is_drawn(number: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is multiplied may round up to the whole.
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.full(shape, number))
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    assert writing.choose(logits, 0.3).tolist() == [expected]


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


def columns_read(monkeypatch: pytest.MonkeyPatch) -> list[list[list[int]]]:
    """Return a list that gets the columns of each pass, row by row."""
    passes: list[list[list[int]]] = []
    original = KeyCache.columns

    def watch(cached: KeyCache, starts: torch.Tensor, columns: torch.Tensor) -> dict[int | None, Columns]:
        passes.append(columns.tolist())
        return original(cached, starts, columns)

    monkeypatch.setattr(KeyCache, "columns", watch)
    return passes


def test_it_ends_when_every_row_has_ended(prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gemma3", torch.float32)
    first = likeliest(model, prompts[0], 3)
    passes = columns_read(monkeypatch)
    TitleDecoder(model, 0).generate(prompts[:1], {first[2]}, 1000)
    assert len(passes) == 2


def told(titles: Sequence[Sequence[int]], wrong: int) -> Callable[..., torch.Tensor]:
    """Return drafts that are right but for every token whose place in the title ``wrong`` divides."""

    def look_up(history: torch.Tensor, _: torch.Tensor, ends: torch.Tensor, number: int) -> torch.Tensor:
        longest = history.shape[1] - (len(titles[0]) + number + 1)
        places = (ends - longest)[:, None] + torch.arange(number)
        padded = torch.tensor([[*title, *[0] * number] for title in titles])
        drafts = padded.gather(1, places.clamp(max=padded.shape[1] - 1))
        return torch.where(places % wrong == 0, drafts + 1, drafts)

    return look_up


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [1, 2, 3, 100])
def test_drafts_decide_how_many_passes_there_are_and_nothing_else(
    kind: str, wrong: int, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = TitleDecoder(model_of(kind, torch.float64), 3)
    expected = TitleDecoder(model_of(kind, torch.float64), 0).generate(prompts, {-1}, TOKENS)
    monkeypatch.setattr(writing, "look_up", told(expected, wrong))
    passes = columns_read(monkeypatch)
    assert decoder.generate(prompts, {-1}, TOKENS) == expected
    assert len(passes) == {1: 11, 2: 6, 3: 4, 100: 3}[wrong]
    # A stop token in the middle of right drafts ends a title there.
    for place in (1, 2, 3, 5):
        stop = expected[3][place]
        ends = [row.index(stop) if stop in row else TOKENS for row in expected]
        cut = [row[:end] for row, end in zip(expected, ends, strict=True)]
        assert decoder.generate(prompts, {stop}, TOKENS) == cut


@pytest.mark.fault
def test_a_draft_that_nobody_checks_shows(prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gemma4", torch.float64)
    expected = TitleDecoder(model, 0).generate(prompts, {-1}, TOKENS)
    monkeypatch.setattr(writing, "look_up", told(expected, 2))
    monkeypatch.setattr(writing, "count_right", lambda drafts, _: torch.full((len(drafts),), drafts.shape[1]))
    assert TitleDecoder(model, 3).generate(prompts, {-1}, TOKENS) != expected


def test_titles_that_do_not_copy_are_written_token_by_token(
    prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = columns_read(monkeypatch)
    model = model_of("gemma4", torch.float64)
    monkeypatch.setattr(writing, "look_up", lambda history, *_: torch.full((len(history), 3), VOCABULARY - 1))
    TitleDecoder(model, 3).generate(prompts, {-1}, TOKENS)
    assert [len(columns[0]) for columns in passes] == [4] * writing._TRIAL + [1] * (TOKENS - 1 - writing._TRIAL)


def test_it_is_told_of_every_token_that_all_titles_have(prompts: list[list[int]]) -> None:
    for lookup in (0, 3):
        decoder, calls = TitleDecoder(model_of("gemma3n", torch.float64), lookup), []
        decoder.write(decoder.read(prompts), {-1}, TOKENS, on_token=lambda: calls.append(1))  # noqa: B023 - called at once
        assert len(calls) == TOKENS - 1


# The compiler itself uses what torch deprecates.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "real"),
    [
        ("gemma3", False),
        pytest.param("gemma3", True, marks=pytest.mark.slow),
        pytest.param("gemma3n", True, marks=pytest.mark.heavy),
        pytest.param("gemma4", True, marks=pytest.mark.heavy),
    ],
)
def test_compiled_titles_are_the_same(
    kind: str, real: bool, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(kind, torch.float32)
    batches = [(prompts, 0), (prompts[:1], 0), (prompts[::-1], 3), (prompts[:3], 0)]
    expected = [TitleDecoder(model, lookup).generate(batch, {-1}, TOKENS) for batch, lookup in batches]
    if not real:
        trace_instead_of_compiling(monkeypatch)
    for (batch, lookup), titles in zip(batches, expected, strict=True):
        decoder = TitleDecoder(model, lookup, compile_after=0)
        assert decoder.generate(batch, {-1}, TOKENS) == titles
        assert decoder._trim.compiled
        # Every half of a layer, and what stands around them; one title's first token goes through them as it is.
        halves = {"read", "read_keys", "write"} | ({"read_query"} if len(batch) > 1 else set())
        assert decoder._trim._compiled.keys() >= halves | {"embed", "final_hidden"}


def test_it_compiles_once_its_prompts_are_long_enough_together(
    prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trace_instead_of_compiling(monkeypatch)
    model, tokens = model_of("gemma3", torch.float32), len(prompts[0])
    decoder = TitleDecoder(model, compile_after=3 * tokens)
    recorder = Recorder(monkeypatch, traces=False)
    found = []
    for _ in range(4):
        titles = decoder.generate(prompts[:1], {-1}, TOKENS)
        found.append((decoder._trim.compiled, recorder.recorded))
    # What was recorded before is recorded anew.
    assert found == [(False, 1), (False, 1), (True, 2), (True, 2)]
    assert titles == TitleDecoder(model).generate(prompts[:1], {-1}, TOKENS)
    never = TitleDecoder(model)
    never.generate(prompts, {-1}, TOKENS)
    assert not never._trim.compiled


@pytest.mark.fault
def test_what_the_compiler_refuses_is_run_as_it_is(
    prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model("gemma3", torch.float32).eval()
    expected = TitleDecoder(model).generate(prompts, {-1}, TOKENS)
    activation = model.get_base_model().model.layers[0].mlp.act_fn
    activation.forward = torch.compiler.disable(activation.forward)
    trace_instead_of_compiling(monkeypatch)
    reading = TitleDecoder(model, compile_after=0)
    assert reading.generate(prompts, {-1}, TOKENS) == expected
    # The first to be refused may as well be a pass that writes.
    writing_alone = TitleDecoder(model)
    read = writing_alone.read(prompts)
    writing_alone._trim.compiled = True
    assert writing_alone.write(read, {-1}, TOKENS) == expected
    for decoder in (reading, writing_alone):
        assert not decoder._trim.compiled
    assert caplog.text.count("titles go on without compiling") == 2


@pytest.mark.fault
def test_more_kinds_of_layers_than_the_compiler_keeps_are_no_hindrance(
    prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trace_instead_of_compiling(monkeypatch)
    torch.compiler.reset()
    monkeypatch.setattr(trim, "_MOST_GRAPHS", 0)
    compiled = []
    with torch._dynamo.config.patch(recompile_limit=1):
        for dtype in (torch.float32, torch.float64):
            decoder = TitleDecoder(model_of("gemma3", dtype), compile_after=0)
            expected = TitleDecoder(model_of("gemma3", dtype)).generate(prompts, {-1}, TOKENS)
            assert decoder.generate(prompts, {-1}, TOKENS) == expected
            compiled.append(decoder._trim.compiled)
    assert compiled == [True, False]
    assert "titles go on without compiling" in caplog.text
    torch.compiler.reset()


def test_tokens_are_looked_up_where_a_gpu_writes_few_titles() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert [decoding.default_lookup(cuda, rows) > 0 for rows in (1, 8, 64)] == [True, True, False]
    assert decoding.default_lookup(cpu, 1) == 0


class Recorder:
    """Records the operations of a pass, with every number that is no tensor as it was then, as a CUDA graph does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, traces: bool = True) -> None:
        self.traces = traces
        self.recorded = self.replayed = 0
        monkeypatch.setattr(decoding, "can_record", lambda _: True)
        # A bound method would not be given the titles.
        monkeypatch.setattr(Writing, "_record", lambda titles, lookup: self.record(titles, lookup))  # noqa: PLW0108

    def record(self, titles: Writing, lookup: int) -> Callable[[], object]:
        self.recorded += 1
        if not self.traces:
            return partial(titles._advance, lookup)
        state = [part for part in vars(titles).values() if isinstance(part, torch.Tensor)]
        before = [part.clone() for part in state]

        def run(unused: torch.Tensor) -> torch.Tensor:
            titles._advance(lookup)
            return unused

        operations = make_fx(run)(torch.zeros(1))
        # Recording on a GPU runs nothing.
        for part, old in zip(state, before, strict=True):
            part.copy_(old)

        def replay() -> None:
            self.replayed += 1
            operations(torch.zeros(1))

        return replay


@pytest.mark.parametrize("kind", SMALLEST_FIRST)
def test_one_recorded_pass_serves_for_all_and_for_later_calls(
    kind: str, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_WORTH", 0.0)
    decoder = TitleDecoder(model_of(kind, torch.float64), 3)
    batches = [prompts, [[*prompt, 17] for prompt in prompts[::-1]], prompts[:5]]
    expected = [decoder.generate(batch, {1}, TOKENS) for batch in batches]
    recorder = Recorder(monkeypatch)
    # Eight rows of 64 tokens each, so that all three are of one shape; twice, so that nothing of another is left.
    assert [decoder.generate(batch, {1}, TOKENS) for batch in (*batches, *batches)] == expected * 2
    assert recorder.recorded == 1
    assert recorder.replayed > 3 * len(batches)


def test_each_shape_has_a_recording_and_few_are_kept(prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = TitleDecoder(model_of("gemma3", torch.float64), 3)
    expected = decoder.generate(prompts, {1}, TOKENS)
    recorder = Recorder(monkeypatch, traces=False)
    monkeypatch.setattr(writing, "_WORTH", 0.0)
    assert decoder.generate(prompts[:1], {1}, TOKENS) == expected[:1]
    assert decoder.generate(prompts, {1}, TOKENS) == expected
    assert decoder.generate(prompts[1:], {1}, TOKENS) == expected[1:]
    assert recorder.recorded == 2
    for tokens in range(4, 9):
        decoder.generate(prompts, {1}, tokens)
    assert len(decoder._kept) == decoding._KEPT
    assert decoder.generate(prompts, {1}, TOKENS) == expected
    assert recorder.recorded == 2 + 5 + 1
    decoder.forget()
    assert not decoder._kept


@pytest.mark.fault
def test_a_number_of_the_pass_that_is_no_tensor_shows(
    prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = TitleDecoder(model_of("gemma3n", torch.float64), 0)
    expected = decoder.generate(prompts[:1], {1}, TOKENS)
    steps: list[int] = []

    def columns(cached: KeyCache, starts: torch.Tensor, _: torch.Tensor) -> dict[int | None, Columns]:
        steps.append(len(steps))
        return original(cached, starts, torch.tensor([[cached.longest + steps[-1]]]))

    original = KeyCache.columns
    monkeypatch.setattr(KeyCache, "columns", columns)
    assert decoder.generate(prompts[:1], {1}, TOKENS) == expected
    steps.clear()
    Recorder(monkeypatch)
    assert decoder.generate(prompts[:1], {1}, TOKENS) != expected


@pytest.mark.fault
@pytest.mark.parametrize("fault", ["window", "padding", "neighbour"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_cache_shows(kind: str, fault: str, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(kind, torch.float64)
    decoder = TitleDecoder(model, 0)
    sound = decoder.generate(prompts, {1}, TOKENS)
    columns, attend = KeyCache.columns, KeyCache.attend

    def broken(*rest: Any) -> dict[int | None, Columns]:
        found = {}
        for window, (places, hidden) in columns(*rest).items():
            # One token too old is seen, and the newest is not; or everything is.
            moved = hidden.roll(-(window is not None), -1) if fault == "window" else torch.zeros_like(hidden)
            found[window] = Columns(places, moved)
        return found

    if fault in {"window", "padding"}:
        monkeypatch.setattr(KeyCache, "columns", broken)
    else:
        monkeypatch.setattr(KeyCache, "attend", lambda *rest: attend(*rest).roll(1, 0))
    assert decoder.generate(prompts, {1}, TOKENS) != sound
