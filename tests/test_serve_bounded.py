"""Servers that send without end, a byte at a time, nested, or elsewhere: none of them holds up who asked."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from titlegen.errors import TitlegenError
from titlegen.serve import bounded, deployment, served_digest
from titlegen.settings import ServeSettings

_HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


@contextlib.contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Answer every request with what a function sends, as long as somebody reads it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            answer(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],)).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _drip(connection: socket.socket) -> None:
    connection.sendall(_HEAD)
    while True:
        connection.sendall(b" ")
        time.sleep(0.02)


def _flood(connection: socket.socket) -> None:
    connection.sendall(_HEAD)
    while True:
        connection.sendall(b"a" * 2**20)


def _nest(connection: socket.socket) -> None:
    connection.sendall(_HEAD + b'{"models": ' + b"[" * 200_000)


def _send_elsewhere(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/api/tags\r\nContent-Length: 0\r\n\r\n")


def _list_strangely(connection: socket.socket) -> None:
    connection.sendall(_HEAD + b'{"models": [3]}')


@pytest.mark.parametrize(
    "read", [lambda *given: list(bounded.read_lines(*given)), bounded.read_json, bounded.read_text]
)
@pytest.mark.parametrize(("answer", "error"), [(_drip, httpx.ReadTimeout), (_flood, ValueError)])
@pytest.mark.fault
def test_an_answer_without_end_is_given_up(
    read: Callable[[httpx.Response, float], object], answer: Callable[[socket.socket], None], error: type[Exception]
) -> None:
    most_s = 0.2 if answer is _drip else 30
    with raw_server(answer) as url, httpx.stream("GET", url, trust_env=False) as response, pytest.raises(error):
        read(response, most_s)


def test_lines_come_whole_however_they_are_sent() -> None:
    def answer(connection: socket.socket) -> None:
        for part in (_HEAD, b'{"a"', b": 1}\n\n{", b'"b": 2}', b'\n{"c": 3}'):
            connection.sendall(part)
            time.sleep(0.02)

    with raw_server(answer) as url, httpx.stream("GET", url, trust_env=False) as response:
        lines = [bounded.parse_json(line) for line in bounded.read_lines(response, 30)]
    assert lines == [{"a": 1}, {"b": 2}, {"c": 3}]


@pytest.mark.fault
@pytest.mark.parametrize("answer", [_drip, _flood, _nest, _send_elsewhere, _list_strangely])
def test_what_lists_no_models_is_said_to(
    answer: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "_PROBE_S", 0.5 if answer is _drip else 30)
    with raw_server(answer) as url, pytest.raises(TitlegenError, match=r"127\.0\.0\.1"):
        served_digest(ServeSettings(host=url))
