"""One llama.cpp server in a process of its own: the engine that ``titlegen.standins.ollama.engine`` starts for a model.

The process dies with its parent, whatever ends the parent, so that no engine is left holding memory.
"""

import argparse
import ctypes
import os
import signal
import sys
import threading
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_QUIET = 1
_PASS_TOKENS = 2048
# Tokens are drafted where the last two stood together before: one alone does so in any text, and a draft that is wrong
# costs a pass its time (benchmarks/results/lookup_cpu.json).
_RUN = 2


def main() -> None:
    """Serve one GGUF file on a loopback port until killed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--program", help="run this llama-server program instead of the one inside xllamacpp")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--parallel", type=int, required=True)
    parser.add_argument("--num-ctx", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--lookup", type=int, default=0)
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    # Linux only, as titlegen is; it also holds for the program that takes this process' place.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != arguments.parent:
        sys.exit("the server that started this engine is gone")
    if arguments.program:
        os.execv(arguments.program, _command(arguments))  # noqa: S606 - a list of arguments, no shell
    _serve(arguments)


def _command(arguments: argparse.Namespace) -> list[str]:
    """Return the command line of a llama-server program."""
    options = {
        "--model": arguments.model,
        "--ctx-size": arguments.num_ctx * arguments.parallel,
        "--parallel": arguments.parallel,
        "--threads": arguments.threads,
        # On a GPU each pass launches every operation anew: an article is read in one, not in parts of 512 tokens.
        "--ubatch-size": min(arguments.num_ctx, _PASS_TOKENS),
        "--host": "127.0.0.1",
        "--port": arguments.port,
        "--api-key-file": arguments.key_file,
        "--log-verbosity": _QUIET,
        "--cache-ram": 0,
    }
    if arguments.lookup:
        options["--spec-type"] = "ngram-simple"
        options["--spec-ngram-simple-size-n"] = _RUN
        options["--spec-ngram-simple-size-m"] = arguments.lookup
    flags = [str(part) for option in options.items() for part in option]
    return [arguments.program, *flags, "--context-shift", "--swa-full"]


def _serve(arguments: argparse.Namespace) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(arguments.model)
    params.hostnames = ["127.0.0.1"]
    params.port = arguments.port
    params.api_keys = [arguments.key_file.read_text(encoding="utf-8").strip()]
    params.n_parallel = arguments.parallel
    params.n_ctx = arguments.num_ctx * arguments.parallel
    params.ctx_shift = True
    # Keeps the instruction, with which every prompt begins, for the next article: without it, layers with a sliding
    # window read it anew each time.
    params.swa_full = True
    # Up to 8 GB of old prompts; articles do not come twice.
    params.cache_ram_mib = 0
    # One connection occupies a thread for as long as it is kept alive.
    params.n_threads_http = 2 * arguments.parallel + 4
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = arguments.threads
    if arguments.lookup:
        # Exact for sampled titles, too: a draft is kept where the draw that would be made without it is the same.
        params.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
        params.speculative.ngram_simple.size_n = _RUN
        params.speculative.ngram_simple.size_m = arguments.lookup
    params.verbosity = _QUIET
    params.endpoint_slots = True
    params.ui = False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)  # noqa: T201 - into the parent's log
    threading.Event().wait()


if __name__ == "__main__":
    main()
