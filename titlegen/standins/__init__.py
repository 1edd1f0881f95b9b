"""Stand-ins on loopback for machines without the Hugging Face Hub or without Ollama: the same wire protocols.

Each is a program of its own; its command, and the names that its clients need, are here.
"""

from pathlib import Path

from titlegen.environment import python_command

# Not a secret: every program that reaches a loopback port may use the Hub, and the client insists on a token.
HUB_TOKEN = "titlegen-offline"  # noqa: S105
HUB_ACCOUNT = "local"
# The Hub's answer at its root.
HUB_SERVICE = "titlegen offline Hub"


def hub_command(port: int, directory: Path) -> list[str]:
    """Return the command that runs the bundled Hub, whose repositories are in ``directory``."""
    return [*python_command("titlegen.standins.hub"), "--port", str(port), "--directory", str(directory)]


def ollama_command(host: str, port: int, directory: Path) -> list[str]:
    """Return the command that runs the bundled Ollama server, whose models are in ``directory``."""
    command = [*python_command("titlegen.standins.ollama"), "--host", host, "--port", str(port)]
    return [*command, "--directory", str(directory)]
