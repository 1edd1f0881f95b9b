"""The documents are true: what they name exists, what can run here is run, and each checker notices a fault."""

import contextlib
import io
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from documents import (
    CHECKS,
    ROOT,
    blocks,
    fenced_commands,
    inline_commands,
    message_templates,
    quoted_messages,
    sessions,
    templates_of,
    verbs,
    without_comments,
    wrong_figures,
    wrong_messages,
)

from titlegen.cli import main
from titlegen.console import EXIT_DONE, EXIT_ERROR
from titlegen.errors import VerifyError
from titlegen.manifest import write_manifest
from titlegen.settings_table import render_settings

# Made by the program, and compared with it below.
GENERATED = ROOT / "docs" / "settings.md"
DOCUMENTS = sorted({ROOT / "README.md", ROOT / "README.zh-TW.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")})
CHECKED = [path for path in DOCUMENTS if path != GENERATED]
REPRODUCE = ROOT / "docs" / "reproduce.md"
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("path", CHECKED, ids=lambda path: path.name)
def test_what_a_document_names_is_there(path: Path, check: str) -> None:
    assert CHECKS[check](read(path), path) == []


@pytest.mark.fault
@pytest.mark.parametrize(
    ("check", "tampered"),
    [
        ("commands", "```sh\ntitlegen trian\n```\n"),
        ("commands", "```sh\ntitlegen plan --train.max-lenght 5\n```\n"),
        ("commands", "```sh\ntitlegen plan --train.max-length long\n```\n"),
        ("commands", "```sh\ntitlegen plan --profile gemma3n\n```\n"),
        ("commands", "```sh\nnox -s train psuh\n```\n"),
        ("commands", "```sh\nnox -s train -- --profile gemma3n-e4b --trian.seed 1\n```\n"),
        ("commands", "```sh\nnox -s tests -- -m faults\n```\n"),
        ("commands", "```sh\nnox -s acceptance -- --relaese\n```\n"),
        ("commands", "```sh\npytest tests/test_nothing.py\n```\n"),
        ("commands", "```sh\npython scripts/upload.py\n```\n"),
        ("commands", "```sh\npython -m titlegen.nothing\n```\n"),
        ("commands", "```sh\ndocker compose -f docker/compose.yml up ollama\n```\n"),
        ("commands", "```sh\ndocker compose -f docker/compose.ollama.yml --profile serve up trainer\n```\n"),
        ("commands", "```sh\ndocker compose -f docker/compose.ollama.yml up olama\n```\n"),
        ("commands", "```sh\ndocker compose -f docker/compose.ollama.yml run trainer bash scripts/run.sh\n```\n"),
        ("commands", "```sh\ndocker compose -f docker/compose.ollama.yml run trainer titlegen verfy\n```\n"),
        ("commands", "```sh\ncp docker/.env.sample docker/.env\n```\n"),
        ("commands", "```sh\ntitelgen plan\n```\n"),
        ("commands", "Run `titlegen push --dryrun` first."),
        ("options", "With `--train.low-memry` it fits."),
        ("variables", "Set `TITLEGEN_TRAIN__MAX_LENGHT`."),
        ("variables", "```sh\nexport HF_ORGANISATION=x\n```\n"),
        ("settings", "The setting `serve.modelname` names it."),
        ("settings", "The limit is `evaluate.gates.rouge`."),
        ("paths", "See `titlegen/evaluate/gate.py`."),
        ("paths", "The lock is `constraint.txt`."),
        ("links", "[gates](docs/gate.md)"),
        ("links", "![report](docs/report.png)"),
        ("links", "[Docker](README.md#dokker)"),
        ("messages", "```text\ntitlegen: training an E4B wants 8 GiB of GPU memory\n```\n"),
        ("messages", "```text\ntitlegen: a message that nobody ever wrote\n```\n"),
    ],
)
def test_a_fault_in_a_document_is_noticed(check: str, tampered: str) -> None:
    assert CHECKS[check](tampered, ROOT / "README.md") != []


def test_a_message_of_the_program_is_told_from_another() -> None:
    (template,) = message_templates('raise E(f"cannot read {path}: {reason}; give " "a text file")')
    assert template.matches("cannot read a.txt: it is not there; give a text file")
    assert not template.matches("cannot read a.txt: it is not there; give a file")
    assert list(message_templates('f"{a}: {b}; {c}"')) == []


@pytest.mark.fault
def test_changed_messages_are_noticed() -> None:
    messages = quoted_messages(read(TROUBLESHOOTING))
    assert len(messages) > 40
    own = [max((part or "" for t in templates_of(m) for part in t.parts), key=len) for m in messages]
    changed = [message.replace(text, text.swapcase()) for message, text in zip(messages, own, strict=True)]
    noticed = wrong_messages("".join(f"```text\ntitlegen: {message}\n```\n" for message in changed))
    # A few still fit a text of the program that leaves nearly everything open.
    assert len(noticed) >= 0.85 * len(messages)


@pytest.mark.parametrize("path", CHECKED, ids=lambda path: path.name)
def test_commands_that_can_run_here_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = {"VERB": "train"}
    for command in [*fenced_commands(read(path)), *inline_commands(read(path))]:
        if command[0] == "titlegen" and (command[1] == "plan" or "--help" in command):
            assert main([words.get(word, word) for word in command[1:]]) == EXIT_DONE, command
            assert capsys.readouterr().out


def transcript(block: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Return the output that a `console` block promises, and what its command prints, in one line each."""
    command, _, promised = block.partition("\n")
    assert main(command.removeprefix("$ titlegen ").split()) == EXIT_ERROR
    return promised.strip(), capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("block", [block.text for block in blocks(read(TROUBLESHOOTING), "console")])
def test_transcripts_are_what_the_program_prints(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    promised, printed = transcript(block, capsys)
    assert printed == promised


@pytest.mark.fault
def test_a_wrong_transcript_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    block = blocks(read(TROUBLESHOOTING), "console")[1].text.replace("did you mean", "do you mean")
    promised, printed = transcript(block, capsys)
    assert printed != promised


def run_python(path: Path) -> dict[str, Any]:
    """Run the Python blocks of a document one after another, and the tests in them; returns what they defined."""
    names: dict[str, Any] = {}
    for block in blocks(read(path), "python"):
        exec(compile(block.text, str(path), "exec"), names)  # noqa: S102 - our own document
    for name, value in list(names.items()):
        if name.startswith("test_"):
            value()
    return names


@pytest.mark.parametrize("path", [path for path in CHECKED if path != REPRODUCE], ids=lambda path: path.name)
def test_python_blocks_run(path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        run_python(path)


def test_the_comparison_with_the_manifests_runs_and_notices_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = tmp_path / "outputs" / "quickstart" / "data"
    stage.mkdir(parents=True)
    (stage / "train.jsonl").write_text("{}\n", encoding="utf-8")
    manifest = write_manifest(stage, "prepare", {}, {}, {})
    monkeypatch.chdir(tmp_path)
    run_python(REPRODUCE)
    assert manifest.digest in capsys.readouterr().out
    (stage / "train.jsonl").write_text("[]\n", encoding="utf-8")
    with pytest.raises(VerifyError):
        run_python(REPRODUCE)


def test_both_readmes_have_the_same_code() -> None:
    assert without_comments(read(ROOT / "README.zh-TW.md")) == without_comments(read(ROOT / "README.md"))


@pytest.mark.fault
def test_other_code_in_one_readme_is_noticed() -> None:
    text = read(ROOT / "README.zh-TW.md")
    assert without_comments(text.replace("nox -s demo", "nox -s plan")) != without_comments(text)
    assert without_comments(text.replace("# 規格的驗收清單", "# 驗收")) == without_comments(text)


def figures(text: str) -> set[str]:
    """Return the numbers of a README's prose that somebody measured or counted: broken ones, and those above 99."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return set(re.findall(r"(?<![\w.-])\d+(?:[.,]\d+)+(?!\w)|\b\d{3,}\b", prose))


def test_both_readmes_have_the_same_figures() -> None:
    text = read(ROOT / "README.md")
    assert len(figures(text)) > 5
    assert figures(read(ROOT / "README.zh-TW.md")) == figures(text)
    assert figures(text.replace("6.8 times", "6.1 times")) != figures(text)


def unlinked(text: str) -> list[str]:
    """Return the documents that a README does not link."""
    documents = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS if not path.name.startswith("README")]
    return [name for name in documents if f"]({name})" not in text]


def unmentioned(text: str) -> list[str]:
    """Return the verbs and profiles that a README does not show."""
    return [verb for verb in verbs() if not re.search(rf"titlegen {verb}\b", text)]


@pytest.mark.parametrize("name", ["README.md", "README.zh-TW.md"])
def test_a_readme_links_every_document_and_shows_every_verb(name: str) -> None:
    assert unlinked(read(ROOT / name)) == []
    assert unmentioned(read(ROOT / name)) == []


@pytest.mark.fault
def test_a_missing_link_and_a_missing_verb_are_noticed() -> None:
    text = read(ROOT / "README.md")
    assert unlinked(text.replace("](docs/gates.md)", "](docs/)")) == ["docs/gates.md"]
    assert unmentioned(text.replace("titlegen serve", "the server")) == ["serve"]


def test_every_session_is_explained() -> None:
    text = read(ROOT / "README.md") + read(ROOT / "CONTRIBUTING.md")
    assert [name for name in sessions() if not re.search(rf"nox -s [\w ]*\b{name}\b", text)] == []


def test_figures_are_those_that_were_measured() -> None:
    assert wrong_figures(read(REPRODUCE), REPRODUCE) == []


@pytest.mark.fault
@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("3.1 times", "3.2 times"),
        ("`train_e4b_in_turn.ratio_vs_plain`", "`train_e4b_in_turn.ratio_vs_slow`"),
        ("`train_e4b_in_turn.ratio_vs_plain`", "`train_e4b_out_of_turn.ratio_vs_plain`"),
        ("`benchmarks/stage_times.py`", "`benchmarks/times.py`"),
        ("| 9,707 tokens/s, Unsloth compiled | [performance.md](performance.md)", "| 9,707 | [gates.md](gates.md)"),
    ],
)
def test_a_wrong_figure_is_noticed(true: str, false: str) -> None:
    text = read(REPRODUCE)
    assert true in text
    assert len(wrong_figures(text.replace(true, false, 1), REPRODUCE)) == 1


def test_the_reference_of_settings_is_up_to_date() -> None:
    assert read(GENERATED) == render_settings()


def unlike_the_layers(text: str) -> list[str]:
    """Return modules that the architecture's table lacks, or has in another order than the import layers."""
    listed = [name for row in re.findall(r"^\| (`.+?`) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    found = {path.stem for path in (ROOT / "titlegen").iterdir() if (path / "__init__.py").is_file()}
    found |= {path.stem for path in (ROOT / "titlegen").glob("*.py")} - {"__init__", "__main__"}
    contract = tomllib.loads(read(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"][0]
    layers = [set(re.findall(r"titlegen\.(\w+)", layer)) for layer in reversed(contract["layers"])]
    level = {name: number for number, names in enumerate(layers) for name in names}
    levels = [level[name] for name in listed if name in level]
    return [*sorted(found ^ set(listed)), *(["order"] if levels != sorted(levels) else [])]


def test_the_architecture_lists_the_modules_in_the_order_of_the_layers() -> None:
    assert unlike_the_layers(read(ROOT / "docs" / "architecture.md")) == []


@pytest.mark.fault
def test_a_missing_module_and_a_wrong_order_are_noticed() -> None:
    text = read(ROOT / "docs" / "architecture.md")
    rows = re.findall(r"^\| `.+\n", text, re.MULTILINE)
    assert unlike_the_layers(text.replace(rows[0], "")) == ["errors"]
    swapped = text.replace(rows[0], "X").replace(rows[5], rows[0]).replace("X", rows[5])
    assert unlike_the_layers(swapped) == ["order"]


def test_the_architecture_draws_every_stage() -> None:
    drawing = blocks(read(ROOT / "docs" / "architecture.md"), "")[0].text
    for word in ("prepare", "train", "export", "verify", "evaluate", "push", "deploy", "final-hf/", "gguf/", "lora/"):
        assert word in drawing


@pytest.mark.parametrize(("name", "references"), [("README.md", "## Read on"), ("README.zh-TW.md", "## 延伸閱讀")])
def test_the_front_page_has_a_hundred_lines_before_its_references(name: str, references: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert lines.index(references) <= 100
