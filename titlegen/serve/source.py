"""What a Modelfile's FROM line may name, and the Modelfile that is checked in."""

import re
from dataclasses import dataclass
from pathlib import Path

from titlegen.errors import ConfigError, ServeError, VerifyError
from titlegen.export import gguf_name
from titlegen.families import ModelFamily, all_families, family_of_gguf
from titlegen.families.gemma3n import FAMILY as DEFAULT_FAMILY
from titlegen.files import digest_file
from titlegen.gguf_reader import GgufError, read_header
from titlegen.manifest import read_manifest
from titlegen.modelfile import render_modelfile
from titlegen.models import family_at
from titlegen.results import ConvertedFiles, read_result
from titlegen.settings import ServeSettings

# For envsubst, which replaces these two and would replace every other dollar sign that begins a name.
HUB_SOURCE = "hf.co/${HF_ORG}/${HF_REPO}"
_HEADER = """\
# 由 titlegen/prompt.py 產生，請勿手動修改：python -m titlegen.serve > serving/ollama/Modelfile.template
# 使用上傳到 Hugging Face 的模型（其中須有 GGUF 檔）；envsubst 會填入組織與儲存庫名稱。
"""
_NAME = re.compile(r"(?:[\w.-]+(?::\d+)?/)?(?:[\w-]+/)?[\w][\w.-]*(?::[\w][\w.-]*)?", re.ASCII)
_HUB = re.compile(r"(?:hf://|(?:https?://)?(?:hf\.co|huggingface\.co)/)([\w.-]+/[\w.-]+(?::[\w.-]+)?)/?", re.ASCII)
# What Ollama's importer reads of a model directory.
IMPORTED_FILES = ("*.safetensors", "*.json", "tokenizer.model")


@dataclass(frozen=True)
class ModelSource:
    """What FROM names: files of this machine, or a model that the server has or fetches."""

    text: str
    family: ModelFamily
    """Whose turns the model reads."""
    files: tuple[Path, ...] = ()
    digests: tuple[str, ...] = ()
    """SHA-256 of each file, hexadecimal."""
    is_tuned: bool = True
    """Whether the model is meant to write titles, so that the smoke test may insist on it."""
    is_exported: bool = False
    """Whether it is the file that ``titlegen export`` wrote."""
    notices: tuple[str, ...] = ()


def render_template(settings: ServeSettings | None = None) -> str:
    """Return the text of serving/ollama/Modelfile.template."""
    return _HEADER + render_modelfile(HUB_SOURCE, settings or ServeSettings(), DEFAULT_FAMILY.prompt)


def resolve_source(settings: ServeSettings, gguf_directory: Path, family: ModelFamily) -> ModelSource:
    """Return what ``settings.source`` means.

    Args:
        settings: the stage's settings.
        gguf_directory: the exported GGUF files.
        family: of the exported model, for a source that does not say its own.

    Raises:
        ConfigError: it is neither a file, a directory, a Hub repository nor a model name, or of an unknown family.
        ServeError: the directory holds no model.
        VerifyError: the exported GGUF files are missing.
    """
    text = settings.source.strip()
    if text == "gguf":
        return _exported(gguf_directory, family)
    if match := _HUB.fullmatch(text):
        hub = f"hf.co/{match[1]}"
        notice = f"{text} is not a source that Ollama knows; using {hub}"
        return ModelSource(hub, family, notices=() if text == hub else (notice,))
    path = Path(text).expanduser()
    if path.is_dir():
        return _safetensors(path)
    if path.is_file():
        return _local_file(path, family)
    if path.is_absolute() or text.startswith((".", "~")) or text.endswith((".gguf", ".safetensors")):
        raise ConfigError(f"serve.source = {text!r} does not exist; give the path of a GGUF file or a model directory")
    if not _NAME.fullmatch(text):
        raise ConfigError(
            f"serve.source = {text!r} is no source; use gguf, a path, hf.co/ORG/REPO[:QUANT], or a model name such as "
            "gemma3n:e4b"
        )
    renamed = {old: new for known in all_families() for old, new in known.renamed_in_ollama.items()}
    name = renamed.get(text, text)
    notices = [f"{text} does not exist in Ollama's library; using {name}"] if name != text else []
    notices.append(f"{name} is not fine-tuned: its answers are not the trained model's")
    # Ollama's library names a model by its family: gemma3n:e4b.
    of_library = family_of_gguf(name.partition(":")[0])
    return ModelSource(name, of_library or family, is_tuned=False, notices=tuple(notices))


def _family_of_file(path: Path, otherwise: ModelFamily) -> ModelFamily:
    """Return the family that a GGUF file names.

    Raises:
        ConfigError: it is none that titlegen knows.
    """
    try:
        architecture = read_header(path).architecture
    except GgufError:
        # The server says what is wrong with it.
        return otherwise
    family = family_of_gguf(architecture)
    if family is None:
        known = ", ".join(known.name for known in all_families())
        raise ConfigError(
            f"{path} has the architecture {architecture!r}, whose prompt is not known here; give a model of {known}"
        )
    return family


def _exported(directory: Path, family: ModelFamily) -> ModelSource:
    manifest = read_manifest(directory)
    name = gguf_name(read_result(ConvertedFiles, manifest).types[0])
    if name not in manifest.files:
        raise VerifyError(f"{directory / name} is not in the manifest; run `titlegen export` again")
    path, digest = directory / name, manifest.files[name].sha256
    if (found := _family_of_file(path, family)) is not family:
        raise VerifyError(
            f"{path} is a {found.title} model, and the merged model beside it says {family.title}: its prompt would be "
            "another's; run `titlegen export` again"
        )
    return ModelSource(str(path), family, (path,), (digest,), is_exported=True)


def _local_file(path: Path, family: ModelFamily) -> ModelSource:
    if path.suffix.lower() != ".gguf":
        raise ConfigError(f"serve.source = {str(path)!r} is no GGUF file; give one, or a directory with safetensors")
    return ModelSource(str(path), _family_of_file(path, family), (path,), (digest_file(path),))


def _safetensors(directory: Path) -> ModelSource:
    files = tuple(sorted(file for pattern in IMPORTED_FILES for file in directory.glob(pattern)))
    names = {file.name for file in files}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise ServeError(f"{directory} holds no model (config.json and *.safetensors); run `titlegen export` first")
    notice = (
        "importing safetensors: the server builds its own vocabulary, which may read an article into other tokens than "
        "the model was trained on; the exported GGUF file is exact"
    )
    family = family_at(directory)
    if missing := [name for name in family.tokenizer_files if name not in names]:
        notice += f". {directory} has no {missing[0]}, so that the vocabulary will certainly be wrong"
    return ModelSource(str(directory), family, files, tuple(map(digest_file, files)), notices=(notice,))
