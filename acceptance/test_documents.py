"""文件與可重現性."""

import ast
import filecmp
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from findings import Finding

from titlegen import data
from titlegen.cli import app
from titlegen.export import gguf_name
from titlegen.files import digest_file
from titlegen.manifest import Manifest, read_manifest
from titlegen.models import resolve_base
from titlegen.results import ConvertedFiles, read_result
from titlegen.runs import Folder
from titlegen.settings import Settings, profile_names
from titlegen.settings_table import render_settings
from titlegen.stages import PIPELINE, PREFER, TRAIN

pytestmark = pytest.mark.acceptance

# Names in the specification's tree and the user's card, and their replacements here.
_TREE = (
    *("titlegen", "acceptance", "benchmarks", "pyproject.toml", "tox.ini", "noxfile.py", "constraints.txt"),
    *("docker/compose.ollama.yml", "docker/Dockerfile.train.unsloth", "docker/Dockerfile.tools", "docker/.env.example"),
    *("scripts/run_unsloth_sft.sh", "scripts/prepare_dataset.py", "scripts/train_unsloth_sft.py"),
    *("scripts/export_merged_hf_unsloth.py", "scripts/upload_to_hf.py", "serving/ollama/Modelfile.template"),
    *("docs/spec.md", "docs/settings.md", "README.md", "README.zh-TW.md", "CHANGELOG.md", "LICENSE"),
)


@pytest.mark.spec("DOC-1")
def test_documented(project: Path, finding: Finding) -> None:
    written = [*project.glob("*.md"), *(project / "docs").glob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in written)
    scripts = [path.name for path in (project / "scripts").iterdir() if path.suffix in {".py", ".sh"}]
    containers = [path.name for path in (project / "docker").iterdir()]
    verbs = [f"titlegen {name}" for name in app if not name.startswith("-")]
    undocumented = [
        *(name for name in [*scripts, *containers, *verbs, *profile_names()] if name not in text),
        *(f"nox -s {name}" for name in sessions(project) if not re.search(rf"nox -s [\w ]*\b{name}\b", text)),
    ]
    assert not undocumented, f"文件沒有提到 {undocumented}"
    reference = (project / "docs" / "settings.md").read_text(encoding="utf-8")
    assert reference == render_settings(), "docs/settings.md 過期了；重跑 python -m titlegen.settings_table"
    finding.measured(
        f"{len(written)} 份文件提到所有 {len(scripts)} 支腳本、{len(verbs)} 個指令與 {len(profile_names())} 個設定檔"
    )


def sessions(project: Path) -> list[str]:
    """Return the names of the nox sessions."""
    tree = ast.parse((project / "noxfile.py").read_text(encoding="utf-8"))
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(mark) == "nox.session" for mark in node.decorator_list)
    ]


@pytest.mark.spec("DOC-2")
def test_clean_folder(project: Path, outputs: Path, finding: Finding) -> None:
    missing = [name for name in _TREE if not (project / name).exists()]
    assert not missing, f"缺少 {missing}"
    git = shutil.which("git")
    if git is not None and (project / ".git").exists():
        command = [git, "-C", str(project), "ls-files", "--others", "--exclude-standard"]
        left = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()  # noqa: S603
        assert not left, f"有不屬於專案的檔案：{left[:5]}"
    # Half-written output has a name that begins with a dot; titles of the untuned model are kept for the next run.
    left = [
        path.name
        for path in outputs.iterdir()
        if path.name.startswith(".") and path.name not in {Folder.PREDICTIONS, Folder.CHECKPOINTS}
    ]
    assert not left, f"outputs 裡有沒寫完的暫存檔：{left}"
    finding.measured(f"約定的 {len(_TREE)} 個路徑都在，沒有多餘的檔案")


@pytest.mark.spec("DOC-3")
def test_reproducible(settings: Settings, outputs: Path, tmp_path: Path, finding: Finding) -> None:
    made = [stage.folder for stage in PIPELINE if stage is not PREFER or settings.prefer.enabled]
    manifests: dict[str, Manifest] = {
        name: read_manifest(outputs / name) for name in (*made, Folder.REPORT, Folder.SERVED_REPORT)
    }
    exported = PREFER.folder if settings.prefer.enabled else TRAIN.folder
    # Each stage names the digest of what it was made from.
    chain = [
        (Folder.ADAPTER, "data", Folder.DATA),
        (Folder.EXPORT, "adapter", exported),
        (Folder.GGUF, "merged", Folder.EXPORT),
        (Folder.VERIFICATION, "merged", Folder.EXPORT),
        (Folder.VERIFICATION, "gguf", Folder.GGUF),
        (Folder.REPORT, "model", Folder.EXPORT),
        (Folder.REPORT, "data", Folder.DATA),
        (Folder.SERVED_REPORT, "model", Folder.EXPORT),
        (Folder.SERVED_REPORT, "gguf", Folder.GGUF),
    ]
    broken = [
        f"{stage} 不是用現在的 {source} 做的"
        for stage, name, source in chain
        if manifests[stage].inputs[name] != manifests[source].digest
    ]
    assert not broken, broken[0]
    deployed = gguf_name(read_result(ConvertedFiles, manifests[Folder.GGUF]).types[0])
    assert digest_file(outputs / Folder.GGUF / deployed) == manifests[Folder.GGUF].files[deployed].sha256
    tokenizer = resolve_base(settings.model) / "tokenizer.json"
    assert manifests[Folder.DATA].inputs["tokenizer"] == digest_file(tokenizer)
    data.prepare(settings.data, tokenizer, tmp_path)
    for split in ("train", "val", "test"):
        name = f"{split}.jsonl"
        assert filecmp.cmp(tmp_path / name, outputs / Folder.DATA / name, shallow=False), f"重做的 {name} 與原來的不同"
    finding.measured(f"{len(chain)} 個環節都接得上，重做的三份資料集逐位元組相同")
