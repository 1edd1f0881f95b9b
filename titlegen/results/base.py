"""The base of all results, and the function that reads one back from a manifest."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from titlegen.errors import VerifyError
from titlegen.manifest import MANIFEST, Manifest

# Reports and manifests are read from disk: their names go into Markdown, so they must not be able to be markup.
Name = Annotated[str, StringConstraints(pattern=r"^\w{1,60}$")]


class Part(BaseModel):
    """Part of a result; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_by_name=True, serialize_by_alias=True)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON that is stored: the fields that were set."""
        return self.model_dump(mode="json", exclude_unset=True)


class Result(Part):
    """The result of a stage."""

    elapsed_s: float = 0.0
    """Of the whole stage; set when it is over."""

    def as_json(self) -> dict[str, Any]:
        """Return the JSON that a manifest stores: the fields that were set."""
        found = super().as_json()
        # The time is known last.
        return found | ({"elapsed_s": found.pop("elapsed_s")} if "elapsed_s" in found else {})


R = TypeVar("R", bound=Result)


def read_result(kind: type[R], manifest: Manifest) -> R:
    """Return the result in a stage's manifest.

    Raises:
        VerifyError: the manifest holds something else.
    """
    try:
        return kind.model_validate(manifest.results)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise VerifyError(
            f"the {MANIFEST} of {manifest.stage} holds no results of it ({where}: {first['msg']}); run that stage again"
        ) from error
