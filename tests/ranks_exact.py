"""Trains tiny models in float64 as one of several ranks: ``ranks_exact.py TOKENIZER FILE``, with what torchrun sets.

Every rank writes FILE with its number behind the name.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from training_models import keep_double, train_exactly
from transformers import AutoTokenizer

from titlegen.train.ranks import joined


def main() -> None:
    torch.set_num_threads(1)
    keep_double(SimpleNamespace(setattr=setattr))
    tokenizer, out = AutoTokenizer.from_pretrained(sys.argv[1]), Path(sys.argv[2])
    with joined() as ranks:
        found = {}
        for kind in ("gemma3n", "gemma3"):
            for accumulation in (1, 3):
                work = out.parent / f"{kind}{accumulation}"
                found[f"{kind} {accumulation}"] = train_exactly(kind, accumulation, tokenizer, work, ranks)
        torch.save(found, f"{out}{ranks.rank}")


if __name__ == "__main__":
    main()
