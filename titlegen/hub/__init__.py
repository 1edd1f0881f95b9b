"""Publication of the export: one command to a Hub repository that stands on its own, and proof of what arrived."""

from titlegen.hub.assembly import Artefacts, ollama_files, require_gates
from titlegen.hub.card import render_card
from titlegen.hub.check import check_download, verify_remote
from titlegen.hub.push import preview_push, push_model
from titlegen.hub.scan import scan_files
from titlegen.hub.target import HubTarget, ensure_hub

__all__ = [
    "Artefacts",
    "HubTarget",
    "check_download",
    "ensure_hub",
    "ollama_files",
    "preview_push",
    "push_model",
    "render_card",
    "require_gates",
    "scan_files",
    "verify_remote",
]
