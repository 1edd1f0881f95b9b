"""What a command and the processes that train for it tell each other, in files."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from titlegen.settings import TrainSettings

RESULT = "result.json"


class Work(BaseModel):
    """What the processes are to do, as the command has found it out."""

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
    """Why a rank failed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    known: bool
    """The text says what to do; otherwise it is an error that nobody foresaw."""
    text: str
    traceback: str


def failure_of(folder: Path, rank: int) -> Path:
    """Return where a rank writes why it failed."""
    return folder / f"failure{rank}.json"
