"""An editor's file read in a process of its own, which has little memory and little time: ``python -m`` this module.

A thread could not be ended: within the size that is allowed, libxml2 takes hours for one tag of a million attributes.
"""

import json
import subprocess
import sys
import threading
from typing import cast

from titlegen.desk.documents import read_document
from titlegen.environment import python_command
from titlegen.errors import DataError, TitlegenError

# A file that takes more was made to. Python and its parsers alone take 0.3 GiB of addresses.
_MOST_BYTES, _MOST_CPU_S, _MOST_S = 1536 * 2**20, 15, 60
# So many editors drop a file at the same moment; the next one waits.
_AT_ONCE = threading.BoundedSemaphore(2)


def read_apart(raw: bytes, name: str) -> str:
    """Return the text of a file, as :func:`titlegen.desk.documents.read_document` does, whatever was made of it.

    Raises:
        DataError: it cannot be read, or takes more memory or time than an article needs.
        TitlegenError: a package for it is missing.
    """
    # The end of the name alone says anything; an argument has no NUL.
    kind = ascii(name[-10:])[1:-1]
    command = [*python_command("titlegen.desk.apart"), kind, str(_MOST_BYTES), str(_MOST_CPU_S)]
    try:
        with _AT_ONCE:
            done = subprocess.run(command, input=raw, capture_output=True, timeout=_MOST_S, check=False)  # noqa: S603 - ours
        found = cast("dict[str, str]", json.loads(done.stdout))
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise DataError("the file takes more time or memory than an article needs; paste its text instead") from error
    if "text" in found:
        return found["text"]
    raise (DataError if found["kind"] == DataError.__name__ else TitlegenError)(found["error"])


def main() -> None:
    """Read a file from standard input, and write what it holds as JSON."""
    import resource

    name, *most = sys.argv[1:]
    for kind, limit in zip((resource.RLIMIT_AS, resource.RLIMIT_CPU), map(int, most), strict=True):
        # A container may allow less already, and then nothing may raise it.
        _, hard = resource.getrlimit(kind)
        most_here = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (most_here, most_here))
    try:
        found = {"text": read_document(sys.stdin.buffer.read(), name)}
    except TitlegenError as error:
        found = {"kind": type(error).__name__, "error": str(error)}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
