"""Serving: the source of a model, deployment with switch-over, and the client that takes an article of any size."""

from titlegen.serve.answer import Answer
from titlegen.serve.batch import FileTitles, generate_file
from titlegen.serve.client import CONCURRENCY, Client
from titlegen.serve.deploy import create_model, deploy, rollback
from titlegen.serve.deployment import is_deployed, served_digest
from titlegen.serve.endpoint import UnavailableError
from titlegen.serve.served_generator import ServedGenerator
from titlegen.serve.server import Server, ensure_server, server_url, stop_server
from titlegen.serve.source import render_template, resolve_source

__all__ = [
    "CONCURRENCY",
    "Answer",
    "Client",
    "FileTitles",
    "ServedGenerator",
    "Server",
    "UnavailableError",
    "create_model",
    "deploy",
    "ensure_server",
    "generate_file",
    "is_deployed",
    "render_template",
    "resolve_source",
    "rollback",
    "served_digest",
    "server_url",
    "stop_server",
]
