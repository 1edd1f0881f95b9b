import contextlib
import hashlib
import itertools
import json
import pickle
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from articles import article, seeded, write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from titlegen.data import Example, load_split, prepare
from titlegen.data.card import DataCard, bin_edges, render_card, summarise
from titlegen.data.chunk import clean_chunk
from titlegen.data.dedup import Clusters, jaccard, join_similar, rows_per_band, shingle_hashes, shingle_set, sign
from titlegen.data.example import SPLITS
from titlegen.data.filters import MAX_CONTENT_CHARS, REASONS
from titlegen.data.shorten import STRATEGIES, load_counter, shorten, title_coverage
from titlegen.data.sources import Row
from titlegen.data.workers import _portable, clean_chunks
from titlegen.errors import ConfigError, DataError
from titlegen.settings import DataSettings
from titlegen.text import clean_content, split_sentences
from titlegen.text.textrank import sentence_ranks

Run = Callable[..., tuple[Path, dict[str, Any]]]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL = sorted(SHARED.glob("tainan_gov_news-*.jsonl"))
needs_real = pytest.mark.skipif(len(REAL) != 2, reason="the 2,767 press releases are not here")


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    texts = [article(number)["content"] for number in range(60)]
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    # A tokenizer.json may carry both; neither may change a count.
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=16)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture
def run(tmp_path: Path, tokenizer_file: Path) -> Run:
    """Prepare rows, or a file, into a new directory; returns it with the results."""
    numbers = itertools.count()

    def prepare_rows(rows: Path | Iterable[Any], **options: Any) -> tuple[Path, dict[str, Any]]:
        source = rows if isinstance(rows, Path) else write_jsonl(tmp_path / "source.jsonl", rows)
        directory = tmp_path / f"out{next(numbers)}"
        directory.mkdir()
        options = {"source": str(source), "min_content_chars": 20, **options}
        return directory, prepare(DataSettings(**options), tokenizer_file, directory).as_json()

    return prepare_rows


def everything(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def all_examples(directory: Path) -> list[Example]:
    return [example for split in ("train", "val", "test") for example in load_split(directory, split)]


def dropped(results: dict[str, Any]) -> dict[str, int]:
    return {step["step"]: step["dropped"] for step in results["steps"] if step["dropped"]}


# Reading what was prepared.


def test_prepare_writes_splits_that_load_split_reads(run: Run) -> None:
    directory, results = run([article(number, source="市府") for number in range(40)])
    assert results["splits"] == {"train": 32, "val": 4, "test": 4}
    examples = all_examples(directory)
    assert len({example.id for example in examples}) == 40
    assert {example.source for example in examples} == {"市府"}
    by_title = {example.title: example for example in examples}
    for number in range(40):
        row = article(number)
        assert by_title[row["title"]].content == row["content"]
        assert by_title[row["title"]].date == row["date"]


def test_prepare_leaves_exactly_its_documented_files(run: Run) -> None:
    directory, _ = run([article(number) for number in range(40)])
    assert {path.name for path in directory.iterdir()} == {
        *("train.jsonl", "val.jsonl", "test.jsonl", "dataset", "data.md", "data.json", "lengths.png"),
    }


def test_the_dataset_on_disk_holds_the_same_rows(run: Run) -> None:
    import datasets

    directory, _ = run([article(number) for number in range(40)])
    loaded = datasets.load_from_disk(str(directory / "dataset"))
    for split in ("train", "val", "test"):
        assert [Example(**row) for row in loaded[split]] == load_split(directory, split)


GOOD = {"id": "1", "content": "內容", "title": "標題", "source": "市府", "date": None}


@pytest.mark.fault
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "2", ', "not JSON"),
        (b'{"id": "\xff"}', "not UTF-8 (byte 0xff"),
        (b'["list"]', "list instead of an object"),
        (b"[" * 100_000, "nested too deeply"),
        (json.dumps({key: value for key, value in GOOD.items() if key != "title"}).encode(), "key 'title' is missing"),
        (json.dumps({**GOOD, "content": 5}).encode(), "'content' is int instead of text"),
        (json.dumps({**GOOD, "date": 20240101}).encode(), "'date' is int instead of text"),
    ],
)
def test_a_broken_line_is_named_with_its_file_and_number(tmp_path: Path, line: bytes, reason: str) -> None:
    (tmp_path / "val.jsonl").write_bytes(json.dumps(GOOD).encode() + b"\n\n" + line + b"\n")
    with pytest.raises(DataError) as error:
        load_split(tmp_path, "val")
    assert "val.jsonl, line 3" in str(error.value)
    assert reason in str(error.value)


@pytest.mark.fault
def test_a_missing_split_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test\.jsonl does not exist; run `titlegen prepare` first"):
        load_split(tmp_path, "test")


# Filters.


def chunk_reasons(rows: list[Row], tokenizer_file: Path | None = None, **options: Any) -> Counter[str]:
    options = {"min_content_chars": 20, **options}
    return clean_chunk(rows, DataSettings(**options), tokenizer_file).counts.dropped


def row(content: Any = None, title: Any = None, **fields: Any) -> Row:
    base = article(1)
    values = {"source": "市府", "date": None, "id": None, **fields}
    return Row(base["content"] if content is None else content, base["title"] if title is None else title, **values)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (Row(None, "標題標題標題", "s", None, None), "missing"),
        (row(content=5), "not_text"),
        (row(title="前行政院長游錫\ufffd出席座談會"), "not_text"),
        (row(content="臺" * (MAX_CONTENT_CHARS + 1)), "oversized"),
        (row(content="<p></p>"), "empty_after_cleaning"),
        (row(content="The mayor said on Monday that the bridge would open. " * 3), "not_chinese"),
        (row(title="太短"), "title_short"),
        (row(title="很長" * 40), "title_long"),
        (row(content="內文太短了。"), "content_short"),
        (
            row(content="台南市長視察滯洪池工程，要求汛期前完工，市府說明進度。", title="台南市長視察滯洪池工程"),
            "title_copies_lead",
        ),
        (row(title="臺灣" * 20), "title_over_token_budget"),
    ],
)
def test_a_row_is_dropped_for_its_reason(broken: Row, reason: str, tokenizer_file: Path) -> None:
    assert chunk_reasons([broken, row()], tokenizer_file) == {reason: 1}
    assert reason in REASONS


def test_a_first_line_that_repeats_the_title_goes() -> None:
    chunk = clean_chunk([row(content=f"{article(1)['title']}\n{article(2)['content']}")], DataSettings(), None)
    assert json.loads(chunk.lines[0])["content"] == article(2)["content"]
    assert chunk.counts.content_rules["title_line"].articles == 1


SIMPLIFIED = "台湾积体电路公司宣布扩大投资，将于明年兴建两座新厂，预计创造数千个就业机会，县市政府表示欢迎。"
TRADITIONAL = "台灣積體電路公司宣布擴大投資，將於明年興建兩座新廠，預計創造數千個就業機會，縣市政府表示歡迎。"


@pytest.mark.parametrize(("script", "content"), [("convert", TRADITIONAL), ("keep", SIMPLIFIED), ("drop", None)])
def test_simplified_text_is_converted_kept_or_dropped(script: str, content: str | None) -> None:
    options = DataSettings(script=script, min_content_chars=20)
    chunk = clean_chunk([row(content=SIMPLIFIED, title="台积电扩大投资 创造就业")], options, None)
    assert [json.loads(line)["content"] for line in chunk.lines] == ([content] if content else [])
    assert chunk.counts.dropped["simplified"] == (content is None)
    assert chunk.counts.converted == (script == "convert")
    assert set(chunk.counts.scripts) == ({"title converted", "content converted"} if script == "convert" else set())


def test_a_simplified_title_over_a_traditional_body_is_converted_and_shown(run: Run) -> None:
    rows = [article(number) for number in range(30)] + [article(40, title="图书馆换新灯具 每年省电四万度")]
    directory, results = run(rows)
    assert "圖書館換新燈具 每年省電四萬度" in {example.title for example in all_examples(directory)}
    assert results["converted_from_simplified"] == 1
    (note,) = results["notes"]
    assert note == (
        "1 article: the title is converted from Simplified Chinese, such as "
        "'图书馆换新灯具 每年省电四万度 → 圖書館換新燈具 每年省電四萬度'"
    )
    card = (directory / "data.md").read_text(encoding="utf-8")
    assert "| title converted | 1 | 图书馆换新灯具 每年省电四万度 → 圖書館換新燈具 每年省電四萬度 |" in card
    dropped_title, _ = run(rows, script="drop")
    assert len(all_examples(dropped_title)) == 30


def test_boilerplate_in_simplified_characters_goes_too() -> None:
    body = article(1)["content"]
    chunk = clean_chunk(
        [row(title="快讯／图书馆换新灯具", content=f"（记者余小明／台北报导）图书馆换新。{body}")], DataSettings(), None
    )
    (line,) = map(json.loads, chunk.lines)
    assert line["title"] == "圖書館換新燈具"
    assert line["content"] == f"圖書館換新。{body}"


def test_control_tokens_of_an_article_do_not_reach_the_splits(run: Run) -> None:
    directory, _ = run([article(n, content=f"{article(n)['content']}<end_of_turn>\n<bos>他說。") for n in range(20)])
    text = (directory / "train.jsonl").read_text(encoding="utf-8")
    assert "<end_of_turn>" not in text
    assert "＜end_of_turn>" in text


@pytest.mark.fault
def test_nothing_left_names_the_reasons(run: Run) -> None:
    with pytest.raises(
        DataError, match=r"no article of .* is left after the filters: 3 rows, dropped: title_short 3; check"
    ):
        run([article(number, title="短") for number in range(3)])


def test_every_drop_is_counted(run: Run) -> None:
    rows = [article(number) for number in range(40)]
    rows += [
        article(50, title=None),
        article(51, title="短"),
        {"content": article(52)["content"]},
        article(3),
        article(53, title=article(4)["title"]),
    ]
    directory, results = run(rows)
    assert dropped(results) == {"missing": 2, "title_short": 1, "near_duplicate": 1, "same_title": 1}
    steps = results["steps"]
    assert steps[0]["in"] == results["rows"] == 45
    assert all(step["in"] - step["dropped"] == step["out"] for step in steps)
    assert all(before["out"] == after["in"] for before, after in itertools.pairwise(steps))
    assert steps[-1]["out"] == results["kept"] == len(all_examples(directory)) == 40


def test_an_article_that_was_written_on_is_kept_once_under_its_id(run: Run) -> None:
    rows = [article(number, id=str(number)) for number in range(40)]
    # The first has grown to more than twice its length, the second has another text under its old title.
    grown = article(
        0, id="0", title="改寫後的新標題", content=article(0)["content"] + article(90, sentences=20)["content"]
    )
    rewritten = article(91, id="1", title=article(1)["title"])
    directory, results = run([*rows, grown, rewritten])
    assert dropped(results) == {"duplicate_id": 2}
    assert sorted(example.id for example in all_examples(directory)) == sorted(r["id"] for r in rows)


@pytest.mark.fault
@pytest.mark.parametrize(
    "ids",
    [
        ["1.13E+11"] * 40,  # as a spreadsheet rounds them
        [number % 20 for number in range(40)],  # as files that were joined count
        [1, *range(1, 40)],
        [float(number % 10) for number in range(40)],
        [0.1] * 40,
        [True] * 40,
        ["0"] * 40,
    ],
    ids=str,
)
def test_an_id_that_different_articles_have_loses_none(run: Run, ids: list[Any]) -> None:
    directory, results = run([article(number, id=identity) for number, identity in enumerate(ids)])
    assert results["kept"] == 40
    examples = all_examples(directory)
    assert len({example.id for example in examples}) == 40
    shuffled, _ = run(seeded(1).sample([article(n, id=identity) for n, identity in enumerate(ids)], 40))
    assert sorted(example.id for example in all_examples(shuffled)) == sorted(example.id for example in examples)


@pytest.mark.parametrize("none", ["NULL", "null", "None", "NaN", "nan", "N/A", "#N/A", "<NA>", "-", "", " "])
def test_what_a_database_writes_for_no_id_is_none(run: Run, none: str) -> None:
    directory, results = run([article(number, id=none) for number in range(40)])
    assert results["kept"] == 40
    assert results["notes"] == []
    assert none not in {example.id for example in all_examples(directory)}


@pytest.mark.fault
def test_ids_that_restart_in_each_file_lose_no_article(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "splits"
    folder.mkdir()
    # Even the same article is judged by its content alone there.
    for place, name in enumerate(("test", "train")):
        write_jsonl(folder / f"{name}.jsonl", [article(20 * place + number, id=number) for number in range(20)])
    directory, results = run(folder)
    assert (results["rows"], results["kept"]) == (40, 40)
    assert len({example.id for example in all_examples(directory)}) == 40


@pytest.mark.fault
def test_many_repeated_ids_are_a_warning_and_named_by_an_empty_split(run: Run) -> None:
    rows = [article(number, id=number) for number in range(20)]
    copies = [article(number, id=number, content=article(number)["content"] + "後記。") for number in range(20)]
    _, results = run([*rows, *copies])
    assert any("duplicate_id left out 20 of 40 rows" in note for note in results["notes"])
    with pytest.raises(DataError, match=r"the val split is empty: 2 articles are left \(left out: duplicate_id 6\)"):
        run([article(number % 2, id=number % 2) for number in range(8)])


def test_an_id_that_no_file_could_hold_is_replaced(run: Run) -> None:
    rows = [article(number, id=f"a{number}") for number in range(20)]
    rows += [
        article(30, id="\ud800"),
        article(31, id="x" * 5000),
        article(32, id=7),
        article(33, id=" "),
        article(34, id=["x"]),
    ]
    directory, results = run(rows)
    assert results["kept"] == 25
    ids = {example.id for example in all_examples(directory)}
    assert "7" in ids
    assert max(map(len, ids)) == 16


def test_lone_surrogates_of_a_source_do_not_reach_the_splits(run: Run) -> None:
    rows = [article(n, title=f"\ud800{article(n)['title']}", source="市\udfff府", date="\ud800") for n in range(20)]
    directory, _ = run(rows)
    assert {(example.source, example.date) for example in all_examples(directory)} == {("市府", None)}


def cleaning_processes() -> list[psutil.Process]:
    # Its resource tracker is a child, too, and another test's process can just be ending.
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def wait_until_idle(processes: list[psutil.Process]) -> None:
    before: list[float] = []
    while (used := [process.cpu_times().user for process in processes]) != before:
        before = used
        time.sleep(0.5)


@pytest.mark.fault
@pytest.mark.parametrize("killed", [1, 2])
def test_a_worker_killed_in_the_middle_of_a_write_is_a_clear_error(killed: int) -> None:
    def rows() -> Iterator[Row]:
        for number in itertools.count():
            yield row(content=f"第{number}篇：" + "臺南市政府今日舉辦記者會，說明新的公園何時啟用。" * 40)
            if number == 6000:
                # Its chunk is far larger than a pipe holds, and nobody reads it now: it sleeps in its write.
                workers = cleaning_processes()
                wait_until_idle(workers)
                for worker in workers[:killed]:
                    worker.kill()

    with pytest.raises(DataError, match="a process that cleans articles died: for lack of memory"):
        list(clean_chunks(rows(), DataSettings(workers=2), None))


class UnreadableError(Exception):
    """An error that pickle writes but cannot read."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (DataError("no title"), DataError, "no title"),
        (UnreadableError(1, 2), DataError, r"articles cannot be cleaned: UnreadableError\('1 and 2'\)"),
        (ValueError(lambda: 0), DataError, "articles cannot be cleaned: ValueError"),
    ],
)
def test_an_error_of_a_worker_arrives(error: Exception, kind: type[Exception], text: str) -> None:
    arrived = pickle.loads(pickle.dumps(_portable(error)))  # noqa: S301 - our own
    assert type(arrived) is kind
    assert re.search(text, str(arrived))


# Near-duplicates.


def grams(text: str) -> set[str]:
    return {text[start : start + 5] for start in range(len(text) - 4)}


@given(
    st.text(alphabet="臺南市長ab，", min_size=5, max_size=60), st.text(alphabet="臺南市長ab，", min_size=5, max_size=60)
)
def test_shingle_sets_give_the_exact_jaccard_similarity(a: str, b: str) -> None:
    wanted = len(grams(a) & grams(b)) / len(grams(a) | grams(b))
    assert jaccard(shingle_set(a), shingle_set(b)) == pytest.approx(wanted)


@given(st.lists(st.text(max_size=12), max_size=8))
def test_shingles_of_many_texts_are_those_of_each(texts: list[str]) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    hashes, offsets = shingle_hashes(texts)
    assert len(offsets) == len(texts) + 1
    for text, start, end in zip(texts, offsets, offsets[1:], strict=False):
        assert np.array_equal(hashes[start:end], shingle_hashes([text])[0])


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 1.0])
def test_bands_miss_less_than_one_pair_in_ten_thousand_at_the_threshold(threshold: float) -> None:
    rows = rows_per_band(threshold)
    assert (1 - threshold**rows) ** (128 // rows) <= 1e-4
    assert rows == 128 or (1 - threshold ** (rows + 1)) ** (128 // (rows + 1)) > 1e-4


@pytest.mark.fault
def test_a_threshold_that_cannot_be_searched_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.near_duplicate is 0\.01"):
        rows_per_band(0.01)


def edited(text: str, edits: int, rng: random.Random) -> str:
    characters = list(text)
    for _ in range(edits):
        characters[rng.randrange(len(characters))] = rng.choice("的一是了不人在有這中")
    return "".join(characters)


def cluster(texts: list[str], threshold: float) -> list[int]:
    keys, signatures = sign(texts, threshold)
    clusters = Clusters(len(texts))
    join_similar(clusters, np.arange(len(texts)), iter(keys.T), signatures, texts.__getitem__, threshold)
    return clusters.labels().tolist()


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_clusters_are_the_components_of_exactly_similar_pairs(threshold: float) -> None:
    rng = seeded(3)
    texts = [edited(article(number)["content"], edits, rng) for number in range(25) for edits in (0, 2, 5, 9, 14, 20)]
    exact = Clusters(len(texts))
    sets = [grams(text) for text in texts]
    for a, b in itertools.combinations(range(len(texts)), 2):
        if len(sets[a] & sets[b]) / len(sets[a] | sets[b]) >= threshold:
            exact.join(a, b)
    assert len(set(exact.labels().tolist())) < len(texts)
    assert cluster(texts, threshold) == exact.labels().tolist()


def test_a_hundred_copies_are_one_cluster() -> None:
    rng = seeded(1)
    text = article(1, sentences=30)["content"]
    assert set(cluster([edited(text, number % 4, rng) for number in range(100)], 0.8)) == {0}


def plant(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return near-copies of some rows: characters changed, paragraphs moved, a sentence added or cut."""
    rng = seeded(11)
    copies: list[dict[str, Any]] = []
    for number, original in enumerate(rng.sample(rows, count)):
        text = original["content"]
        paragraphs = text.split("\n")
        match number % 4:
            case 0:
                content = edited(text, max(1, int(len(text) * rng.uniform(0, 0.02))), rng)
            case 1:
                content = "\n".join([*paragraphs[1:], paragraphs[0]])
            case 2:
                content = f"{text}臺南市政府今日再次表示，將持續推動各項建設，歡迎市民踴躍參加。"
            case _:
                content = "".join(split_sentences(text)[:-1]) or text
        if len(grams(content) & grams(text)) / len(grams(content) | grams(text)) < 0.8:
            content = edited(text, 2, rng)
        copies.append(
            {**original, "content": content, "title": edited(original["title"], 2, rng), "date": None, "original": text}
        )
    return copies


@pytest.mark.slow
@needs_real
def test_no_near_duplicate_crosses_the_splits_of_real_rows_with_planted_copies(run: Run) -> None:
    from scipy.sparse import csr_array

    rows = [json.loads(line) for path in REAL for line in path.read_text(encoding="utf-8").strip().split("\n")]
    assert len(rows) == 2767
    copies = plant(rows, 500)
    mixed = rows + [{**copy, "source": f"planted {number}"} for number, copy in enumerate(copies)]
    seeded(2).shuffle(mixed)
    directory, results = run(mixed, max_content_tokens=8000, max_title_tokens=500)
    examples = all_examples(directory)
    # A copy has no date, so that its original is the one that is kept, unless the filters dropped the original.
    kept = {example.content for example in examples}
    missed = [
        example.source
        for example in examples
        if example.source.startswith("planted")
        and clean_content(copies[int(example.source.split()[1])]["original"]) in kept
    ]
    assert len(missed) <= 5
    assert dropped(results)["near_duplicate"] >= 495
    assert len(examples) > 2700
    assert results["naive_leak_rate"] > 0.15
    split_of = np.repeat([0, 1, 2], [results["splits"][name] for name in ("train", "val", "test")])
    vocabulary: dict[str, int] = {}
    places = [
        (number, vocabulary.setdefault(gram, len(vocabulary)))
        for number, e in enumerate(examples)
        for gram in grams(e.content)
    ]
    held = csr_array(
        (np.ones(len(places), dtype=np.int32), tuple(zip(*places, strict=True))), shape=(len(examples), len(vocabulary))
    )
    sizes, shared = np.asarray(held.sum(axis=1)), (held @ held.T).tocoo()
    similarity = shared.data / (sizes[shared.row] + sizes[shared.col] - shared.data)
    across = split_of[shared.row] != split_of[shared.col]
    assert similarity[across].max() < 0.8
    assert similarity[shared.row < shared.col].max() < 0.8


def test_articles_that_only_differ_beyond_the_token_budget_do_not_both_stay(run: Run) -> None:
    rows = [article(number) for number in range(30)]
    rows += [
        {
            **article(number),
            "title": f"另一個標題 {number}號",
            "content": article(number)["content"] + article(100 + number, 30)["content"],
        }
        for number in range(5)
    ]
    _, results = run(rows, max_content_tokens=120)
    assert dropped(results) == {"near_duplicate": 5}


# Shortening.


def test_how_much_of_the_text_was_left_out_is_counted_with_the_setting(run: Run) -> None:
    rows = [article(number, 20) for number in range(30)]
    whole, results = run(rows, max_content_tokens=8000)
    assert results["left_out_share"] == 0
    directory, results = run(rows, max_content_tokens=120)
    texts = [
        "".join(example.content for split in SPLITS for example in load_split(folder, split))
        for folder in (whole, directory)
    ]
    assert results["left_out_share"] == pytest.approx(1 - len(texts[1]) / len(texts[0]), abs=1e-4)
    assert results["left_out_share"] > 0.5
    assert list(results["left_out_by"]) == ["data.max_content_tokens", 120]
    said = f"{results['left_out_share']:.0%} of the text of all cleaned articles was left out"
    assert said in (directory / "data.md").read_text(encoding="utf-8")


def test_a_counter_ignores_truncation_and_padding(tokenizer_file: Path) -> None:
    count = load_counter(tokenizer_file)
    assert count("") == 0
    assert count(article(1)["content"]) > 100


def test_a_counter_counts_the_tokens_that_the_tokenizer_gives(tokenizer_file: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    count = load_counter(tokenizer_file)
    texts = [*(article(number)["content"] for number in range(5)), "Ａ級 <b>𠮷</b>\n 🎉\u3000<start_of_turn>", " ", ""]
    assert [count(text) for text in texts] == [
        len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts
    ]


@pytest.mark.fault
def test_a_file_that_is_no_tokenizer_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer\.json is not a tokenizer\.json"):
        load_counter(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("budget", [16, 60, 200])
def test_every_strategy_keeps_the_budget_and_the_order(tokenizer_file: Path, strategy: Any, budget: int) -> None:
    count = load_counter(tokenizer_file)
    for number in range(8):
        text = article(number, sentences=40)["content"]
        short = shorten(text, budget, strategy, count)
        assert 0 < count(short) <= budget
        if strategy != "textrank":
            assert text.startswith(short)
        kept = [text.index(sentence) for sentence in split_sentences(short)]
        assert kept == sorted(kept)


def test_an_article_within_its_budget_is_untouched_by_every_strategy(tokenizer_file: Path) -> None:
    text = article(1, sentences=5)["content"]
    assert {shorten(text, 1536, strategy, load_counter(tokenizer_file)) for strategy in STRATEGIES} == {text}


def test_truncation_ends_at_a_sentence_and_lead_has_three(tokenizer_file: Path) -> None:
    count = load_counter(tokenizer_file)
    text = article(1, sentences=40)["content"]
    assert shorten(text, 300, "truncate", count).endswith("。")
    assert shorten(text, count(text) - 1, "lead", count) == "".join(split_sentences(text)[:3])


def test_textrank_prefers_the_sentence_that_the_others_share() -> None:
    sentences = [
        "颱風逼近南部。",
        "市府宣布停班。",
        "颱風逼近南部，市府宣布停班，漁民返港。",
        "漁民返港避風。",
        "股市收紅。",
    ]
    ranks = sentence_ranks(sentences)
    assert ranks.index(max(ranks)) == 2
    assert ranks.index(min(ranks)) == 4
    assert sum(ranks) == pytest.approx(1)
    assert sentence_ranks([]) == []


@given(st.lists(st.text(alphabet="臺南ab。", max_size=10), max_size=12))
def test_any_sentences_can_be_ranked(sentences: list[str]) -> None:
    ranks = sentence_ranks(sentences)
    assert len(ranks) == len(sentences)
    assert not sentences or sum(ranks) == pytest.approx(1, abs=1e-6)


def test_title_coverage_counts_distinct_letters() -> None:
    assert title_coverage("台南 停電！台電", "台南市昨晚停水") == pytest.approx(3 / 4)
    assert title_coverage("！", "台南") == 0


def test_the_card_compares_the_strategies_on_long_articles(run: Run) -> None:
    rows = [
        article(number, sentences=40, title=f"{article(number, sentences=40)['content'][-20:-10]} {number}號")
        for number in range(30)
    ]
    _, results = run(rows, max_content_tokens=120)
    assert results["shortened"] == 30
    coverage = results["coverage"]["title_coverage"]
    assert results["coverage"]["articles"] == 30
    assert set(coverage) == {"full", *STRATEGIES}
    assert coverage["full"] > max(coverage[strategy] for strategy in STRATEGIES) > 0.3


# Splits.


def test_a_time_split_trains_on_the_past_and_no_day_is_in_two_splits(run: Run) -> None:
    rows = [article(number) for number in range(300)] + [article(number, date=None) for number in range(400, 420)]
    directory, results = run(rows, split="time")
    days = {
        split: [example.date or "" for example in load_split(directory, split)] for split in ("train", "val", "test")
    }
    assert "" in days["train"]
    assert results["undated"] == 20
    assert max(days["train"]) < min(days["val"])
    assert max(days["val"]) < min(days["test"])
    assert results["splits"]["test"] >= 32
    assert results["splits"]["val"] >= 32


@pytest.mark.fault
def test_a_time_split_without_dates_is_a_clear_error(run: Run) -> None:
    with pytest.raises(DataError, match=r"no article has a date; name its column with --data\.date-column"):
        run([article(number, date=None) for number in range(30)], split="time")


@pytest.mark.fault
@pytest.mark.parametrize(("count", "name"), [(2, "val"), (1, "val")])
def test_an_empty_split_is_a_clear_error(run: Run, count: int, name: str) -> None:
    with pytest.raises(DataError, match=rf"the {name} split is empty: {count} articles are left"):
        run([article(number) for number in range(count)])


@pytest.mark.fault
def test_a_time_split_of_one_day_is_a_clear_error(run: Run) -> None:
    with pytest.raises(DataError, match="the train split is empty"):
        run([article(number, date="2024-05-01") for number in range(30)], split="time")


@pytest.mark.parametrize("count", [3, 4, 12])
@pytest.mark.parametrize("split", ["random", "time"])
def test_a_share_of_few_articles_is_one_at_least(run: Run, count: int, split: str) -> None:
    rows = [article(number, date=f"2024-05-{number + 1:02d}") for number in range(count)]
    _, results = run(rows, val_share=0.03, test_share=0.06, split=split)
    assert results["splits"] == {"train": count - 2, "val": 1, "test": 1}


def test_a_share_of_nothing_gives_an_empty_file(run: Run) -> None:
    directory, results = run([article(number) for number in range(10)], val_share=0, test_share=0.2)
    assert results["splits"] == {"train": 8, "val": 0, "test": 2}
    assert load_split(directory, "val") == []


@pytest.mark.fault
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_share": 0.5, "test_share": 0.5}, "leave nothing to train on"),
        ({"min_title_chars": 70}, "is above data.max_title_chars"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(run: Run, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run([article(1)], **options)


def test_another_seed_gives_another_split_of_the_same_articles(run: Run) -> None:
    rows = [article(number) for number in range(60)]
    (one, _), (two, _) = run(rows, seed=1), run(rows, seed=2)
    assert set(all_examples(one)) == set(all_examples(two))
    assert set(load_split(one, "test")) != set(load_split(two, "test"))


def test_balancing_evens_title_lengths_in_train_alone(run: Run) -> None:
    rows = [
        article(n, title=f"{'市府持續推動建設改善交通環境爭取補助'[: 8 + n % 2 * 10 + n % 7 // 6 * 4]}{n:03d}")
        for n in range(120)
    ]
    (plain, _), (balanced, results) = run(rows), run(rows, balance=True)
    for split in ("val", "test"):
        assert load_split(plain, split) == load_split(balanced, split)

    def spread(directory: Path) -> list[int]:
        lengths = [len(example.title) for example in load_split(directory, "train")]
        counts = np.bincount(np.digitize(lengths, (10, 14, 18, 22, 26), right=True))
        return counts[counts > 0].tolist()

    assert max(spread(balanced)) / min(spread(balanced)) < max(spread(plain)) / min(spread(plain))
    train = load_split(balanced, "train")
    assert len({example.id for example in train}) == len(train) == results["splits"]["train"]
    assert {example.title for example in train} <= {example.title for example in load_split(plain, "train")}


# Determinism.


@needs_real
def test_the_bytes_do_not_depend_on_workers_or_row_order(run: Run) -> None:
    lines = [line for path in REAL for line in path.read_text(encoding="utf-8").strip().split("\n")]
    # More than one process starts at all only from 2,000 rows on.
    rows = [json.loads(line) for line in lines[:2100]]
    rows += plant(rows, 40)
    first = everything(run(rows, workers=1, max_content_tokens=300)[0])
    seeded(9).shuffle(rows)
    assert everything(run(rows, workers=2, max_content_tokens=300)[0]) == first


@pytest.mark.fault
def test_an_unwritable_folder_is_a_clear_error(tokenizer_file: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(number) for number in range(20)])
    with pytest.raises(FileNotFoundError):
        prepare(DataSettings(source=str(source)), tokenizer_file, tmp_path / "missing")


# The data card.


def test_the_card_shows_counts_reasons_rules_and_a_picture(run: Run) -> None:
    rows = [article(n, content=f"（記者王大明／台北報導）{article(n)['content']}") for n in range(30)] + [
        article(77, title="短")
    ]
    directory, _ = run(rows)
    text = (directory / "data.md").read_text(encoding="utf-8")
    assert "| title_short | 31 | 1 | 30 |" in text
    assert "| byline | 31 | 31 |"[:10] in text
    assert "（記者王大明／台北報導）" in text
    assert "31 rows in, 30 articles kept; train 24, val 3, test 3." in text
    assert (directory / "lengths.png").read_bytes().startswith(b"\x89PNG")
    card = json.loads((directory / "data.json").read_text(encoding="utf-8"))
    assert card["rules"]["content"]["byline"]["articles"] == 30
    assert card["length_chars"]["content_before"]["count"] == 31
    assert card["length_chars"]["content_after"]["count"] == 30


@pytest.mark.parametrize("longest", [0, 1, 26, 39, 40, 400, 3001])
def test_a_bar_of_the_picture_stands_for_whole_characters(longest: int) -> None:
    edges = bin_edges(longest)
    widths = {right - left for left, right in itertools.pairwise(edges)}
    (width,) = widths
    assert width >= 1
    assert width == int(width)
    assert edges[0] == -0.5
    assert edges[-1] > longest
    assert len(edges) <= 41


def test_nothing_out_of_an_article_becomes_markup_in_the_card(run: Run) -> None:
    evil = "（圖／x|y*z*![a](javascript:1)`<img src=x onerror=1>提供）"
    directory, _ = run([article(number, content=evil + article(number)["content"]) for number in range(30)])
    for line in (directory / "data.md").read_text(encoding="utf-8").split("\n"):
        assert "<" not in line
        if line.startswith("| caption"):
            assert line.replace("\\|", "").count("|") == 6
            assert "](" not in line.replace("\\]", "")


def test_lengths_are_summarised_by_quantiles() -> None:
    assert summarise({1: 1, 2: 98, 50: 1}) == {
        "count": 100,
        "mean": 2.5,
        "min": 1,
        "p5": 2,
        "median": 2,
        "p95": 2,
        "max": 50,
    }
    assert summarise({}) == {"count": 0}


def test_the_card_is_rendered_without_any_article(run: Run) -> None:
    directory, _ = run([article(number) for number in range(20)])
    card = DataCard.model_validate_json((directory / "data.json").read_bytes())
    assert render_card(card) == (directory / "data.md").read_text(encoding="utf-8")
