"""The adapter that the quickstart starts from: it fits, it is small, and it never saw the quickstart's test split."""

import json
from importlib import resources
from pathlib import Path

import pytest

from titlegen.adapter import WEIGHTS, AdapterDeltas, digest_base
from titlegen.data import load_split, prepare
from titlegen.models import resolve_base
from titlegen.settings import load_settings
from titlegen.train import resolve_init_adapter

STARTER = Path(str(resources.files("titlegen") / "starter"))
MAX_BYTES = 16 * 2**20


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    directory = tmp_path_factory.mktemp("data")
    settings = load_settings(profile="quickstart")
    prepare(settings.data, resolve_base(settings.model) / "tokenizer.json", directory)
    return {name: {example.id for example in load_split(directory, name)} for name in ("train", "val", "test")}


def test_the_starter_fits_the_quickstart() -> None:
    settings = load_settings(profile="quickstart")
    assert settings.train.init_adapter is not None
    assert resolve_init_adapter(settings.train.init_adapter) == STARTER
    adapter = AdapterDeltas(STARTER)
    assert adapter.base_digest == digest_base(resolve_base(settings.model))
    assert (adapter.rank, adapter.alpha) == (settings.train.lora_r, settings.train.lora_alpha)
    assert (STARTER / WEIGHTS).stat().st_size < MAX_BYTES


def test_the_starter_never_saw_what_it_is_tested_on(splits: dict[str, set[str]]) -> None:
    seen = set(json.loads((STARTER / "training.json").read_text(encoding="utf-8"))["corpus_articles"])
    # Otherwise the ids would be those of other articles, and say nothing.
    assert len(seen & splits["train"]) == len(seen)
    assert not seen & splits["test"]
    assert not seen & splits["val"]


def test_the_test_split_can_decide_the_specifications_rate(splits: dict[str, set[str]]) -> None:
    # Wilson's interval of so many titles that are all clean begins above 0.98.
    assert len(splits["test"]) >= 189


def test_a_profiles_starter_can_be_taken_back() -> None:
    assert load_settings(profile="quickstart", train={"init_adapter": "none"}).train.init_adapter is None
