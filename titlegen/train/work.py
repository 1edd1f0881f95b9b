"""The files between a command and the processes that train for it."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from titlegen.settings import TrainSettings

RESULT = "result.json"


class Work(BaseModel):
    """The work of the processes, as the command has resolved it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prepared: Path
    """Folder of the prepared data."""
    base: Path
    settings: TrainSettings
    work: Path
    directory: Path
    key: str
    """Digest of everything that the result depends on; every host must have the same."""
    timeout_s: float


class Failure(BaseModel):
    """The failure of a rank."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    known: bool
    """The text says what to do; otherwise the error was unexpected."""
    text: str
    traceback: str


def failure_of(folder: Path, rank: int) -> Path:
    """Return the file of a rank's failure."""
    return folder / f"failure{rank}.json"
