"""The verbs that use the deployed model: titles for an article or a file of them, and the server itself."""

import contextlib
import dataclasses
import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from titlegen.control import NO_CONTROL, Control
from titlegen.daemon import stop_daemon
from titlegen.data.files import is_table
from titlegen.encodings import decode_text, read_at_most
from titlegen.errors import ConfigError, DataError
from titlegen.plural import count
from titlegen.record import recall
from titlegen.runs import Folder, Run, say
from titlegen.settings import Settings

if TYPE_CHECKING:
    from titlegen.cluster import DirectoryTitles
    from titlegen.metrics.assessment import Assessment
    from titlegen.metrics.title_warnings import Evidence
    from titlegen.serve import Answer, FileTitles

# Eight times the characters that are read of an article, of four bytes each.
_MOST_BYTES = 2**26
# Lines of a file of articles between two reports of progress.
_PROGRESS_LINES = 100
# Lines without a title that are shown; the file of titles has them all.
_SHOWN_ERRORS = 20
_SHOWN_CHARS = 60


class AssessedAnswer(NamedTuple):
    """A title, and how it stands among the others for its article."""

    answer: "Answer"
    assessment: "Assessment"

    def as_json(self) -> dict[str, Any]:
        """Return both as one object."""
        return dataclasses.asdict(self.answer) | dataclasses.asdict(self.assessment)


def generate(settings: Settings, article: str, number: int = 1, control: Control = NO_CONTROL) -> list[AssessedAnswer]:
    """Return the deployed model's titles for an article in a file, or on standard input for ``-``, the best first.

    Each comes with its evidence in the article, the reasons for its place, and the rules that it keeps or breaks.

    Args:
        settings: all settings.
        article: path of a text file, or ``-``.
        number: titles at most.
        control: length and words that the titles should have.

    Raises:
        ConfigError: it is a file or folder of many articles.
        DataError: the file cannot be read as text.
        ServeError: the server or the model does not answer.
    """
    if is_table(article):
        raise ConfigError(f"{article} is a file or folder of many articles; say with --out where their titles go")
    try:
        raw = sys.stdin.buffer.read(_MOST_BYTES + 1) if article == "-" else read_at_most(Path(article), _MOST_BYTES)
    except OSError as error:
        raise DataError(
            f"cannot read {article!r}: {error.strerror}; give a text file, or - for standard input"
        ) from error
    if len(raw) > _MOST_BYTES:
        raise DataError(
            f"{article!r} has more than {_MOST_BYTES:,} bytes, which no article has; give the text of one, or say with "
            "--out where the titles of many go"
        )
    text = decode_text(raw, repr(article), settings.data.encoding)
    from titlegen.metrics.assessment import assess_titles

    with _client(settings) as client:
        answers = client.generate_candidates(text, number, control)
        facts = client.facts(text)
    if control and answers[0].unmet:
        asked = [control.describe_length() if name == "chars" else f"the word {name}" for name in answers[0].unmet]
        say(f"no title has {' and '.join(asked)}, however often it was asked for; edit one by hand")
    for place, answer in enumerate(answers, 1):
        for warning in answer.warnings:
            say(f"{f'title {place}: ' if number > 1 else ''}{warning.message}{_quoted(warning.evidence)}")
    if answers[0].trimmed:
        say(
            f"the article has more than the {client.content_tokens} tokens that the model reads, in training as here; "
            "its end was left out at a sentence end"
        )
    assessments = assess_titles([answer.title for answer in answers], facts)
    return list(map(AssessedAnswer, answers, assessments))


def generate_many(
    settings: Settings, source: str, target: Path | None, *, engine: str, ordered: bool, number: int, concurrency: int
) -> "FileTitles | DirectoryTitles":
    """Write titles for the articles of files: into a file in this process, or into a folder on Ray.

    Raises:
        ConfigError: options that do not go together.
        TitlegenError: what :func:`generate_file` and :func:`titlegen.cluster.generate_directory` raise.
    """
    if target is None:
        raise ConfigError("--engine ray and --ordered need --out, a folder for the titles")
    # A path has one slash of the two.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(target)):
        raise ConfigError(
            f"--out {target} is an address of an object store, in which files cannot be renamed when they are whole; "
            "give a folder of this machine or of a disk that all see, and copy it at the end"
        )
    if engine == "ray":
        from titlegen.cluster import generate_directory

        return generate_directory(settings, source, target, number=number, concurrency=concurrency, ordered=ordered)
    if ordered:
        raise ConfigError("--ordered belongs to --engine ray; without it, titles are in the order of the articles")
    return generate_file(settings, source, target, number=number, concurrency=concurrency)


def generate_file(settings: Settings, source: str, target: Path, *, number: int, concurrency: int) -> "FileTitles":
    """Write the deployed model's titles for the articles of a file or folder; an interrupted run is resumed.

    Raises:
        DataError: the source cannot be read, or the target is something else's result.
        ServeError: the server or the model does not answer.
        TitlegenError: the target cannot be written.
    """
    from titlegen import serve as serving

    def progress(done: int) -> None:
        if done % _PROGRESS_LINES == 0:
            say(f"generate: {count(done, 'article')} done")

    errors = itertools.count(1)

    def error(text: str) -> None:
        if next(errors) <= _SHOWN_ERRORS:
            say(f"generate: {text}")

    with _client(settings) as client:
        result = serving.generate_file(
            client,
            settings.data.model_copy(update={"source": source, "limit": 0}),
            target,
            concurrency=concurrency,
            number=number,
            on_line=progress,
            on_error=error,
        )
    if result.failed > _SHOWN_ERRORS:
        more = count(result.failed - _SHOWN_ERRORS, "more article")
        say(f"generate: and {more} without a title; {target} says why")
    titles, failed = count(result.lines - result.failed, "title"), count(result.failed, "article")
    text = f"{titles} in {target}, {failed} without one"
    text += f", {result.warned} with a warning" if result.warned else ""
    text += "; run the command again to try those that failed once more" if result.failed else ""
    text += f"; {result.resumed} had been done before" if result.resumed else ""
    return dataclasses.replace(result, message=text)


def _quoted(evidence: "Evidence | None") -> str:
    """Return what an article says, for the end of a line."""
    if evidence is None:
        return ""
    text = " ".join(evidence.text.split())
    return f" (it says: {text[:_SHOWN_CHARS]}{'…' if len(text) > _SHOWN_CHARS else ''})"


@contextlib.contextmanager
def _client(settings: Settings) -> Iterator[Any]:
    from titlegen import serve as serving

    convert = settings.data.script != "keep"
    taught = recall(settings).train.control_share > 0
    client = serving.Client(settings.serve, settings.directory / Folder.EXPORT, convert=convert, taught=taught, say=say)
    try:
        yield client
    finally:
        client.close()


@dataclass(frozen=True)
class Answering:
    """The server that answers, as :class:`titlegen.serve.Server` describes it, for a program and for a person."""

    kind: str
    host: str
    version: str
    started: bool
    message: str


@dataclass(frozen=True)
class Stopped:
    """The servers that were ended, for a program and for a person."""

    stopped: list[str]
    message: str


def serve(settings: Settings) -> Answering:
    """Make sure that a server answers."""
    from titlegen import serve as serving

    server = serving.ensure_server(settings.serve, Run(settings).state)
    return Answering(**dataclasses.asdict(server), message=f"{server.kind} answers at {server.host}")


def stop_servers(settings: Settings) -> Stopped:
    """End the servers that titlegen started."""
    ended = [name for name in ("server", "hub") if stop_daemon(name, Run(settings).state)]
    return Stopped(ended, f"stopped: {', '.join(ended)}" if ended else "nothing was running")
