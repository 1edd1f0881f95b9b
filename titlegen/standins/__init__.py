"""Stand-ins on loopback for machines without the Hugging Face Hub or without Ollama: the same wire protocols.

Each is a program of its own; what starts one, and what its clients know of it, is here.
"""

import sys
from pathlib import Path

# Not a secret: whoever can reach a loopback port may use the Hub, and the client wants to send some token.
HUB_TOKEN = "titlegen-offline"  # noqa: S105
HUB_ACCOUNT = "local"
# What the Hub says that it is, at its root.
HUB_SERVICE = "titlegen offline Hub"


def hub_command(port: int, directory: Path) -> list[str]:
    """Return the command that runs the bundled Hub, whose repositories are in ``directory``."""
    return [sys.executable, "-m", "titlegen.standins.hub", "--port", str(port), "--directory", str(directory)]


def ollama_command(host: str, port: int, directory: Path) -> list[str]:
    """Return the command that runs the bundled Ollama server, whose models are in ``directory``."""
    command = [sys.executable, "-m", "titlegen.standins.ollama", "--host", host, "--port", str(port)]
    return [*command, "--directory", str(directory)]
