"""Loading of what lasts as long as the process: libraries, and a model's tokenizer."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage meanwhile.

    Importing transformers and reading a vocabulary makes millions of objects, all of which last; looking through them
    again and again takes a third of the time. Not for loading weights, of which garbage could hold a copy.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Return a directory's tokenizer as transformers loads it; code that it brings is not run."""
    with uncollected():
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
