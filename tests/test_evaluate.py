"""From a split and raw outputs to a report: generation, predictions files, gates, comparison, and the files."""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from corpus import corpus_rows
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import LCSseq

from titlegen.data import Example
from titlegen.errors import DataError, ExportError, TitlegenError
from titlegen.evaluate import (
    Report,
    compare,
    evaluate,
    generate_predictions,
    read_predictions,
    write_report,
)
from titlegen.evaluate.gates import judge, rows_to_decide
from titlegen.evaluate.highlight import mark_title, visible
from titlegen.evaluate.report import Mark
from titlegen.generation import Advance, Draft, TransformersGenerator, unwatched
from titlegen.generation.decoder import COMPILE_TOKENS, Prefill, TitleDecoder
from titlegen.metrics import baselines
from titlegen.metrics.ranking import Chosen
from titlegen.metrics.records import SCORES
from titlegen.metrics.title_warnings import Facts
from titlegen.metrics.tokens import tokenize
from titlegen.results import EvaluationReport, Score
from titlegen.settings import EvaluateSettings, GateSettings

EXAMPLES = [
    Example(f"a{number}", row["content"], row["title"], "corpus", row.get("date"))
    for number, row in enumerate(corpus_rows()[:24])
]
SETTINGS = EvaluateSettings(resamples=200)


class Rule:
    """A generator without a model: the first sentence. It counts its calls, and breaks down when told to."""

    def __init__(self, name: str = "lead", *, fails_after: int = 1000) -> None:
        self.name = name
        self.fails_after = fails_after
        self.batches: list[list[str]] = []

    def describe(self) -> dict[str, Any]:
        return {"generator": self.name, "decoding": {"strategy": "rule"}}

    def choose(self, contents: Sequence[str], advance: Advance = unwatched) -> list[Chosen]:
        if len(self.batches) == self.fails_after:
            raise KeyboardInterrupt
        self.batches.append(list(contents))
        advance(len(contents))
        leads = [baselines.lead(content) for content in contents]
        return [Chosen(lead, lead) for lead in leads]


LEADS = [baselines.lead(example.content) for example in EXAMPLES]


@pytest.fixture(scope="module")
def report() -> Report:
    predictions = [*LEADS[:-3], "", f"標題：{EXAMPLES[-2].title}", f"{EXAMPLES[-1].title}98765人"]
    return evaluate(EXAMPLES, predictions, SETTINGS, base_predictions=LEADS, generation={"generator": "rule"})


def write_lines(path: Path, records: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


# generation


def test_titles_come_back_in_the_order_of_the_examples(tmp_path: Path) -> None:
    rule = Rule()
    generation = generate_predictions(rule, EXAMPLES, tmp_path / "partial.jsonl", batch_size=5, prompt="")
    assert generation.predictions == LEADS
    lengths = [len(content) for batch in rule.batches for content in batch]
    assert lengths == sorted(lengths, reverse=True), "articles of like length share a batch"
    description: dict[str, Any] = generation.description
    assert description["generator"] == "lead"
    assert description["timing"]["titles"] == len(EXAMPLES)


@pytest.mark.fault
def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    partial = tmp_path / "work" / "partial.jsonl"
    with pytest.raises(KeyboardInterrupt):
        generate_predictions(Rule(fails_after=3), EXAMPLES, partial, batch_size=4, prompt="")
    with partial.open("a", encoding="utf-8") as file:
        file.write('{"id": "a1", "predic')  # the line that a power cut tore
    rule = Rule()
    assert generate_predictions(rule, EXAMPLES, partial, batch_size=4, prompt="").predictions == LEADS
    assert sum(map(len, rule.batches)) == len(EXAMPLES) - 12
    again = Rule()
    assert generate_predictions(again, EXAMPLES, partial, batch_size=4, prompt="").predictions == LEADS
    assert again.batches == []


@pytest.mark.fault
def test_a_batch_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    partial = tmp_path / "partial.jsonl"
    first = Rule()
    generate_predictions(first, EXAMPLES, partial, batch_size=4, prompt="")
    lines = partial.read_text(encoding="utf-8").splitlines(keepends=True)
    # The key, one batch, and two lines of the next.
    partial.write_text("".join(lines[:7]), encoding="utf-8")
    again = Rule()
    assert generate_predictions(again, EXAMPLES, partial, batch_size=4, prompt="").predictions == LEADS
    # Titles that are drawn depend on which stand beside them: the batches are those of the first run.
    assert again.batches == first.batches[1:]


def test_titles_of_another_model_or_split_are_not_taken_over(tmp_path: Path) -> None:
    partial = tmp_path / "partial.jsonl"
    generate_predictions(Rule(), EXAMPLES, partial, prompt="")
    other = Rule("other")
    generate_predictions(other, EXAMPLES, partial, prompt="")
    assert sum(map(len, other.batches)) == len(EXAMPLES)
    changed = [dataclasses.replace(EXAMPLES[0], content="別的文章。"), *EXAMPLES[1:]]
    again = Rule("other")
    assert generate_predictions(again, changed, partial, prompt="").predictions[0] == "別的文章"
    assert sum(map(len, again.batches)) == len(EXAMPLES)


@pytest.mark.fault
def test_what_another_release_kept_is_written_again(tmp_path: Path) -> None:
    partial = tmp_path / "partial.jsonl"
    generate_predictions(Rule(), EXAMPLES, partial, prompt="")
    key, *kept = map(json.loads, partial.read_text(encoding="utf-8").splitlines())
    write_lines(partial, [key, *({name: record[name] for name in ("id", "prediction")} for record in kept)])
    again = Rule()
    assert generate_predictions(again, EXAMPLES, partial, prompt="").predictions == LEADS
    assert sum(map(len, again.batches)) == len(EXAMPLES)


@pytest.mark.fault
def test_a_generator_that_loses_titles_is_an_error(tmp_path: Path) -> None:
    class Lossy(Rule):
        def choose(self, contents: Sequence[str], advance: Advance = unwatched) -> list[Chosen]:
            return super().choose(contents, advance)[1:]

    with pytest.raises(TitlegenError, match="Lossy returned 7 titles for 8 articles"):
        generate_predictions(Lossy(), EXAMPLES, tmp_path / "partial.jsonl", prompt="")


def test_what_was_drawn_again_is_kept_and_counted(tmp_path: Path) -> None:
    class Redrawing(Rule):
        def describe(self) -> dict[str, Any]:
            return {"generator": self.name, "decoding": {"redraws": 4}}

        def choose(self, contents: Sequence[str], advance: Advance = unwatched) -> list[Chosen]:
            texts = [chosen.text for chosen in super().choose(contents, advance)]
            # Of three that are drawn again, two are replaced.
            return [Chosen(text, "甲" if text in LEADS[:2] else text, 5 if text in LEADS[:3] else 1) for text in texts]

    partial = tmp_path / "partial.jsonl"
    for fails_after in (1000, 0):
        rule = Redrawing(fails_after=fails_after)
        generation = generate_predictions(rule, EXAMPLES, partial, prompt="")
        description: dict[str, Any] = generation.description
        assert (description["redrawn"], description["replaced"]) == (3, 2)
        assert generation.predictions == LEADS
        assert generation.firsts == ["甲", "甲", *LEADS[2:]]
    report = evaluate(EXAMPLES, generation.predictions, SETTINGS, firsts=generation.firsts)
    (first,) = report.content.variants
    assert first.kind == "first"
    assert first.differences["rougeL"].value < 0
    assert [title.as_json().get("first") for title in report.titles] == ["甲", "甲", *[None] * (len(EXAMPLES) - 2)]
    write_report(report, tmp_path)
    assert read_predictions(tmp_path / "predictions.jsonl", EXAMPLES, "first") == generation.firsts
    assert "the first of each, none drawn again" in (tmp_path / "report.md").read_text(encoding="utf-8")
    same = evaluate(EXAMPLES, LEADS, SETTINGS, firsts=LEADS)
    assert same.content.variants == []
    assert all("first" not in title.as_json() for title in same.titles)


@pytest.fixture(scope="module")
def short() -> list[str]:
    return [example.content[: 20 + 7 * number] for number, example in enumerate(EXAMPLES[:6])]


def test_batched_titles_equal_single_ones(tiny_base: Path, short: list[str]) -> None:
    settings = EvaluateSettings(batch_size=4, max_new_tokens=6)
    generator = TransformersGenerator(tiny_base, None, settings)
    single = TransformersGenerator(tiny_base, None, EvaluateSettings(batch_size=1, max_new_tokens=6))
    assert generator.generate(short) == single.generate(short)
    assert generator.generate([]) == []
    described = generator.describe()
    assert described["decoding"] == {"strategy": "greedy", "max_new_tokens": 6}
    assert described == generator.describe(), "the same before and after a run"


@pytest.mark.parametrize("candidates", [1, 2])
def test_a_batch_is_seen_to_move(tiny_base: Path, short: list[str], candidates: int) -> None:
    parts: list[float] = []
    settings = EvaluateSettings(batch_size=8, max_new_tokens=6, candidates=candidates)
    TransformersGenerator(tiny_base, None, settings).generate(short, parts.append)
    assert len(parts) > 2
    assert max(parts) <= len(short) / 2
    assert len(short) / 2 <= sum(parts) <= len(short)


def test_the_generators_greedy_title_is_the_models_most_likely_one(tiny_base: Path, short: list[str]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from titlegen.families.gemma3 import PROMPT

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32).eval()
    ids = tokenizer(PROMPT.render(short[0]), add_special_tokens=False)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1
    expected: list[int] = []
    with torch.no_grad():
        for _ in range(4):
            expected.append(int(model(torch.tensor([ids + expected])).logits[0, -1].argmax()))
    stops = {1, 106, 0}
    title = expected[: next((place for place, token in enumerate(expected) if token in stops), 4)]
    generator = TransformersGenerator(tiny_base, None, EvaluateSettings(max_new_tokens=4))
    assert generator.generate([short[0]]) == [tokenizer.decode(title)]


def test_greedy_titles_are_those_of_transformers_own_generation(
    tiny_base: Path, tiny_adapter: Path, short: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EvaluateSettings(batch_size=3, max_new_tokens=12)
    for adapter in (None, tiny_adapter):
        titles = TransformersGenerator(tiny_base, adapter, settings).generate(short)
        with monkeypatch.context() as patch:
            patch.setattr("titlegen.generation.generator.can_trim", lambda _: False)
            assert TransformersGenerator(tiny_base, adapter, settings).generate(short) == titles


@pytest.mark.parametrize(
    ("setting", "device", "tokens"),
    [(True, "cpu", 0), (False, "cuda", None), ("auto", "cuda", COMPILE_TOKENS), ("auto", "cpu", None)],
)
def test_layers_are_compiled_as_the_setting_says(
    tiny_base: Path, setting: Any, device: str, tokens: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Set first, so that what is set meanwhile does not stay.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("TITLEGEN_CACHE", "/cache")
    generator = TransformersGenerator(tiny_base, None, EvaluateSettings(compile=setting))
    generator.device = device
    decoder = generator.decoder
    assert decoder is not None
    assert decoder._compile_after == tokens
    # What is compiled outlives a reboot.
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == (None if tokens is None else "/cache/compiled")


def test_generation_ends_at_the_end_of_turn(tiny_base: Path) -> None:
    generator = TransformersGenerator(tiny_base, None, EvaluateSettings(max_new_tokens=4))
    assert generator.stop == [1, 106]
    start_of_turn = generator.tokenizer.convert_tokens_to_ids("<start_of_turn>")
    assert generator._decode([start_of_turn, 106, 500, 501]).text == "<start_of_turn>", (
        "control tokens are a fault to see"
    )
    assert not generator._decode([500] * 4).ended
    assert generator._decode([1, 500]) == Draft("", tokens=0, ended=True)


def test_an_adapter_changes_the_titles(tiny_base: Path, tiny_adapter: Path, short: list[str]) -> None:
    settings = EvaluateSettings(max_new_tokens=6)
    adapted = TransformersGenerator(tiny_base, tiny_adapter, settings)
    assert adapted.generate(short) != TransformersGenerator(tiny_base, None, settings).generate(short)
    assert adapted.describe()["adapter"] == str(tiny_adapter)


def test_a_model_trained_anew_in_the_same_folder_is_another_one(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_base, folder)
    first = TransformersGenerator(folder, None, SETTINGS).describe()
    os.utime(folder / "model.safetensors")
    second = TransformersGenerator(folder, None, SETTINGS).describe()
    assert first["weights"] != second["weights"]
    assert {**first, "weights": 0} == {**second, "weights": 0}


def test_sampling_is_recorded_and_repeatable(tiny_base: Path, short: list[str]) -> None:
    generator = TransformersGenerator(tiny_base, None, EvaluateSettings(max_new_tokens=6, temperature=1.0))
    titles = generator.generate(short)
    assert titles == generator.generate(short)
    described: dict[str, Any] = generator.describe()
    assert described["decoding"]["temperature"] == 1.0


def test_the_best_of_several_candidates_is_taken(
    tiny_base: Path, short: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []

    def last(titles: Sequence[str], facts: Facts) -> list[int]:
        assert facts.article == short[len(seen)]
        seen.append(tuple(titles))
        return list(range(len(titles)))[::-1]

    settings = EvaluateSettings(max_new_tokens=6, candidates=3)
    generator = TransformersGenerator(tiny_base, None, settings)
    decoding: Any = generator.describe()["decoding"]
    assert (decoding["candidates"], decoding["candidate_temperature"]) == (3, 0.8)
    assert decoding["strategy"] == "best of 3"
    greedy = TransformersGenerator(tiny_base, None, EvaluateSettings(max_new_tokens=6)).generate(short)
    monkeypatch.setattr("titlegen.generation.generator.rank_titles", last)
    reading, read = TitleDecoder.read, []

    def count(decoder: TitleDecoder, prompts: Sequence[Sequence[int]]) -> Prefill:
        read.append(len(prompts))
        return reading(decoder, prompts)

    monkeypatch.setattr(TitleDecoder, "read", count)
    assert generator.generate(short) == [titles[2] for titles in seen]
    # The first is greedy, the others are drawn, each with its own seed, after the articles have been read once.
    assert [titles[0] for titles in seen] == greedy
    assert read == [len(short)]
    assert len({title for titles in seen for title in titles}) > 2 * len(short)


def test_a_doubtful_title_alone_is_drawn_again(
    tiny_base: Path, short: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EvaluateSettings(max_new_tokens=6, batch_size=4)
    greedy = TransformersGenerator(tiny_base, None, settings).generate(short)
    asked: list[tuple[str, list[str], str]] = []

    def is_second_or_fifth(first: str, facts: Facts) -> bool:
        assert first == greedy[short.index(facts.article)]
        return facts.article in {short[1], short[4]}

    def last(first: str, drawn: Sequence[str], facts: Facts) -> int:
        if drawn:
            asked.append((first, list(drawn), facts.article))
        return len(drawn)

    monkeypatch.setattr("titlegen.generation.generator.is_doubtful", is_second_or_fifth)
    monkeypatch.setattr("titlegen.generation.generator.choose_title", last)
    # None of a tiny random model's titles ends.
    monkeypatch.setattr(TransformersGenerator, "_decode", lambda self, ids: Draft(self.tokenizer.decode(ids), 6, True))  # noqa: FBT003
    generator = TransformersGenerator(tiny_base, None, settings, redraws=3)
    found = generator.choose(short)
    assert [chosen.first for chosen in found] == greedy
    assert [chosen.drafts for chosen in found] == [1, 4, 1, 1, 4, 1]
    assert [article for *_, article in asked] == [short[1], short[4]]
    for place, (first, drawn, _) in zip((1, 4), asked, strict=True):
        assert first == greedy[place]
        assert len({first, *drawn}) == 4
        assert found[place].text == drawn[-1]
    assert [found[place].text for place in (0, 2, 3, 5)] == [greedy[place] for place in (0, 2, 3, 5)]
    assert generator.choose(short) == found, "drawn with a seed"
    decoding: Any = generator.describe()["decoding"]
    assert (decoding["redraws"], decoding["redraw_temperature"], decoding["temperature"]) == (3, 0.3, 0.0)
    several = TransformersGenerator(tiny_base, None, settings.model_copy(update={"candidates": 2}), redraws=3)
    assert {chosen.drafts for chosen in several.choose(short)} == {2}


@pytest.mark.parametrize("which", ["model", "adapter"])
def test_a_missing_model_is_an_error(tiny_base: Path, tmp_path: Path, which: str) -> None:
    model, adapter = (tmp_path, None) if which == "model" else (tiny_base, tmp_path)
    with pytest.raises(ExportError, match=f"holds no {which}"):
        TransformersGenerator(model, adapter, SETTINGS)


# predictions files


def test_a_predictions_file_may_be_in_any_order(tmp_path: Path) -> None:
    records = [{"id": e.id, "prediction": title, "more": 1} for e, title in zip(EXAMPLES, LEADS, strict=True)]
    assert read_predictions(write_lines(tmp_path / "p.jsonl", records[::-1]), EXAMPLES) == LEADS


@pytest.mark.fault
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[2:], r"2 ids missing: 'a0', 'a1'; it needs one line"),
        (lambda rows: rows[9:], r"9 ids missing: 'a0', 'a1', 'a2', 'a3', 'a4' and 4 more"),
        (lambda rows: [*rows, {"id": "x", "prediction": "甲"}], r"1 ids that the split does not have: 'x' \(line 25\)"),
        (lambda rows: [*rows, rows[3]], r"1 ids twice: 'a3' \(lines 4 and 25\)"),
        (lambda rows: [*rows[1:], {"id": "y" * 99, "prediction": ""}], r"'a0'; 1 ids that .* 'y{40}…' \(line 24\)"),
        (lambda rows: [{"id": "a0"}, *rows[1:]], r"line 1: key 'prediction' is missing"),
        (lambda rows: [{"id": "a0", "prediction": None}, *rows[1:]], r"line 1: key 'prediction' is NoneType"),
        (lambda rows: [{"id": 0, "prediction": ""}, *rows[1:]], r"line 1: key 'id' is int instead of text"),
        (lambda rows: [*rows[1:], ["a0", "甲"]], r"line 24 cannot be read: list instead of an object"),
        (lambda _: [], r"24 ids missing"),
    ],
)
def test_a_predictions_file_that_does_not_fit_is_named(tmp_path: Path, change: Any, message: str) -> None:
    rows = [{"id": example.id, "prediction": title} for example, title in zip(EXAMPLES, LEADS, strict=True)]
    path = write_lines(tmp_path / "p.jsonl", change(rows))
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(path, EXAMPLES)
    assert str(path) in str(caught.value)


@pytest.mark.fault
def test_a_predictions_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes('{"id": "a0", "prediction": "甲"}\n{"id": "a1", "prediction": "臺'.encode() + b'\xa5"}\n')
    with pytest.raises(DataError, match=r"p\.jsonl, line 2 cannot be read: not UTF-8 \(byte 0xa5"):
        read_predictions(path, EXAMPLES)
    path.write_text('{"id": "a0", "prediction": "\\ud83d"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 1: 'prediction' holds half of a surrogate pair"):
        read_predictions(path, EXAMPLES)


def test_a_missing_predictions_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl does not exist; give evaluate\.target"):
        read_predictions(tmp_path / "none.jsonl", EXAMPLES)


# gates


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        (Score(0.35, 0.30, 0.4), "pass"),
        (Score(0.35, 0.29, 0.4), "undecided"),
        (Score(0.25, 0.2, 0.30), "undecided"),
        (Score(0.25, 0.2, 0.299), "fail"),
    ],
)
def test_verdicts(score: Score, verdict: str) -> None:
    assert judge(score, 0.30) == verdict


def test_rows_to_decide() -> None:
    assert rows_to_decide("title_only_rate", Score(1.0, 0.86, 1.0), 0.98, 24) == 189
    # The interval has to shrink from 0.05 to 0.01: a fifth, so 25 times the rows.
    assert rows_to_decide("rougeL", Score(0.31, 0.26, 0.36), 0.30, 24) == 600
    assert rows_to_decide("rougeL", Score(0.30, 0.26, 0.36), 0.30, 24) is None


def test_a_gate_of_minus_one_is_off() -> None:
    gates = GateSettings(rougeL=-1, title_only_rate=-1)
    report = evaluate(EXAMPLES, LEADS, SETTINGS.model_copy(update={"gates": gates}))
    assert [gate.name for gate in report.content.gates] == ["bleu1", "length_rate"]


@pytest.mark.parametrize(
    ("gate", "limit", "verdict"),
    [("bleu1", 0.9, "fail"), ("bleu1", 0.01, "pass"), ("title_only_rate", 0.98, "undecided")],
)
def test_a_report_has_the_verdict_of_its_gate(gate: str, limit: float, verdict: str) -> None:
    gates = GateSettings(**{**dict.fromkeys(GateSettings.model_fields, -1.0), gate: limit})
    content = evaluate(EXAMPLES, LEADS, SETTINGS.model_copy(update={"gates": gates})).content
    assert [found.verdict for found in content.gates] == [verdict]
    assert verdict != "undecided" or (content.rows_to_decide[gate] or 0) > len(EXAMPLES)


# the report


def test_report_json_has_the_promised_keys(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert set(content["scores"]) == set(SCORES)
    for score in content["scores"].values():
        assert set(score) == {"value", "low", "high"}
        assert score["low"] <= score["value"] <= score["high"]
    assert set(content["baselines"]) == {"lead1", "textrank", "oracle", "random", "base_model"}
    for baseline in content["baselines"].values():
        assert set(baseline) == set(SCORES)
        assert all(isinstance(value, float) for value in baseline.values())
    assert content["baselines"]["base_model"] == content["baselines"]["lead1"]
    for gates in (content["gates"], content["specification"]):
        assert [set(gate) for gate in gates] == [{"name", "limit", "value", "verdict"}] * 4
    assert content["settings"]["temperature"] == 0
    assert len(content["digests"]["examples"]) == 64
    assert "rougeL" not in content["references"]
    assert set(content["words"]) == {"rouge1", "rouge2", "rougeL", "bleu1"}
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.json",
        "report.md",
        "report.html",
        "predictions.jsonl",
    }


def test_a_report_is_read_and_written_without_a_change(report: Report) -> None:
    # Written when report.json was no typed object yet.
    text = Path(__file__).with_name("written_report.json").read_text(encoding="utf-8")
    read = EvaluationReport.model_validate_json(text)
    assert json.dumps(read.as_json(), ensure_ascii=False, indent=2) + "\n" == text
    assert (read.redraws, read.failed[0].name, len(read.variants)) == (4, "bleu1", 3)
    assert [*report.content.as_json(), "comparison"] == list(read.as_json())


def test_the_report_of_an_earlier_release_is_read() -> None:
    score = {"value": 0.4, "low": 0.3, "high": 0.5}
    gate = {"name": "rougeL", "limit": 0.3, "value": 0.4, "verdict": "pass"}
    old = EvaluationReport.model_validate({"scores": {"rougeL": score}, "gates": [gate], "no_longer": 1})
    assert (old.scores["rougeL"], old.candidates, old.specification) == (Score(0.4, 0.3, 0.5), 1, ())


def test_predictions_of_a_report_can_be_scored_again(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    predictions = read_predictions(tmp_path / "predictions.jsonl", EXAMPLES)
    again = evaluate(EXAMPLES, predictions, SETTINGS, base_predictions=LEADS, generation={"generator": "rule"})
    assert again.content == report.content


def test_rows_say_what_is_wrong(report: Report) -> None:
    empty, prefixed, number = (title.as_json() for title in report.titles[-3:])
    assert (empty["title_violations"], empty["style_violations"], empty["rougeL"]) == (["empty"], ["empty"], 0)
    assert prefixed["title_violations"] == ["prefix"]
    assert number["unsupported_numbers"] == ["98765"]
    mark = report.titles[-1].marks[-1]
    assert number["prediction"][mark.start : mark.end] == mark.text


def test_without_a_base_model_its_column_is_missing() -> None:
    assert "base_model" not in evaluate(EXAMPLES, LEADS, SETTINGS).content.baselines


@pytest.mark.fault
@pytest.mark.parametrize(
    ("examples", "predictions", "base", "message"),
    [
        ([], [], None, "the split is empty"),
        (EXAMPLES, LEADS[1:], None, "23 predictions for 24 examples"),
        (EXAMPLES, LEADS, LEADS[:2], "2 predictions of the base model for 24 examples"),
        ([EXAMPLES[0], EXAMPLES[0]], LEADS[:2], None, "an id twice"),
    ],
)
def test_what_cannot_be_scored_is_an_error(examples: Any, predictions: Any, base: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(examples, predictions, SETTINGS, base_predictions=base)


def test_one_row_makes_a_report(tmp_path: Path) -> None:
    write_report(evaluate(EXAMPLES[:1], LEADS[:1], SETTINGS), tmp_path)
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "1 article (held out for the test)" in source
    assert "1 articles" not in source


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"><svg onload=alert(1)>' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}</style></html>",
    "\u202e反轉\u2066\x00\x1b[31m",
    "| a | b |\n\n# heading [x](javascript:alert(1)) <b>`",
    "&lt;b&gt; &amp;",
    "標" * 100_000,
]


class Page(HTMLParser):
    """Collects tags, attributes and the text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def hostile_report() -> Report:
    examples = [
        Example(f"{text[:50]}{number}", f"{text[:500]}。第一句話。", text[:80], text[:50], text[:10])
        for number, text in enumerate([*HOSTILE, *HOSTILE])
    ]
    predictions = [*HOSTILE, *(f"{text[:80]}王小明777" for text in HOSTILE)]
    return evaluate(examples, predictions, SETTINGS, generation={"model": HOSTILE[0], "<b>": HOSTILE[2]})


def test_nothing_out_of_an_article_becomes_markup(hostile_report: Report, tmp_path: Path) -> None:
    write_report(hostile_report, tmp_path / "other")
    write_report(hostile_report, tmp_path, against=tmp_path / "other")
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(source)
    template = (resources.files("titlegen") / "report.html.j2").read_text(encoding="utf-8")
    assert set(page.tags) <= set(re.findall(r"<([a-z][a-z0-9]*)", template)), "no tag but the template's own"
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not [value for name, value in page.attributes if name in {"src", "href"}]
    for text in HOSTILE[:4]:
        assert text in page.text, "shown as what it is"
    assert "49" not in re.findall(r"\d+", page.text.split("7 * 7")[1][:8])
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", source)
    assert len(source) < 600_000, "a huge output is cut"


def test_the_page_needs_no_network(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"(?:https?:)?//[\w.]+", source) == []
    assert "default-src 'none'" in source
    assert "url(" not in source
    assert "@import" not in source
    assert 'name="viewport"' in source
    assert "prefers-color-scheme: dark" in source


def test_nothing_out_of_an_article_breaks_the_markdown(hostile_report: Report, tmp_path: Path) -> None:
    write_report(hostile_report, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img" not in text
    assert "](javascript" not in text
    assert [line for line in text.splitlines() if line.startswith("# ")] == ["# Title quality report"]
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


# highlighting


@given(st.text(max_size=60), st.text(max_size=60))
def test_marked_pieces_are_the_title(prediction: str, reference: str) -> None:
    pieces = mark_title(prediction, reference)
    assert "".join(piece.text for piece in pieces) == visible(prediction)


@given(st.text(alphabet="甲乙丙12 ，a", max_size=40), st.text(alphabet="甲乙丙12 ，a", max_size=40))
def test_as_many_tokens_are_marked_as_rouge_counts(prediction: str, reference: str) -> None:
    shared = [token for piece in mark_title(prediction, reference) if piece.marks for token in tokenize(piece.text)]
    # Neighbouring marked tokens share a piece, in which two numbers or words never touch.
    assert len(shared) == LCSseq.similarity(tokenize(prediction), tokenize(reference))


def test_marks_overlap() -> None:
    pieces = mark_title("臺南12例", "臺南15例", [Mark("number", "12", 2, 4), Mark("name", "臺南", 0, 2)])
    assert [tuple(piece) for piece in pieces] == [("臺南", "name shared"), ("12", "number"), ("例", "shared")]


# comparison


def test_comparison_names_what_got_better_and_worse(tmp_path: Path) -> None:
    theirs = evaluate(EXAMPLES[:-2], LEADS[:-2], SETTINGS)
    write_report(theirs, tmp_path / "theirs")
    ours = evaluate(EXAMPLES, [EXAMPLES[0].title, "無關", *LEADS[2:]], SETTINGS)
    for path in (tmp_path / "theirs", tmp_path / "theirs" / "report.json"):
        comparison = compare(ours, path)
        assert (comparison.rows, comparison.only_ours, comparison.only_theirs) == (22, 2, 0)
        assert [change.id for change in comparison.better] == ["a0"]
        assert [change.id for change in comparison.worse] == ["a1"]
        assert comparison.better[0].theirs == LEADS[0]
    write_report(ours, tmp_path / "ours", against=tmp_path / "theirs")
    content = json.loads((tmp_path / "ours" / "report.json").read_text(encoding="utf-8"))["comparison"]
    assert content["rows"] == 22
    assert set(content["differences"]) == set(SCORES)
    for name in ("report.html", "report.md"):
        assert "Against another report" in (tmp_path / "ours" / name).read_text(encoding="utf-8")


def test_a_report_against_itself_has_no_difference(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    comparison = compare(report, tmp_path)
    assert set(comparison.differences.values()) == {Score(0.0, 0.0, 0.0)}
    assert comparison.better == comparison.worse == ()


@pytest.mark.fault
def test_reports_that_cannot_be_compared_are_an_error(report: Report, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; --against needs"):
        compare(report, tmp_path / "report.json")
    rows = [{"id": "other", "prediction": "甲", "reference": "乙"}]
    write_lines(tmp_path / "predictions.jsonl", rows)
    with pytest.raises(DataError, match="no article in common"):
        compare(report, tmp_path)
    write_lines(tmp_path / "predictions.jsonl", [{"id": "a0", "prediction": "甲", "reference": "乙"}])
    with pytest.raises(DataError, match="another reference title for 'a0'"):
        compare(report, tmp_path)
    write_lines(tmp_path / "predictions.jsonl", [{"id": "a0", "prediction": "甲"}])
    with pytest.raises(DataError, match="line 1: id, prediction or reference is missing"):
        compare(report, tmp_path)
