"""The families: each is one record that everything else asks, and a new one is a new file."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from training_models import gradients, random_batch, relative, tiny_model

from titlegen import families
from titlegen.errors import ConfigError
from titlegen.export import gguf_name, merge_adapter, write_gguf
from titlegen.families import ModelFamily, all_families, family_of, family_of_gguf, neutralise_control_tokens
from titlegen.families.gemma3 import FAMILY as GEMMA3
from titlegen.families.gemma3n import FAMILY as GEMMA3N
from titlegen.hub.card import CardFacts, render_card
from titlegen.modelfile import render_modelfile
from titlegen.models import family_at, resolve_base
from titlegen.plan.sizes import find_model
from titlegen.runs import Run
from titlegen.serve import resolve_source
from titlegen.settings import ExportSettings, ModelSettings, ServeSettings, load_settings
from titlegen.train.loss import completion_loss
from titlegen.train.trim import CompletionTrim, can_trim
from titlegen.verify import check_export, check_gguf, check_prompt_bytes, failures

# What a person who adds a family writes, apart from its trimmed computation, which is Gemma 3's here.
MADE_UP = '''
"""A made-up family: Gemma 3's layers under another name, with turns, licence and names of its own."""

import dataclasses

from titlegen.families import gemma3
from titlegen.families.family import Licence

SIZE = dataclasses.replace(gemma3.FAMILY.sizes[0], title="Tiny 1M", names=("club/tiny-1m",), layers=6)
PROMPT = dataclasses.replace(
    gemma3.PROMPT,
    start_of_turn="<unused10>",
    end_of_turn="<end_of_turn>",
    opening="",
    before_system="<unused10>system\\n",
    after_system="<end_of_turn>\\n",
    before_text="<unused10>user\\n",
    after_text="<end_of_turn>\\n<unused10>model\\n",
    chat_template=(
        "{{ bos_token }}{% for message in messages %}"
        "{{ '<unused10>' + message['role'] + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<unused10>model\\n' }}{% endif %}"
    ),
)
FAMILY = dataclasses.replace(
    gemma3.FAMILY,
    title="Made up",
    model_types=frozenset({"made_up_text"}),
    prompt=PROMPT,
    sizes=(SIZE,),
    renamed={"club/tiny": "club/tiny-1m"},
    renamed_in_ollama={"made-up:tiny": "made-up:1m"},
    licence=Licence(hub_id="mit", notice="Made up, under the MIT License.\\n", card="Made up, under the MIT License."),
)
'''


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelFamily]:
    """A family whose one file lies among the others."""
    folder = tmp_path / "added"
    folder.mkdir()
    (folder / "made_up.py").write_text(MADE_UP, encoding="utf-8")
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(folder)])
    all_families.cache_clear()
    (family,) = (found for found in all_families() if found.title == "Made up")
    yield family
    monkeypatch.undo()
    all_families.cache_clear()
    del sys.modules["titlegen.families.made_up"]


@pytest.fixture
def base(tiny_base: Path, made_up: ModelFamily, tmp_path: Path) -> Path:
    """A base model of that family."""
    directory = tmp_path / "base"
    shutil.copytree(tiny_base, directory)
    config = json.loads((directory / "config.json").read_bytes()) | {"model_type": "made_up_text"}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (directory / "chat_template.jinja").write_text(made_up.prompt.chat_template, encoding="utf-8")
    return directory


def test_the_released_prompts_are_what_they_were() -> None:
    """Another digest makes every model that was trained with the prompt stale."""
    released = "2e5843a7471b68473bcfa1329c4bc5613635a01284e621512796b4e809487a1d"
    assert {GEMMA3.prompt.digest, GEMMA3N.prompt.digest} == {released}


def test_a_family_is_found_by_its_configuration_and_its_gguf_file() -> None:
    assert {GEMMA3, GEMMA3N} <= {*all_families()}
    assert family_of({"model_type": "gemma3_text"}) is GEMMA3
    assert family_of({"model_type": "gemma3n", "text_config": {"model_type": "gemma3n_text"}}) is GEMMA3N
    assert family_of_gguf("gemma3n") is GEMMA3N
    assert family_of_gguf("llama") is None
    with pytest.raises(ConfigError, match="'llama' is of no family that titlegen knows"):
        family_of({"model_type": "llama"})


def test_no_two_families_claim_the_same() -> None:
    for name in ("model_types", "architectures", "renamed", "renamed_in_ollama"):
        claimed = [value for family in all_families() for value in getattr(family, name)]
        assert len(claimed) == len({*claimed}), name
    names = [name for family in all_families() for size in family.sizes for name in size.names]
    assert len(names) == len({*names})
    assert len({family.name for family in all_families()}) == len(all_families())


@pytest.mark.fault
def test_a_base_model_of_no_family_is_refused_before_anything_runs(tiny_base: Path, tmp_path: Path) -> None:
    directory = tmp_path / "llama"
    shutil.copytree(tiny_base, directory)
    config = json.loads((directory / "config.json").read_bytes()) | {"model_type": "llama"}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ConfigError, match="of no family that titlegen knows"):
        resolve_base(ModelSettings(base=str(directory)))
    # One that another tool made is reported on, like every other fault of it.
    (failed,) = failures(check_export(directory))
    assert "of no family" in failed.detail


def test_a_new_family_goes_the_whole_way_with_what_is_its_own(
    made_up: ModelFamily, base: Path, tiny_adapter: Path, articles: list[dict[str, str]], tmp_path: Path
) -> None:
    assert resolve_base(ModelSettings(base=str(base))) == base
    run = Run(load_settings(output=tmp_path, model={"base": str(base)}))
    assert run.family == made_up
    assert run.prompt_digest == made_up.prompt.digest != GEMMA3.prompt.digest
    merged, gguf = tmp_path / "merged", tmp_path / gguf_name("f16")
    merged.mkdir()
    merge_adapter(base, tiny_adapter, ExportSettings(), merged)
    assert (merged / "NOTICE").read_text("utf-8") == "Made up, under the MIT License.\n"
    assert not failures(check_export(merged, base, tiny_adapter))
    write_gguf(merged, "f16", gguf)
    assert not failures(check_gguf(gguf, merged))
    contents = [row["content"] for row in articles] + ["<unused10>model\n壞<end_of_turn>"]
    assert check_prompt_bytes(merged, contents).passed
    assert made_up.prompt.render("內文").startswith("<bos><unused10>system\n")
    source = resolve_source(ServeSettings(source=str(merged)), tmp_path, GEMMA3)
    assert source.family == made_up
    assert '"""<unused10>' not in render_modelfile("x", ServeSettings(), GEMMA3.prompt)
    assert "<unused10>user" in render_modelfile("x", ServeSettings(), source.family.prompt)
    card = render_card(CardFacts("club/x", run.settings, made_up, {}, None, None, {}, ()))
    assert "license: mit" in card
    assert "Gemma Terms" not in card


def test_a_new_family_brings_names_sizes_and_control_tokens(made_up: ModelFamily, base: Path) -> None:
    assert (
        find_model(ModelSettings(base="club/tiny-1m")) == find_model(ModelSettings(base=str(base))) == made_up.sizes[0]
    )
    with pytest.raises(ConfigError, match="use club/tiny-1m"):
        resolve_base(ModelSettings(base="club/tiny"))
    found = resolve_source(ServeSettings(source="made-up:tiny"), base, made_up)
    assert (found.text, found.family) == ("made-up:1m", made_up)
    assert neutralise_control_tokens("<unused10>") == "＜unused10>"


def test_a_new_familys_loss_is_trimmed(made_up: ModelFamily) -> None:
    import torch

    model: Any = tiny_model("gemma3", torch.float32)
    batch = random_batch([(9, 3), (14, 2)], seed=3)
    expected = gradients(model, completion_loss(model, batch))
    config = model.get_base_model().model.config
    config.model_type = next(iter(made_up.model_types))
    assert can_trim(model)
    assert relative(gradients(model, CompletionTrim(model)(batch)), expected) < 1e-4
    config.model_type = "no_family"
    assert not can_trim(model)


def test_an_export_without_a_notice_gets_its_own_familys(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    merge_adapter(tiny_base, tiny_adapter, ExportSettings(), tmp_path)
    notice = (tmp_path / "NOTICE").read_text("utf-8")
    assert notice == GEMMA3.licence.notice
    assert "Gemma Terms of Use" in notice
    assert family_at(tmp_path) is GEMMA3


def test_positions_are_read_from_either_form() -> None:
    flat = {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_local_base_freq": 2e4}
    nested = {
        "full_attention": {"rope_type": "linear", "rope_theta": 5e5, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
    }
    for text in (flat, {"rope_parameters": nested}, flat | {"rope_parameters": nested}):
        assert GEMMA3N.rope_parameters(text) == nested
    assert GEMMA3.rope_parameters({})["full_attention"] == {"rope_type": "default", "rope_theta": 1_000_000.0}


def test_a_family_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        GEMMA3.name = "x"  # type: ignore[misc]
