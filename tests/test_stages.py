"""The stages in order, on a tiny model: what runs, what is up to date, what a change makes stale."""

import concurrent.futures
import dataclasses
import errno
import fcntl
import json
import math
import os
import re
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from titlegen import hub, manifest, prompt, release, runs, scoring, service, stages, summary, train
from titlegen.cli import main
from titlegen.console import EXIT_DONE, EXIT_ERROR
from titlegen.data import load_split
from titlegen.data.shorten import load_counter
from titlegen.errors import DataError, HubError, VerifyError
from titlegen.families.gemma3 import FAMILY as GEMMA3
from titlegen.families.gemma3 import PROMPT
from titlegen.prompt import PromptFormat
from titlegen.results import Pushed, Result
from titlegen.runs import Folder, Run, Stage, StageRun
from titlegen.settings import Settings, load_settings


@pytest.fixture(scope="module")
def arguments(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        "output": tmp_path_factory.mktemp("outputs"),
        "model": {"base": str(tiny_base)},
        "data": {"limit": 40, "max_content_tokens": 64, "test_share": 0.1, "val_share": 0.1},
        # With this seed no two tokens of the compared titles are all but as likely, so that F16 parts none of them.
        "train": {"num_train_epochs": 1, "max_length": 256, "save_steps": 4, "init_adapter": None, "seed": 1},
        "export": {"gguf_types": ("f16",), "verify_articles": 2},
        "evaluate": {"target": "merged", "limit": 3, "max_new_tokens": 6, "base_model": True},
    }


@pytest.fixture(scope="module")
def settings(arguments: dict[str, Any]) -> Settings:
    return load_settings(**arguments)


def changed(settings: Settings, stage: str, **values: Any) -> Settings:
    return settings.model_copy(update={stage: getattr(settings, stage).model_copy(update=values)})


def ran(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the stages that had something to do."""
    return [line.partition(":")[0] for line in capsys.readouterr().err.splitlines() if line.endswith(": running")]


def test_the_first_run_does_everything_and_the_second_nothing(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run = scoring.evaluate(Run(settings))
    assert ran(capsys) == ["prepare", "train", "merge", "gguf", "evaluate"]
    assert run.manifest.results["report"]["rows"] == 3
    for folder in ("data", "lora", "final-hf", "gguf", "report"):
        assert (settings.directory / folder / "manifest.json").is_file()
    assert {"train.jsonl", "val.jsonl", "test.jsonl"} <= {path.name for path in (settings.directory / "data").iterdir()}
    again = scoring.evaluate(Run(settings))
    assert ran(capsys) == []
    assert not again.fresh
    assert not (settings.directory / ".checkpoints").exists() or not list(
        (settings.directory / ".checkpoints").iterdir()
    )


def test_text_that_was_left_out_is_said_with_its_setting(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = changed(settings.model_copy(update={"output": tmp_path}), "train", max_length=120)
    stages.bring_up_to_date(Run(both), *stages.stages_up_to(stages.TRAIN))
    said = capsys.readouterr().err
    assert re.search(r"prepare: \d\d% of the text left out to fit data\.max_content_tokens 64\n", said)
    assert re.search(r"train: \d+% of the text left out to fit train\.max_length 120\n", said)
    # The adapter's articles are no longer, so the served ones are neither.
    merged = stages.bring_up_to_date(Run(both), *stages.stages_up_to(stages.MERGE))
    around = load_counter(merged.directory / "tokenizer.json")(PROMPT.render(""))
    assert merged.manifest.results["content_tokens"] == min(64, 120 - around)
    table = summary.table(both)
    assert re.search(r"\d+ test, \d\d% of the text left out to fit data\.max_content_tokens 64", table)
    assert re.search(r"steps, training loss [\d.]+ to [\d.]+, validation loss [\d.]+, \d+% of the text left out", table)


def test_a_run_finds_its_base_model_once_and_hashes_no_weights_twice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring.evaluate(Run(settings))
    resolved, hashed = [], []
    resolve, digest = runs.resolve_base, manifest.digest_file
    monkeypatch.setattr(runs, "resolve_base", lambda base: resolved.append(base) or resolve(base))
    monkeypatch.setattr(manifest, "digest_file", lambda path: hashed.append(path) or digest(path))
    # Where a report and a proof are made, and where everything is there.
    other = changed(changed(settings, "evaluate", limit=2), "export", verify_articles=1)
    other = changed(other, "hub", allow_failed_gates=True)
    for _ in range(2):
        run = Run(other)
        scoring.evaluate(run)
        stages.bring_up_to_date(run, *stages.PIPELINE)
        with hub.assembly.assemble_files(release.artefacts(run), run.settings, "org/name") as staged:
            assert staged.evaluated
        assert len(resolved) == 1
        weights = [path for path in hashed if path.suffix in {".safetensors", ".gguf"}]
        assert sorted(path.parent.name for path in weights) == ["final-hf", "gguf", "lora"]
        resolved.clear()
        hashed.clear()


@pytest.mark.parametrize(
    ("stage", "values", "expected"),
    [
        ("evaluate", {"limit": 2}, ["evaluate"]),
        ("export", {"gguf_types": ("q8_0",)}, ["gguf", "evaluate"]),
        ("data", {"workers": 1}, []),
        ("serve", {"temperature": 0.1}, []),
        ("report", {"language": "zh-TW"}, ["evaluate"]),
    ],
)
def test_a_changed_setting_runs_exactly_what_depends_on_it(
    settings: Settings, capsys: pytest.CaptureFixture[str], stage: str, values: dict[str, Any], expected: list[str]
) -> None:
    scoring.evaluate(Run(settings))
    capsys.readouterr()
    scoring.evaluate(Run(changed(settings, stage, **values)))
    assert ran(capsys) == expected
    scoring.evaluate(Run(settings))


def test_another_language_or_gate_writes_the_report_anew_and_no_title(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring.evaluate(Run(settings))
    report = settings.directory / "report"
    titles = (report / "predictions.jsonl").read_bytes()

    def refuse(*_: Any) -> None:
        raise AssertionError("no title is needed again")

    monkeypatch.setattr(scoring, "_titles", refuse)
    chinese = changed(settings, "report", language="zh-TW")
    assert scoring.evaluate(Run(chinese)).fresh
    assert "標題品質報告" in (report / "report.html").read_text(encoding="utf-8")
    assert (report / "predictions.jsonl").read_bytes() == titles
    gates = settings.evaluate.gates.model_copy(update={"bleu1": -1.0})
    assert scoring.evaluate(Run(changed(chinese, "evaluate", gates=gates))).fresh
    # What was touched is not taken over.
    with (report / "predictions.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(AssertionError, match="no title is needed again"):
        scoring.evaluate(Run(settings))


# huggingface_hub hands a file's content to httpx by a name that httpx gave up.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
def test_empty_splits_are_pushed_and_not_scored(arguments: dict[str, Any], tmp_path: Path) -> None:
    data = arguments["data"] | {"test_share": 0.0, "val_share": 0.0}
    # What a model of another train split writes is compared elsewhere.
    export = arguments["export"] | {"verify_articles": 0}
    given = arguments | {"output": tmp_path, "data": data, "export": export, "hub": {"offline_port": 0}}
    settings = load_settings(**given)
    try:
        assert release.push(Run(settings)).committed
        assert not release.push(Run(settings)).committed
    finally:
        service.stop_servers(settings)
    for split in ("test", "val"):
        with pytest.raises(DataError, match=rf"the {split} split is empty.*--data\.{split}-share"):
            scoring.evaluate(Run(changed(settings, "evaluate", split=split)))


@pytest.mark.slow
def test_two_runs_with_the_same_seed_give_the_same_data_adapter_and_report(settings: Settings, tmp_path: Path) -> None:
    other = settings.model_copy(update={"output": tmp_path})
    scoring.evaluate(Run(settings))
    scoring.evaluate(Run(other))
    same = [f"data/{split}.jsonl" for split in ("train", "val", "test")]
    same += ["lora/adapter_model.safetensors", "final-hf/model.safetensors", "report/predictions.jsonl"]
    for name in same:
        assert (settings.directory / name).read_bytes() == (other.directory / name).read_bytes(), name
    first, second = (json.loads((s.directory / "report" / "report.json").read_bytes()) for s in (settings, other))
    # How the titles came to be names the folder, and the seconds that they took.
    assert first.pop("generation")["model"] != second.pop("generation")["model"]
    assert first == second


def stale(run: Run) -> list[str]:
    """Return the stages of a finished run whose keys no longer fit, whatever the stages before them would give."""
    found = []
    for make in [*(lambda stage=stage: stage for stage in stages.PIPELINE), lambda: scoring._scoring(run, None, None)]:
        stage = make()
        if not stage.applies(run):
            continue
        directory = run.folder(stage.folder)
        key = stage.key(run)
        if not manifest.is_up_to_date(directory, key):
            found.append(stage.name)
        run.done[stage.name] = StageRun(stage.name, directory, manifest.read_manifest(directory), fresh=True)
    return found


RENDERING = ["train", "merge", "verify", "evaluate"]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SYSTEM", "你是標題編輯。", RENDERING),
        ("INSTRUCTION", "請下標：", ["prepare", *RENDERING]),
        ("bos", "", RENDERING),
        ("start_of_turn", "<turn>", RENDERING),
        ("end_of_turn", "<end>", RENDERING),
        ("opening", "user: ", RENDERING),
        ("before_system", "<system>", RENDERING),
        ("after_system", "", RENDERING),
        ("before_text", "<text>", RENDERING),
        ("after_text", "\n", RENDERING),
        ("chat_template", "{{ bos_token }}", RENDERING),
        ("control", re.compile("<(?=bos>)"), RENDERING),
        ("stop", ("<end_of_turn>", "<eos>"), RENDERING),
        ("template", "{{ .Prompt }}", RENDERING),
        ("neutralise", lambda _, text: text, RENDERING),
    ],
)
def test_a_changed_prompt_makes_stale_what_renders_it_and_nothing_else(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, expected: list[str]
) -> None:
    run = Run(settings)
    scoring.evaluate(run)
    stages.bring_up_to_date(run, *stages.PIPELINE)
    assert stale(Run(settings)) == []
    if name in {field.name for field in dataclasses.fields(PROMPT)}:
        family = dataclasses.replace(GEMMA3, prompt=dataclasses.replace(PROMPT, **{name: value}))
        monkeypatch.setattr(Run, "family", family)
    else:
        monkeypatch.setattr(prompt if name.isupper() else PromptFormat, name, value)
    assert stale(Run(settings)) == expected


def test_what_changes_the_speed_alone_makes_nothing_stale(settings: Settings) -> None:
    run = Run(settings)
    scoring.evaluate(run)
    stages.bring_up_to_date(run, *stages.PIPELINE)
    faster = {
        "data": settings.data.model_copy(update={"workers": 2}),
        "train": settings.train.model_copy(update={"devices": 1}),
        "evaluate": settings.evaluate.model_copy(update={"devices": 1, "compile": True}),
    }
    assert stale(Run(settings.model_copy(update=faster))) == []
    slower = {"evaluate": settings.evaluate.model_copy(update={"max_new_tokens": 12})}
    assert stale(Run(settings.model_copy(update=slower))) == ["evaluate"]


@pytest.mark.fault
def test_kept_titles_are_of_this_prompt(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scoring.evaluate(Run(settings))
    kept = settings.directory / ".predictions" / "base.jsonl"
    before = kept.read_text("utf-8").splitlines()
    capsys.readouterr()
    monkeypatch.setattr(prompt, "SYSTEM", "你是標題編輯。")
    # It would say that the base model's chat template is another now.
    monkeypatch.setattr(train, "check_tokenizer", lambda *_: None)
    scoring.evaluate(Run(settings))
    assert {"train", "evaluate"} <= {*ran(capsys)}
    after = kept.read_text("utf-8").splitlines()
    assert len(after) == len(before)
    assert after[0] != before[0]
    monkeypatch.undo()
    scoring.evaluate(Run(settings))


@pytest.mark.fault
# A changed adapter would prove itself: the merge is compared with it.
@pytest.mark.parametrize("name", ["final-hf/model.safetensors", "lora/adapter_model.safetensors"])
def test_a_touched_export_or_adapter_is_not_verified(settings: Settings, name: str) -> None:
    stages.bring_up_to_date(Run(settings), *stages.stages_up_to(stages.CONVERT))
    path = settings.directory / name
    original = path.read_bytes()
    path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    try:
        with pytest.raises(VerifyError, match=rf"{re.escape(path.name)} changed"):
            stages.bring_up_to_date(Run(settings), *stages.PIPELINE)
    finally:
        path.write_bytes(original)


def test_the_table_shows_stages_and_scores(settings: Settings) -> None:
    scoring.evaluate(Run(settings))
    run = Run(changed(settings, "evaluate", limit=2))
    text = summary.describe_evaluation(run, scoring.evaluate(run))
    for word in ("prepare", "train", "merge", "gguf", "evaluate", "rougeL", "Lead-1", "untuned"):
        assert word in text
    assert str(settings.directory / "final-hf") in text
    # Who asks again asks for the scores.
    run = Run(run.settings)
    text = summary.describe_evaluation(run, scoring.evaluate(run))
    assert "rougeL" in text
    assert str(settings.directory / "report" / "report.html") in text
    assert "prepare" not in text
    scoring.evaluate(Run(settings))


@pytest.mark.fault
def test_an_output_that_cannot_be_written_names_the_remedy(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocker = tmp_path / "file"
    blocker.touch()
    assert main(["prepare", "--output", str(blocker), "--model.base", str(tiny_base)]) == EXIT_ERROR
    assert "choose another folder with --output" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.fault
def test_a_broken_line_is_named_and_nothing_is_written(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        json.dumps({"content": f"台北市政府宣布第{i}項計畫。" * 8, "title": f"北市公布第{i}項新計畫"})
        for i in range(30)
    ]
    source = tmp_path / "articles.jsonl"
    source.write_text("\n".join([*rows[:4], '{"content": "缺了', *rows[4:]]), encoding="utf-8")
    command = [
        "prepare",
        "--output",
        str(tmp_path / "out"),
        "--model.base",
        str(tiny_base),
        "--data.source",
        str(source),
    ]
    assert main(command) == EXIT_ERROR
    assert "line 5" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out" / "quickstart" / "data").exists()
    source.write_text("\n".join(rows), encoding="utf-8")
    assert main([*command, "--data.title-column", "headline"]) == EXIT_ERROR
    assert "headline" in capsys.readouterr().err.splitlines()[-1]


def test_prepare_prints_json_for_programs(tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--output", str(tmp_path), "--model.base", str(tiny_base), "--json"]) == EXIT_DONE
    captured = capsys.readouterr()
    assert json.loads(captured.out)["splits"]["train"] > 100


class Served:
    """A client of a server that writes these titles."""

    def __init__(self, titles: list[str]) -> None:
        self.titles = iter(titles)

    def ask(self, _: str, __: dict[str, Any]) -> Any:
        return SimpleNamespace(raw=next(self.titles))


def test_a_test_split_smaller_than_the_comparison_is_filled_up(settings: Settings) -> None:
    stages.bring_up_to_date(Run(settings), stages.PREPARE)
    titles = [f"標題{number}" for number in range(8)]
    assert len((settings.directory / "data" / "test.jsonl").read_text("utf-8").splitlines()) < len(titles)
    client: Any = Served(titles)
    assert release._check_served(Run(settings), titles, client).passed


def test_titles_from_a_file_are_no_report_of_the_model(settings: Settings) -> None:
    scoring.evaluate(Run(settings))
    report = settings.directory / "report" / "report.json"
    before = report.read_bytes()
    titles = settings.directory / "report" / "predictions.jsonl"
    run = scoring.evaluate(Run(changed(settings, "evaluate", target=str(titles))))
    assert run.directory == settings.directory / "report-file"
    assert report.read_bytes() == before


@pytest.mark.fault
def test_titles_from_a_file_need_the_prepared_split_alone(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever an editor or another program made of the file: the scores are finite, and no model is asked."""
    untrained = changed(changed(settings, "evaluate", base_model=True, limit=0), "data", test_share=0.2)
    untrained = untrained.model_copy(update={"output": tmp_path / "out"})
    stages.bring_up_to_date(Run(untrained), stages.PREPARE)
    examples = load_split(untrained.directory / "data", "test")
    odd = ["", "。，！？", "啊" * 50_000, "標題：新聞\r\n第二行", "\x00\x07", "標題 👩‍👩‍👧 <b>粗體</b>"]
    rows = [{"id": example.id, "prediction": odd[n % len(odd)]} for n, example in enumerate(examples)]
    path = tmp_path / "preds.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())
    capsys.readouterr()
    run = scoring.evaluate(Run(changed(untrained, "evaluate", target=str(path))))
    assert ran(capsys) == ["evaluate"]
    assert not list(untrained.directory.glob("lora*"))
    report = run.manifest.results["report"]
    found = [value for score in report["scores"].values() for value in score.values() if isinstance(value, float)]
    assert len(found) > 20
    assert all(math.isfinite(value) for value in found)
    # Nothing but the file and the split decides.
    again = changed(untrained, "train", seed=1)
    assert not scoring.evaluate(Run(changed(again, "evaluate", target=str(path)))).fresh
    assert len(rows) >= len(odd)
    path.write_text(path.read_text("utf-8-sig").replace("標題", "題目"), "utf-8")
    assert scoring.evaluate(Run(changed(untrained, "evaluate", target=str(path)))).fresh


@pytest.mark.fault
def test_an_empty_split_is_not_scored_and_nothing_is_trained_for_it(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without = changed(settings, "data", test_share=0).model_copy(update={"output": tmp_path})
    with pytest.raises(DataError, match=r"the test split is empty.*--data\.test-share 0\.1, or choose another"):
        scoring.evaluate(Run(without))
    assert ran(capsys) == ["prepare"]


def test_a_missing_file_is_named_before_anything_runs(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--output", str(tmp_path), "--model.base", str(tiny_base)]
    for option in ("--evaluate.target", "--against"):
        assert main([*command, option, str(tmp_path / "none.jsonl")]) == EXIT_ERROR
        assert f"{option}: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_comparison_follows_the_other_titles(settings: Settings, tmp_path: Path) -> None:
    scoring.evaluate(Run(settings))
    other = tmp_path / "other"
    shutil.copytree(settings.directory / "report", other)
    first = scoring.evaluate(Run(settings), against=other)
    assert first.manifest.results["report"]["comparison"]["differences"]["rougeL"]["value"] == 0
    assert not scoring.evaluate(Run(settings), against=other / "report.json").fresh
    rows = [json.loads(line) for line in (other / "predictions.jsonl").read_text("utf-8").splitlines()]
    changed_rows = [row | {"prediction": row["reference"]} for row in rows]
    (other / "predictions.jsonl").write_text("\n".join(map(json.dumps, changed_rows)), encoding="utf-8")
    again = scoring.evaluate(Run(settings), against=other)
    assert again.fresh
    assert again.manifest.results["report"]["comparison"]["differences"]["rougeL"]["value"] < 0
    scoring.evaluate(Run(settings))


def test_two_runs_at_once_take_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inside, go_on = threading.Event(), threading.Event()
    built = []

    def build(_: Run, directory: Path) -> Result:
        built.append(directory)
        inside.set()
        assert go_on.wait(30)
        return Result()

    stage = Stage("stage", Folder.DATA, lambda _: {}, lambda _: {}, build)

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        first = threads.submit(Run(load_settings(output=tmp_path)).make, stage)
        assert inside.wait(30)
        second = threads.submit(Run(load_settings(output=tmp_path)).make, stage)
        while "waiting for another run" not in capsys.readouterr().err:
            time.sleep(0.02)
        go_on.set()
        assert (first.result().fresh, second.result().fresh) == (True, False)
    assert len(built) == 1


def test_a_push_whose_download_failed_is_proved_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its titles are no better than the tiny model.
    settings = changed(settings, "hub", allow_failed_gates=True)
    downloads = []

    def download(*_: Any, **options: Any) -> None:
        downloads.append(options["revision"])
        if len(downloads) == 1:
            raise HubError("the downloaded model writes another title")

    # Everything is there when it is pushed again, so that nothing is committed.
    results = [Pushed(url="http://hub/x", commit="c1", committed=new, verified_files=1) for new in (True, False, False)]
    target = SimpleNamespace(describe=lambda: "a hub")
    monkeypatch.setattr(hub, "ensure_hub", lambda *_: target)
    monkeypatch.setattr(hub, "push_model", lambda *_: results.pop(0))
    monkeypatch.setattr(hub, "check_download", download)
    with pytest.raises(HubError, match="another title"):
        release.push(Run(settings))
    for _ in range(2):
        release.push(Run(settings))
    assert downloads == ["c1", "c1"]


@pytest.mark.fault
def test_a_file_system_without_locks_is_no_obstacle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    stage = Stage("stage", Folder.DATA, lambda _: {}, lambda _: {}, lambda *_: Result())
    assert Run(load_settings(output=tmp_path)).make(stage).fresh
    assert "cannot be locked (No locks available)" in capsys.readouterr().err
