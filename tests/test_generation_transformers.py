"""A model directory in transformers: one way to load it and to write with it, for proofs, the Hub and evaluation."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from titlegen.families.gemma3 import PROMPT
from titlegen.generation import greedy_title, least_rounding, load_model, write_tokens
from titlegen.models import load_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def prompts(tiny_base: Path, articles: list[dict[str, str]]) -> list[list[int]]:
    texts = [PROMPT.render(article["content"][: 30 + 40 * number]) for number, article in enumerate(articles[:4])]
    rows: list[list[int]] = load_tokenizer(tiny_base)(texts, add_special_tokens=False)["input_ids"]
    return rows


def test_a_title_does_not_depend_on_those_beside_it(tiny_base: Path, prompts: list[list[int]]) -> None:
    model = load_model(tiny_base, dtype=torch.float64)
    together = write_tokens(model, prompts, padding=0, stop=[], max_new_tokens=6)
    alone = [write_tokens(model, [prompt], padding=0, stop=[], max_new_tokens=6).rows[0] for prompt in prompts]
    assert together.rows == alone
    assert together.logits == ()
    logits = write_tokens(model, prompts, padding=0, stop=[], max_new_tokens=6, with_logits=True).logits
    assert [step.argmax(-1).tolist() for step in logits] == [list(step) for step in zip(*alone, strict=True)]
    torch.manual_seed(0)
    assert write_tokens(model, prompts, padding=0, stop=[], max_new_tokens=6, temperature=5.0).rows != alone


def test_a_download_ends_its_title_where_its_own_configuration_says(
    tiny_base: Path, prompts: list[list[int]], articles: list[dict[str, str]], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "model")
    article = articles[1]["content"][:70]
    (written,) = write_tokens(load_model(folder), prompts[1:2], padding=0, stop=[], max_new_tokens=3).rows
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"eos_token_id": written[0]}), encoding="utf-8")
    tokenizer = load_tokenizer(folder)
    assert greedy_title(folder, article) == tokenizer.decode(written[:1], skip_special_tokens=True).strip()
    assert len(greedy_title(tiny_base, article)) > 1


def test_a_model_is_loaded_in_the_type_that_is_asked_for(tiny_base: Path, tiny_adapter: Path) -> None:
    assert load_model(tiny_base).dtype == torch.float32
    assert load_model(tiny_base, tiny_adapter, dtype=torch.bfloat16).dtype == torch.bfloat16
    if not torch.cuda.is_available():
        assert least_rounding(tiny_base) == torch.float32
