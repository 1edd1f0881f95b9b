"""The report in both languages: every text is there, both limits stand in it, and on what was measured."""

import inspect
import re
from html import unescape
from importlib import resources
from pathlib import Path

import pytest
from corpus import corpus_rows

from titlegen import specification
from titlegen.control import Control
from titlegen.data import Example
from titlegen.evaluate import Report, Variant, evaluate, write_report
from titlegen.evaluate.gates import stand
from titlegen.evaluate.words import Words, read_table
from titlegen.metrics import baselines
from titlegen.metrics.contract import style_violations, title_violations
from titlegen.metrics.records import SCORES
from titlegen.results import Dataset, Score
from titlegen.settings import EvaluateSettings, GateSettings, Language, ReportSettings

EXAMPLES = [
    Example(f"a{number}", row["content"], row["title"], "corpus", row.get("date"))
    for number, row in enumerate(corpus_rows()[:24])
]
LEADS = [baselines.lead(example.content) for example in EXAMPLES]
SETTINGS = EvaluateSettings(resamples=200)
SAME_IN_BOTH = {"ROUGE-1", "ROUGE-2", "ROUGE-L", "BLEU-1", "Lead-1", "TextRank", "JSON", "、"}


@pytest.fixture(scope="module")
def report() -> Report:
    titles = [*LEADS[:-2], f"標題：{EXAMPLES[-2].title}！！", f"「{EXAMPLES[-1].title}98765人」"]
    return evaluate(EXAMPLES, titles, SETTINGS, base_predictions=LEADS, dataset="embedded")


def pages(report: Report, folder: Path, language: Language) -> tuple[str, str]:
    """Return report.html and report.md in a language."""
    write_report(report, folder, language=language)
    html, markdown = ((folder / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    return html, markdown


def text_of(page: str) -> str:
    """Return what a page says, without its markup and style."""
    return unescape(re.sub(r"<[^>]*>", "", page.partition("</style>")[2]))


def test_every_text_of_the_report_is_there_in_both_languages() -> None:
    for key, texts in read_table().items():
        assert {"en", "zh-TW"} <= set(texts) <= {"en", "zh-TW", "en-one"}, key
        names = {language: set(re.findall(r"{(\w+)}", text)) for language, text in texts.items()}
        assert names["en"] == names["zh-TW"], key
        assert names.get("en-one", set()) <= names["en"], key
        assert re.search(r"[一-鿿]", texts["zh-TW"]) or texts["zh-TW"] in SAME_IN_BOTH, key
        assert not re.search(r"[一-鿿]", texts["en"].replace("標題：", "")), key
    known = set(read_table())
    used = set()
    for name in ("report.html.j2", "report.md.j2"):
        template = (resources.files("titlegen") / name).read_text(encoding="utf-8")
        used |= set(re.findall(r"\bt\(\"([\w.]+)\"[,)]", template))
        prefixes = set(re.findall(r"\bt\(\"([\w.]+\.)\" ~", template))
        assert all(any(key.startswith(prefix) for key in known) for prefix in prefixes)
        used |= {key for key in known if key.startswith(tuple(prefixes))}
    assert used <= known
    # Of measured and advice, the code chooses; `other` is for a gate of a report from elsewhere.
    assert {key for key in known - used if not key.startswith(("measured.", "split.", "advice."))} == set()


def test_the_table_has_every_name_that_a_report_can_show() -> None:
    known = set(read_table())
    assert {f"score.{name}" for name in SCORES} <= known
    assert {f"advice.{name}" for name in GateSettings.model_fields} <= known
    assert set(specification.SCORES) == set(GateSettings.model_fields)
    for function in (title_violations, style_violations):
        names = re.findall(r'(?:append\(|\[|\()"(\w+)"', inspect.getsource(function))
        assert names
        assert {f"fault.{name}" for name in names} <= known


def test_a_report_in_chinese_has_no_english_left(report: Report, tmp_path: Path) -> None:
    html, markdown = pages(report, tmp_path, "zh-TW")
    assert '<html lang="zh-Hant-TW">' in html
    shown = text_of(html)
    for key, texts in read_table().items():
        if "{" not in texts["en"] and texts["en"] != texts["zh-TW"] and len(texts["en"]) > 3:
            words = rf"(?<![\w.-]){re.escape(texts['en'])}(?![\w.-])"
            assert not re.search(words, shown.partition(Words("zh-TW")("made.heading"))[0]), key
            assert not re.search(words, markdown.partition(Words("zh-TW")("made.heading"))[0]), key
    assert "測試集，未參與訓練" in shown


@pytest.mark.parametrize(
    ("source", "en", "zh"),
    [
        ("embedded", "24 fictional articles, written for titlegen", "24 篇虛構文章，為 titlegen 所寫"),
        (
            "AWeirdDev/zh-tw-pts-articles-sm",
            "24 real news articles of AWeirdDev/zh-tw",
            "24 篇真實新聞，出自 AWeirdDev",
        ),
        ("club/news", "24 articles of club/news, a data set of your own", "24 篇文章，出自你自己的資料 club/news"),
        (None, "24 articles (held out", "24 篇文章（測試集"),
    ],
)
def test_beside_the_scores_stands_on_what_they_were_measured(
    tmp_path: Path, source: str | None, en: str, zh: str
) -> None:
    report = evaluate(EXAMPLES, LEADS, SETTINGS, dataset=source)
    texts: dict[Language, str] = {"en": en, "zh-TW": zh}
    for language, text in texts.items():
        html, markdown = pages(report, tmp_path, language)
        assert text_of(html).count(text) >= 2, "above the gates and above the table"
        assert text in markdown.replace("\\", "")


def test_a_users_file_is_named_without_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "mine <b>.csv"
    path.touch()
    report = evaluate(EXAMPLES, LEADS, SETTINGS, dataset=str(path))
    assert report.content.dataset == Dataset(name="mine <b>.csv", kind="own")
    html, _ = pages(report, tmp_path, "en")
    assert "mine &lt;b&gt;.csv" in html


@pytest.mark.fault
def test_both_limits_stand_in_the_report_and_a_relaxed_one_is_no_pass(tmp_path: Path) -> None:
    gates = GateSettings(rougeL=0.01, bleu1=0.01, title_only_rate=-1, length_rate=0.01)
    report = evaluate(EXAMPLES, LEADS, SETTINGS.model_copy(update={"gates": gates}))
    assert [gate.verdict for gate in report.content.gates] == ["pass"] * 3
    specified = {gate.name: gate.limit for gate in report.content.specification}
    assert specified == specification.SCORES
    html, markdown = pages(report, tmp_path, "en")
    assert html.count('class="gate relaxed"') == 4, "titles cut out of the articles meet none of the four"
    assert 'class="gate passed"' not in html
    for text in (text_of(html), markdown):
        assert "limit 0.45: fail" in text
        assert "limit 0.01: pass" in text
    assert "| **relaxed** | limit 0.45: fail | limit 0.01: pass |" in markdown
    assert "--train.num-train-epochs" in text_of(html)


def test_what_two_verdicts_make_of_a_score() -> None:
    assert stand("pass", "pass") == "passed"
    assert stand(None, "pass") == "passed"
    assert [stand(own, other) for own in ("pass", None) for other in ("fail", "undecided")] == ["relaxed"] * 4
    assert [stand("undecided", other) for other in ("pass", "fail", "undecided")] == ["undecided"] * 3
    assert [stand("fail", other) for other in ("pass", "fail", "undecided")] == ["failed"] * 3


def test_the_wide_table_of_a_phone_says_that_it_goes_on(report: Report, tmp_path: Path) -> None:
    hints: dict[Language, str] = {"en": "sideways", "zh-TW": "左右滑動"}
    for language, hint in hints.items():
        html, _ = pages(report, tmp_path, language)
        start = html.index('<p class="hint">')
        assert hint in html[start : start + 80]
        assert re.match(r'<p class="hint">.*</p>\n<div class="scroll" tabindex="0" role="region"', html[start:])
        assert re.search(r"@media \(max-width: [\d.]+rem\) { \.hint { display: block; } }", html)


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({}, "en"),
        ({"LANG": "zh_TW.UTF-8"}, "zh-TW"),
        ({"LANG": "zh_HK"}, "zh-TW"),
        ({"LANG": "zh-Hant-TW.UTF-8"}, "zh-TW"),
        ({"LANG": "zh_TW.UTF-8", "LC_ALL": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_TW.UTF-8"}, "zh-TW"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "zh_TW:en"}, "zh-TW"),
        # As for gettext, who has no locale has no language.
        ({"LANG": "C.UTF-8", "LANGUAGE": "zh_TW"}, "en"),
        ({"LC_ALL": "", "LANG": "zh_TW.UTF-8"}, "zh-TW"),
        ({"LANG": "ja_JP.UTF-8"}, "en"),
    ],
)
def test_the_users_locale_chooses_the_language(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], language: str
) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "LANGUAGE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ReportSettings().chosen_language == language
    assert ReportSettings(language="en").chosen_language == "en"
    assert ReportSettings(language="zh-TW").chosen_language == "zh-TW"


def test_other_titles_for_the_same_articles_stand_beside(tmp_path: Path) -> None:
    ours = [example.title for example in EXAMPLES]
    controls = [Control(13) if number % 2 else Control(None, ("臺",)) for number in range(len(ours))]
    variants = [
        Variant("sft", ["無關" * 5] * len(ours)),
        Variant("best_of", ours, 8),
        Variant("controlled", ["臺" + "字" * 11] * len(ours), 1, controls),
    ]
    report = evaluate(EXAMPLES, ours, SETTINGS, variants=variants)
    sft, best, controlled = report.content.variants
    assert sft.differences["rougeL"].high < 0
    assert best.differences["rougeL"] == Score(0.0, 0.0, 0.0)
    assert (controlled.in_slot_share, controlled.with_word_share) == (1.0, 1.0)
    assert sft.in_slot_share is None
    expected: dict[Language, str] = {"en": "before preference training", "zh-TW": "偏好訓練之前"}
    for language, text in expected.items():
        for page in pages(report, tmp_path / language, language):
            assert text in page
            assert "100%" in page
