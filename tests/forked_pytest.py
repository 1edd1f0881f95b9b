"""Runs of pytest, each a process of its own: a copy of one that has imported already what takes long."""

import contextlib
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path

import pytest

# What the lines of the checklist import.
_USED = (
    *("transformers.models.gemma3.modeling_gemma3", "peft", "scipy.stats", "datasets", "gguf", "ollama", "hypothesis"),
    *("titlegen.data", "titlegen.evaluate", "titlegen.export", "titlegen.generation"),
    *("titlegen.hub", "titlegen.serve", "titlegen.verify"),
)


class ForkedPytest:
    """Starts runs of pytest as ``python -m pytest`` does, without its imports."""

    def __init__(self, process: "subprocess.Popen[str]", output: Path) -> None:
        self._process = process
        self._output = output

    def run(self, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> tuple[int, str]:
        """Return exit code and output of a run."""
        asked = {"arguments": arguments, "cwd": str(cwd), "environment": dict(environment), "output": str(self._output)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline()), self._output.read_text(encoding="utf-8")


@contextlib.contextmanager
def forked_pytest(folder: Path, environment: Mapping[str, str]) -> Iterator[ForkedPytest]:
    """Start the process that is copied; what libraries read of the environment once, they read here."""
    process = subprocess.Popen(  # noqa: S603 - our own file
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(environment)
    )
    with process:
        yield ForkedPytest(process, folder / "output.txt")


def _serve() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(asked["cwd"], asked["environment"], asked["output"])
            code = pytest.main(asked["arguments"])
            sys.stdout.flush()
            # Taking down what was imported would copy all of its memory first.
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(cwd: str, environment: dict[str, str], output: str) -> None:
    """Take on what belongs to a run."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(1, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    # As python -m does.
    sys.path[0] = cwd


if __name__ == "__main__":
    for name in _USED:
        import_module(name)
    # No copy looks for garbage among what all share.
    gc.freeze()
    _serve()
