"""Settings of preference training."""

from typing import Annotated, Literal

from pydantic import Field

from titlegen.settings.stage import Seed, Share, StageSettings


class PreferSettings(StageSettings):
    """Learning from the trained model's own best titles, between training and export; off by default."""

    enabled: bool = False
    """Run this stage; `titlegen prefer` does in any case, and later commands remember it."""
    source: str | None = None
    """Further articles, which need no titles: a file, folder or pattern, or a Hub data set; columns as for `data`."""
    choices: str | None = None
    """Titles that editors chose or edited, a file that the desk exported."""
    choices_weight: Annotated[int, Field(ge=1, le=100)] = 4
    """How often each of those choices counts."""
    rounds: Annotated[int, Field(ge=1, le=8)] = 1
    """Times that candidates are drawn, each from what was learned before, and learned from."""
    limit: Annotated[int, Field(ge=0)] = 0
    """Draw for at most so many train articles, 0 for all."""
    candidates: Annotated[int, Field(ge=2, le=64)] = 16
    """Titles drawn for each article, the greedy one included."""
    temperature: Annotated[float, Field(gt=0)] = 0.8
    """Sampling temperature of the candidates."""
    reference_weight: Share = 0.5
    """Weight of the likeness to the reference title in a candidate's rank; the rest is agreement with the others."""
    pairs: Annotated[int, Field(ge=1, le=63)] = 4
    """Pairs for each article: its best candidate over so many worse ones."""
    distance: Share = 0.1
    """How much worse the other title of a pair is, in ROUGE-L, unless it has more faults."""
    length_gap: Annotated[int, Field(ge=0)] = 3
    """How many characters longer or shorter the other title of a pair may be."""
    objective: Literal["dpo", "simpo", "cpo", "sft"] = "dpo"
    """What is optimised: DPO, SimPO, CPO, or the likelihood of the best candidates alone."""
    beta: Annotated[float, Field(gt=0)] = 0.3
    """How strongly the objective holds the model to the SFT model (DPO), or scales its margin (SimPO, CPO)."""
    margin: Annotated[float, Field(ge=0)] = 0.5
    """SimPO's target margin, in its reward."""
    sft_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the best title's own cross-entropy beside the objective."""
    num_train_epochs: Annotated[float, Field(gt=0)] = 1
    """Passes over the pairs."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Pairs in one optimizer step."""
    learning_rate: Annotated[float, Field(gt=0)] = 7e-5
    """Peak learning rate of AdamW."""
    seed: Seed = 20261127
    """Seed of the candidates and of the order of the pairs."""
