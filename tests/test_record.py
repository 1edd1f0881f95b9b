"""An output remembers the settings that made it: later verbs use them, and report differences or stop."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from corpus import corpus_rows
from tiny_runs import PROFILE

from titlegen import manifest, runs, stages
from titlegen.cli import main
from titlegen.console import EXIT_DONE, EXIT_ERROR
from titlegen.errors import ConfigError
from titlegen.record import MADE_BY, RECORD, read_record, recall, remember, serve_as_trained
from titlegen.results import Result
from titlegen.runs import Folder, Run, Stage
from titlegen.settings import Settings, load_settings

ENDS = """[export]
gguf_types = ["q8_0"]
verify_articles = 1
[evaluate]
target = "merged"
limit = 2
max_new_tokens = 4
base_model = false
# What so small a model writes is no title.
gates = { rougeL = -1, bleu1 = -1, title_only_rate = -1, length_rate = -1 }
"""


NO_SECTION = '{"profile": "x", "sections": {"data": 3}}'
OTHER_SECTION = '{"profile": "x", "sections": {"hub": {"settings": {}, "environment": {}, "profile": {}}}}'


def remembered(settings: Settings) -> Settings:
    """Return the settings after every stage ran with them."""
    remember(settings, MADE_BY)
    return settings


def profile_at(path: Path, base: Path | str = "embedded") -> Path:
    path.write_text(PROFILE.format(base=base) + ENDS, encoding="utf-8")
    return path


def test_what_was_given_once_is_given_to_later_commands(tmp_path: Path) -> None:
    given = {"data": {"limit": 3}, "train": {"seed": 5}, "export": {"gguf_types": ("f16",)}, "model": {"revision": "x"}}
    made = remembered(load_settings(output=tmp_path, **given))
    found = recall(load_settings(output=tmp_path))
    assert all(getattr(found, section) == getattr(made, section) for section in MADE_BY)


def test_nothing_is_remembered_of_what_one_command_does(tmp_path: Path) -> None:
    given = {"serve": {"host": "http://127.0.0.1:9"}, "hub": {"repo_id": "a/b"}, "evaluate": {"target": "server"}}
    remembered(load_settings(output=tmp_path, data={"workers": 3}, latency={"articles": 2}, **given))
    assert recall(load_settings(output=tmp_path)).model_dump() == load_settings(output=tmp_path).model_dump()


def test_what_asks_the_model_converts_as_training_did_and_reads_its_own_file(tmp_path: Path) -> None:
    remembered(load_settings(output=tmp_path, data={"script": "keep", "content_column": "body", "encoding": "big5"}))
    found = serve_as_trained(load_settings(output=tmp_path, data={"encoding": "utf-8"}))
    expected = (load_settings().data.content_column, "utf-8")
    assert found.data.script == "keep"
    assert (found.data.content_column, found.data.encoding) == expected


def test_other_outputs_and_profiles_remember_their_own(tmp_path: Path) -> None:
    remembered(load_settings(output=tmp_path, train={"seed": 5}))
    assert recall(load_settings(output=tmp_path / "other")).train.seed != 5
    assert recall(load_settings(output=tmp_path, profile="gemma3n-e4b")).train.seed != 5


def test_only_stages_that_ran_are_remembered(tmp_path: Path) -> None:
    remember(load_settings(output=tmp_path, train={"seed": 5}, data={"limit": 3}), ("data", "model"))
    found = recall(load_settings(output=tmp_path))
    assert (found.data.limit, found.train.seed) == (3, load_settings().train.seed)


def test_the_command_line_comes_first(tmp_path: Path) -> None:
    remembered(load_settings(output=tmp_path, train={"seed": 5, "lora_r": 2}))
    found = recall(load_settings(output=tmp_path, train={"seed": 6}))
    assert (found.train.seed, found.train.lora_r) == (6, 2)


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        (None, None, 5),
        ("7", "7", 5),
        ("7", None, 5),
        (None, "7", 7),
        ("7", "8", 8),
    ],
)
def test_a_variable_counts_when_it_is_another_than_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str | None, now: str | None, expected: int
) -> None:
    name = "TITLEGEN_TRAIN__SEED"
    for value, command in ((then, {"seed": 5}), (now, {})):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
        settings = load_settings(output=tmp_path, train=command)
        if command:
            remembered(settings)
    assert recall(settings).train.seed == expected


def test_a_variable_that_holds_a_section_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered(load_settings(output=tmp_path, train={"seed": 5, "lora_r": 2}))
    monkeypatch.setenv("TITLEGEN_TRAIN", '{"seed": 6}')
    found = recall(load_settings(output=tmp_path))
    assert (found.train.seed, found.train.lora_r) == (6, 2)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "", 5),
        ("seed = 7", "seed = 7", 5),
        ("seed = 7", "seed = 8", 8),
        ("", "seed = 8", 8),
        # What is taken out of a profile is a change, too.
        ("seed = 7", "", Settings.model_fields["train"].default.seed),
        ("seed = 7", "seed = 7\nlora_r = 4", 5),
    ],
)
def test_a_profile_counts_where_it_says_otherwise_than_it_did(
    tmp_path: Path, before: str, after: str, expected: int
) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text(f"[train]\n{before}\n", encoding="utf-8")
    remembered(load_settings(profile=str(profile), output=tmp_path, train={"seed": 5}))
    profile.write_text(f"[train]\n{after}\n", encoding="utf-8")
    assert recall(load_settings(profile=str(profile), output=tmp_path)).train.seed == expected


def test_a_path_means_the_same_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.csv").touch()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "outputs"
    first = recall(load_settings(output=output, data={"source": "mine.csv"}))
    remembered(first)
    assert recall(load_settings(output=output, data={"source": "./elsewhere/../mine.csv"})).data == first.data
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert recall(load_settings(output=output)).data.source == str(tmp_path / "mine.csv")


@pytest.mark.fault
@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"profile": "x", "sections": {"data": 3}}', "\xff", OTHER_SECTION]
)
def test_a_broken_record_is_named(tmp_path: Path, content: str) -> None:
    settings = load_settings(output=tmp_path)
    settings.directory.mkdir()
    (settings.directory / RECORD).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"settings\.json is not a record"):
        recall(settings)


@pytest.mark.fault
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    name = "x" * 300
    with pytest.raises(ConfigError, match="choose another folder with --output"):
        recall(load_settings(output=tmp_path / name))
    # A source may be anything; an error is raised where it is read.
    assert recall(load_settings(output=tmp_path, data={"source": name})).data.source == name


@pytest.mark.fault
@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"lora_r": "many"}, r"settings\.json remembers: setting 'train\.lora_r' = 'many'"),
        ({"low_memory": True}, r"settings\.json remembers: train\.low_memory needs train\.completion_trim"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(tmp_path: Path, train: dict[str, Any], expected: str) -> None:
    settings = remembered(load_settings(output=tmp_path))
    path = settings.directory / RECORD
    record = json.loads(path.read_bytes())
    record["sections"]["train"]["settings"] |= {f"train.{name}": value for name, value in train.items()}
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ConfigError, match=expected):
        recall(load_settings(output=tmp_path, train={"completion_trim": False}))


@pytest.mark.fault
def test_a_failed_stage_is_forgotten_and_an_interrupted_one_resumes(tmp_path: Path) -> None:
    def stage(error: type[BaseException] | None) -> Stage:
        def build(_: Run, __: Path) -> Result:
            if error:
                raise error
            return Result()

        def chosen(run: Run) -> dict[str, Any]:
            return run.settings.train.model_dump(mode="json")

        return Stage("train", Folder.ADAPTER, chosen, lambda _: {}, build, sections=("train",))

    for error in (None, ValueError, KeyboardInterrupt):
        run = Run(load_settings(output=tmp_path, train={"seed": {None: 1, ValueError: 2, KeyboardInterrupt: 3}[error]}))
        if error is None:
            run.make(stage(error))
        else:
            with pytest.raises(error):
                run.make(stage(error))
        expected = 3 if error is KeyboardInterrupt else 1
        assert recall(load_settings(output=tmp_path)).train.seed == expected
    # What is there is of the first seed; to ask for it makes the record fit again.
    run = Run(load_settings(output=tmp_path, train={"seed": 1}))
    run.make(stage(None))
    run.keep_settings()
    assert recall(load_settings(output=tmp_path)).train.seed == 1


@pytest.mark.fault
def test_a_stage_whose_manifest_is_broken_runs_again(tmp_path: Path) -> None:
    stage = Stage("train", Folder.ADAPTER, lambda _: {}, lambda _: {}, lambda *_: Result(), sections=("train",))
    run = Run(load_settings(output=tmp_path), remake=False)
    assert run.make(stage).fresh
    (run.folder(Folder.ADAPTER) / "manifest.json").write_text("{", encoding="utf-8")
    assert run.make(stage).fresh


class Made:
    """An output whose stages were each made by a verb with a setting of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = ["--profile", str(folder / "mine.toml"), "--output", str(folder / "outputs")]
        self.directory = folder / "outputs" / "mine"

    def run(self, verb: str, *options: str) -> int:
        return main([verb, *options, *self.base])


@pytest.fixture(scope="module")
def original(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(tiny_base, folder / "base")
    profile_at(folder / "mine.toml", folder / "base")
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in corpus_rows()[:60])
    (folder / "mine.jsonl").write_text(rows, encoding="utf-8")
    made = Made(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert made.run("prepare", "--data.source", "mine.jsonl", "--data.limit", "40") == EXIT_DONE
        assert made.run("train", "--train.seed", "5") == EXIT_DONE
        assert made.run("export", "--export.gguf-types", "f16") == EXIT_DONE
        made.run("evaluate")
    return made


@pytest.fixture
def made(original: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Made:
    """The output, and two ends right after the stages: a Hub that needs a name, and a server that does not answer."""
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setenv("TITLEGEN_SERVE__HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("TITLEGEN_SERVE__START_OFFLINE", "false")
    monkeypatch.chdir(tmp_path)
    return original


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Made:
    """The same where it may be changed; the record names the folders of the first one."""
    for name in ("outputs", "mine.toml"):
        copy = shutil.copytree if (made.folder / name).is_dir() else shutil.copy2
        copy(made.folder / name, tmp_path / name)
    return Made(tmp_path)


def ran(errors: str) -> list[str]:
    return [line.partition(":")[0] for line in errors.splitlines() if line.endswith(": running")]


AFTER_THE_STAGES = {"push": "not where to push to", "deploy": "no server answers"}


@pytest.mark.parametrize("verb", ["prepare", "train", "export", "verify", "evaluate", *AFTER_THE_STAGES])
def test_no_verb_makes_anything_again_where_nothing_is_given(
    made: Made, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    code = made.run(verb)
    errors = capsys.readouterr().err
    assert ran(errors) == []
    assert (AFTER_THE_STAGES[verb] in errors) if verb in AFTER_THE_STAGES else (code != EXIT_ERROR)
    assert f"data.source = {made.folder / 'mine.jsonl'}" in errors
    assert "train.seed = 5" in errors


CHANGES = {
    "data.limit": (["--data.limit", "30"], "data.limit is 30 now and was 40 then"),
    "data.source": (["--data.source", "embedded"], "data.source is embedded now and was"),
    "train.seed": (["--train.seed", "6"], "train.seed is 6 now and was 5 then"),
    "model.base": (["--model.base", "other"], "model.base is "),
    "export.gguf_types": (["--export.gguf-types", "f32"], "export.gguf_types is ['f32'] now and was ['f16'] then"),
    "export.verify_articles": (["--export.verify-articles", "2"], "export.verify_articles is 2 now and was 1 then"),
    "a variable": ("TITLEGEN_TRAIN__LORA_R", "train.lora_r is 4 now and was 16 then"),
    "the profile": ("lora_alpha = 8", "train.lora_alpha is 8 now and was 32 then"),
    "the articles": ("articles", "the articles of data.source changed"),
    "the code": ("code", "the code of train comes to another result now"),
    "the release": ("release", "titlegen is 9.9 now and was"),
}


@pytest.mark.fault
@pytest.mark.parametrize("verb", ["push", "deploy"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_given_otherwise_stops_a_release(
    copied: Made,
    made: Made,
    change: str,
    verb: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, expected = CHANGES[change]
    options = given if isinstance(given, list) else []
    articles = made.folder / "mine.jsonl"
    before = articles.read_text(encoding="utf-8")
    if change == "model.base":
        shutil.copytree(made.folder / "base", "other", copy_function=shutil.copy)
    elif change == "a variable":
        monkeypatch.setenv(str(given), "4")
    elif change == "the profile":
        profile = copied.folder / "mine.toml"
        profile.write_text(profile.read_text("utf-8").replace("[train]", f"[train]\n{given}"), encoding="utf-8")
    elif change == "the articles":
        articles.write_text(before + before.splitlines()[-1] + "\n", encoding="utf-8")
    elif change == "the code":
        newer = dataclasses.replace(stages.TRAIN, revision=99)
        monkeypatch.setattr(
            stages, "PIPELINE", tuple(newer if stage.name == "train" else stage for stage in stages.PIPELINE)
        )
    elif change == "the release":
        for module in (manifest, runs):
            monkeypatch.setattr(module, "__version__", "9.9")
    capsys.readouterr()
    try:
        assert copied.run(verb, *options) == EXIT_ERROR
    finally:
        articles.write_text(before, encoding="utf-8")
    errors = capsys.readouterr().err
    assert ran(errors) == []
    assert expected in errors.splitlines()[-1]
    assert "--remake" in errors.splitlines()[-1]
    assert read_record(copied.directory) == read_record(made.directory)


@pytest.mark.slow
def test_a_release_goes_on_when_it_is_told_to(copied: Made, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    copied.run("push", "--export.gguf-types", "f32", "--remake")
    errors = capsys.readouterr().err
    assert "export.gguf_types is ['f32'] now and was ['f16'] then. Made again: gguf, verify" in errors
    assert ran(errors) == ["gguf", "verify"]
    copied.run("deploy")
    assert ran(capsys.readouterr().err) == []


def test_a_verb_says_what_it_makes_again(copied: Made, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert copied.run("prepare", "--data.limit", "30") == EXIT_DONE
    errors = capsys.readouterr().err
    assert "data.limit is 30 now and was 40 then. Made again: prepare" in errors
    # The articles are others now, and nothing of that is sent out unasked but by who asked for it.
    assert copied.run("prepare") == EXIT_DONE
    assert ran(capsys.readouterr().err) == []


@pytest.mark.fault
@pytest.mark.parametrize("verb", ["push", "deploy"])
def test_a_release_of_another_profile_is_asked_for(made: Made, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--output", str(made.folder / "outputs")]) == EXIT_ERROR
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"--profile {made.folder / 'mine.toml'}" in last
    assert "--remake" in last
