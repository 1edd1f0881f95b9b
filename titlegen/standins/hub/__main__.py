"""The bundled Hub as a program: ``python -m titlegen.standins.hub --port N --directory DIR``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from titlegen.errors import TitlegenError
from titlegen.standins.hub import app
from titlegen.standins.hub.store import RepositoryStore
from titlegen.standins.hub.wire import require_loopback


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until the process is ended; returns 2 when the server cannot start."""
    import uvicorn

    parser = argparse.ArgumentParser(prog="python -m titlegen.standins.hub", description=app.__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument("--directory", type=Path, required=True, help="where the repositories are")
    arguments = parser.parse_args(argv)
    try:
        require_loopback(arguments.host)
        hub = app.create_app(RepositoryStore(arguments.directory))
    except TitlegenError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    uvicorn.run(hub, host=arguments.host, port=arguments.port, log_level="warning", ws="none", lifespan="off")
    return 0


if __name__ == "__main__":
    sys.exit(main())
