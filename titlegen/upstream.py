"""Log lines of other packages that look alarming and mean nothing here, each with its cause."""

import logging
from dataclasses import dataclass


@dataclass(frozen=True)
class _Harmless:
    """Drops the lines of a logger that begin like this."""

    logger: str
    beginning: str

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.beginning)


_HARMLESS = (
    # Said on every import of bitsandbytes, on a CPU with AVX512-BF16, where a kernel is not there that would be fetched
    # from the Hub. It computes with repacked 4-bit weights, which titlegen/train/backends.py turns off.
    _Harmless("bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward from kernels-community"),
    # Gemma ends a title with one of two tokens; transformers compares the list of them with the tokenizer's one. What
    # is aligned is the model in memory, of which the adapter alone is kept.
    _Harmless("transformers.trainer_utils", "The tokenizer has new PAD/BOS/EOS tokens"),
    # Said when a run goes on with another number of cards, or of rows at a time. A step has the same rows with any, and
    # checkpoints of other settings are never resumed.
    _Harmless("transformers.trainer_utils", "Warning: The following arguments do not match the ones"),
)


def silence_harmless() -> None:
    """Drop these lines, and no others of their loggers."""
    for line in _HARMLESS:
        logging.getLogger(line.logger).addFilter(line)
