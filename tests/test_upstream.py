"""Which lines of other packages are kept from a person: those of the real packages, and no other ones."""

import logging
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from titlegen.upstream import silence_harmless


def test_importing_bitsandbytes_says_nothing() -> None:
    # On a processor with AVX512-BF16 it says that a kernel failed to load.
    code = "from titlegen.upstream import silence_harmless as quiet; quiet(); import bitsandbytes"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert "kernels" not in result.stderr


def test_aligning_gemmas_tokens_says_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.trainer_utils import align_special_tokens
    from transformers.utils.logging import get_logger

    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)

    def align() -> Any:
        tokens = {"bos_token_id": 2, "eos_token_id": [1, 106], "pad_token_id": 0}
        model = SimpleNamespace(config=SimpleNamespace(**tokens), generation_config=SimpleNamespace(**tokens))
        align_special_tokens(model, SimpleNamespace(**(tokens | {"eos_token_id": 1})))
        return model.config.eos_token_id

    logger = get_logger("transformers.trainer_utils")
    # What the command line did earlier in this process.
    logger.filters.clear()
    assert align() == 1
    assert "new PAD/BOS/EOS tokens" in caplog.text
    caplog.clear()
    silence_harmless()
    silence_harmless()
    try:
        assert align() == 1
        assert caplog.text == ""
        # Silenced twice, each line is looked for once.
        assert len(logger.filters) == len(set(logger.filters))
        logger.warning("something else")
        assert "something else" in caplog.text
    finally:
        logger.filters.clear()
