"""Modelfiles of other tools, in the shapes that they write, against the chat template of the model itself.

The shapes are those of Unsloth (ollama_template_mappers.py), LLaMA-Factory (Template.get_ollama_modelfile) and ms-swift
(export/ollama.py), with the turns that each has for the two families; the texts are written anew.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
from corpus import tiny_vocabulary

from titlegen.cli import main
from titlegen.console import EXIT_ERROR
from titlegen.errors import ConfigError
from titlegen.families.gemma3 import PROMPT as GEMMA_3
from titlegen.families.gemma4 import PROMPT as GEMMA_4
from titlegen.modelfile import read_modelfile, render_modelfile
from titlegen.models import write_tokenizer
from titlegen.prompt import SYSTEM
from titlegen.settings import ServeSettings
from titlegen.verify import failures
from titlegen.verify.modelfile import check_modelfile

ARTICLES = ["市府今天宣布延長末班車。", "  第一段。\n\n第二段有 <turn|> 與 <end_of_turn>。"]
LAST = "{{- $last := eq (len (slice $.Messages $i)) 1 }}"
UNSLOTH_3N = f"""\
FROM ./model.gguf
TEMPLATE \"\"\"{{{{- range $i, $_ := .Messages }}}}
{LAST}
{{{{- if or (eq .Role "user") (eq .Role "system") }}}}<start_of_turn>user
{{{{ .Content }}}}<end_of_turn>
{{{{ if $last }}}}<start_of_turn>model
{{{{ end }}}}
{{{{- else if eq .Role "assistant" }}}}<start_of_turn>model
{{{{ .Content }}}}{{{{ if not $last }}}}<end_of_turn>
{{{{ end }}}}
{{{{- end }}}}
{{{{- end }}}}\"\"\"
"""
UNSLOTH_4 = f"""\
FROM ./model.gguf
TEMPLATE \"\"\"{{{{- range $i, $_ := .Messages }}}}
{LAST}
<|turn>{{{{ .Role }}}}
{{{{ .Content }}}}{{{{ if not $last }}}}<turn|>
{{{{ end }}}}
{{{{- end }}}}<turn|>
<|turn>model
\"\"\"
"""


def llama_factory(system: str, user: str, stop: str) -> str:
    template = f"<bos>{{{{ if .System }}}}{system}{{{{ end }}}}"
    template += f'{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}{user}'
    template += '{{ else if eq .Role "assistant" }}{{ .Content }}{{ end }}{{ end }}'
    stops = f'PARAMETER stop "<eos>"\nPARAMETER stop "{stop}"\n'
    return f'# ollama modelfile\n\nFROM .\n\nTEMPLATE """{template}"""\n\n{stops}PARAMETER num_ctx 4096\n'


def ms_swift(system: str, user: str, suffix: str) -> str:
    template = f"{{{{ if .System }}}}<bos>{system}{{{{ else }}}}<bos>{{{{ end }}}}"
    template += f"{{{{ if .Prompt }}}}{user}{{{{ end }}}}{{{{ .Response }}}}{suffix}"
    return f'FROM /models/merged\nTEMPLATE """{template}"""\nPARAMETER stop "{suffix}"\nPARAMETER temperature 0.7\n'


TURN_3 = "<start_of_turn>user\n{{{{ {0} }}}}<end_of_turn>\n<start_of_turn>model\n"
TURN_4 = "<|turn>user\n{{{{ {0} }}}}<turn|>\n<|turn>model\n"
SYSTEM_4 = "<|turn>system\n{{ .System }}<turn|>\n"
SHAPES = {
    ("Gemma 3n", "Unsloth"): UNSLOTH_3N,
    ("Gemma 3n", "LLaMA-Factory"): llama_factory("{{ .System }}\n\n", TURN_3.format(".Content"), "<end_of_turn>"),
    ("Gemma 3n", "ms-swift"): ms_swift(
        "<start_of_turn>system\n{{ .System }}<end_of_turn>\n", TURN_3.format(".Prompt"), "<end_of_turn>"
    ),
    ("Gemma 3n", "titlegen"): render_modelfile("./model.gguf", ServeSettings(), GEMMA_3),
    ("Gemma 4", "Unsloth"): UNSLOTH_4,
    ("Gemma 4", "LLaMA-Factory"): llama_factory(SYSTEM_4, TURN_4.format(".Content"), "<turn|>"),
    ("Gemma 4", "ms-swift"): ms_swift(SYSTEM_4, TURN_4.format(".Prompt"), "<turn|>\n"),
    ("Gemma 4", "titlegen"): render_modelfile("./model.gguf", ServeSettings(), GEMMA_4),
}
# How many of two articles, with a system text and without, are read otherwise, and where the first one parts.
# docs/modelfiles.md has this as a table.
PARTS = {
    ("Gemma 3n", "Unsloth"): (2, r"'<end_of_turn>', the chat template's '\\n\\n'"),
    ("Gemma 3n", "LLaMA-Factory"): (2, "token 1 is '.*', the chat template's '<start_of_turn>'"),
    ("Gemma 3n", "ms-swift"): (2, "token 2 is '.*', the chat template's 'us"),
    ("Gemma 3n", "titlegen"): (0, ""),
    ("Gemma 4", "Unsloth"): (4, r"token 1 is '\\n', the chat template's '<\|turn>', after '<bos>'"),
    ("Gemma 4", "LLaMA-Factory"): (0, ""),
    ("Gemma 4", "ms-swift"): (0, ""),
    ("Gemma 4", "titlegen"): (0, ""),
}


def tokenizer_directory(directory: Path, family: str) -> Path:
    """Return a directory with all that a prompt needs of a model of the family."""
    directory.mkdir()
    if family == "Gemma 4":
        vocabulary, prompt, kind = tiny_vocabulary(("<|turn>", "<turn|>"), {98: "<|think|>"}), GEMMA_4, "gemma4_text"
    else:
        vocabulary, prompt, kind = tiny_vocabulary(), GEMMA_3, "gemma3n_text"
    write_tokenizer(directory, *vocabulary, prompt)
    (directory / "config.json").write_text(
        json.dumps({"model_type": kind, "hidden_size_per_layer_input": 256}), encoding="utf-8"
    )
    return directory


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {family: tokenizer_directory(folder / family, family) for family in ("Gemma 3n", "Gemma 4")}


@pytest.mark.parametrize(("family", "tool"), SHAPES)
def test_the_first_difference_is_named(models: dict[str, Path], tmp_path: Path, family: str, tool: str) -> None:
    path = tmp_path / "Modelfile"
    path.write_text(SHAPES[family, tool], encoding="utf-8")
    prompt, stop = check_modelfile(models[family], path, ARTICLES)
    assert stop.passed
    wrong, first = PARTS[family, tool]
    assert prompt.figure == f"{wrong} wrong", prompt.detail
    assert prompt.passed is (wrong == 0)
    assert re.search(first, prompt.detail.partition(";")[0]), prompt.detail
    assert not wrong or prompt.detail.startswith("article 0, with a system text: ")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("<|turn>model\n", "<|turn>model\n<|channel>thought\n<channel|>"), "the chat template's the end"),
        (("<|turn>system\n", "<|turn>system\n<|think|>\n"), "is '<|think|>', the chat template's"),
        (("<turn|>\n{{ end }}", "<turn|>{{ end }}"), "is '<|turn>', the chat template's '\\n'"),
        (("{{ .Prompt }}", "{{ .Prompt }} "), "token"),
        (("{{ .Prompt }}", "{{ printf .Prompt }}"), 'function "printf" not defined'),
        (("{{ .Prompt }}", "{{ range .Prompt }}{{ end }}"), "range can't iterate over str"),
        (("TEMPLATE", "LICENSE"), "it has no TEMPLATE"),
        (("SYSTEM", "RENDERER gemma4\nSYSTEM"), "RENDERER gemma4 lets Ollama's own code write the prompt"),
    ],
)
def test_one_fault_is_caught(models: dict[str, Path], tmp_path: Path, change: tuple[str, str], reason: str) -> None:
    path, text = tmp_path / "Modelfile", SHAPES["Gemma 4", "titlegen"]
    assert change[0] in text
    path.write_text(text.replace(*change), encoding="utf-8")
    checks = check_modelfile(models["Gemma 4"], path, ARTICLES)
    (failed,) = failures(checks)
    assert failed.name == "modelfile.prompt"
    assert reason in failed.detail


@pytest.mark.fault
def test_a_stop_of_plain_text_is_caught(models: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "Modelfile"
    path.write_text(SHAPES["Gemma 4", "titlegen"] + 'PARAMETER stop "，"\n', encoding="utf-8")
    (failed,) = failures(check_modelfile(models["Gemma 4"], path, ARTICLES))
    assert failed.name == "modelfile.stop"
    assert "PARAMETER stop '，' is plain text" in failed.detail


def test_a_modelfile_is_read_as_ollama_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "Modelfile"
    path.write_text(
        '# a remark\n\nfrom ./x.gguf\ntemplate """a\n# b\n"""\r\nSystem "one\ntwo"\n'
        'PARAMETER stop "<a>"\nparameter stop <b>\nPARAMETER temperature 0.3\nSYSTEM last\n',
        encoding="utf-8",
    )
    found = read_modelfile(path)
    assert (found.template, found.system, found.stops, found.renderer) == ("a\n# b\n", "last", ("<a>", "<b>"), None)
    path.write_text(render_modelfile("./x.gguf", ServeSettings(), GEMMA_4), encoding="utf-8")
    found = read_modelfile(path)
    assert (found.template, found.system, found.stops) == (GEMMA_4.template, SYSTEM, ("<turn|>",))


@pytest.mark.fault
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff\xfe\x00", "is no UTF-8 text"),
        (b"TEMPLATE x\n", "has no FROM line"),
        (b'FROM x\nTEMPLATE """a\n', "the quotes of TEMPLATE are never closed"),
        (b"FROM x\nnonsense\n", "the line 'nonsense' is no instruction"),
        (b"FROM x\n" + b"#" * 2**20, "no Modelfile is so large"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "Modelfile"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason):
        read_modelfile(path)


def test_the_command_names_the_difference(
    tiny_merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, path = Path(shutil.copytree(tiny_merged, tmp_path / "export")), tmp_path / "Modelfile"
    path.write_text(SHAPES["Gemma 3n", "titlegen"], encoding="utf-8")
    command = ["verify", str(directory), "--modelfile", str(path), "--export.verify-articles", "0"]
    assert main(command) == 0
    assert "modelfile.prompt" in capsys.readouterr().out
    path.write_text(SHAPES["Gemma 3n", "Unsloth"], encoding="utf-8")
    assert main(command) == EXIT_ERROR
    assert "with a system text: token" in capsys.readouterr().err
    assert main(["verify", "--modelfile", str(path)]) == EXIT_ERROR
    assert "name it with --directory" in capsys.readouterr().err


def test_the_table_in_the_documents_says_what_passes() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "modelfiles.md").read_text(encoding="utf-8")
    for (family, tool), (wrong, _) in PARTS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {family} | {tool} |"))
        with_system, without = (cell.strip() for cell in row.split("|")[3:5])
        assert (with_system == "passes") is (wrong == 0), row
        assert (without == "passes") is (wrong < 4), row
