from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from titlegen import environment
from titlegen.generation import decoder
from titlegen.prefer import trainer as preference
from titlegen.train import trainer

TOKENIZER: Any = SimpleNamespace(pad_token_id=0)


def training_batch() -> None:
    row = {"input_ids": [1, 2, 3], "labels": [-100, 2, 3], "row": 0, "length": 3}
    trainer.collator(TOKENIZER, packed=True)([row])


def preference_batch() -> None:
    row = {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5]}
    preference._collator(TOKENIZER, packed=True)([row])


def prompts() -> None:
    decoder._pack_prompts([[1, 2], [1, 3, 4]])


@pytest.mark.parametrize(
    ("module", "make"), [(trainer, training_batch), (preference, preference_batch), (decoder, prompts)]
)
def test_batches_are_made_on_one_thread(
    module: ModuleType, make: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waking many for each of their small operations makes a GPU wait."""
    used: list[int] = []
    monkeypatch.setattr(module, "pack", lambda *_: used.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        make()
        assert used == [1]
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="broken"), environment.one_thread():
            raise ValueError("broken")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
