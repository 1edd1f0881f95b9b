"""The base of every stage's settings."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

Share = Annotated[float, Field(ge=0, le=1)]
# numpy's generator takes no other, and says so only when the models are loaded.
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class StageSettings(BaseModel):
    """Base of one stage's settings: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _without_nul(cls, value: object) -> object:
        return refuse_nul(value)


def refuse_nul(value: object) -> object:
    """Return a value that a name or a path may have.

    Raises:
        ValueError: it is a text with a null byte, which the system's calls would refuse one after another.
    """
    if isinstance(value, str) and "\0" in value:
        raise ValueError("it holds a null byte; take it out")
    return value
