"""The article at an address, where fetching is switched on: never from this machine or its own network."""

import ipaddress
from collections.abc import Iterable
from typing import Any
from urllib.parse import urljoin, urlsplit

from titlegen.desk.apart import read_apart
from titlegen.desk.documents import MAX_FILE_BYTES
from titlegen.errors import DataError

_TIMEOUT_S = 10.0
_MOST_REDIRECTS = 5
# Whose last 32 bits are an IPv4 address: RFC 6052, and RFC 4291 before it.
_TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))
# Whose IPv4 address a network keeps to itself. Source: RFC 8215.
_TRANSLATED_HERE = ipaddress.ip_network("64:ff9b:1::/48")
_PORTS = frozenset({80, 443})


def fetch_article(url: str) -> str:
    """Return the text of the article at an address.

    Raises:
        DataError: the address is no public one, does not answer, or holds no page.
    """
    import httpx

    try:
        with httpx.Client(transport=_public_transport(), timeout=_TIMEOUT_S, trust_env=False) as client:
            for _ in range(_MOST_REDIRECTS):
                check_address(url)
                with client.stream("GET", url, headers={"Accept": "text/html"}) as response:
                    if response.has_redirect_location:
                        url = urljoin(url, response.headers["location"])
                        continue
                    response.raise_for_status()
                    if "html" not in response.headers.get("content-type", ""):
                        raise DataError("there is no page at that address; paste the article instead")
                    return read_apart(_read(response.iter_bytes()), "page.html")
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise DataError(f"the address cannot be read ({type(error).__name__}); paste the article instead") from error
    raise DataError("the address leads on and on; paste the article instead")


def check_address(url: str) -> None:
    """Raise unless an address is one of the web.

    Raises:
        DataError: it is not.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError as error:
        raise DataError("that is no address of a page; write it as https://…") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or port not in _PORTS or parts.username:
        raise DataError("that is no address of a public page; write it as https://…")


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public network, and to nobody's own."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    # An IPv4 address may come in IPv6's clothes.
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    if found.version == 6 and any(found in network for network in _TRANSLATED):  # noqa: PLR2004 - IPv6
        inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    if found.version == 6 and found in _TRANSLATED_HERE:  # noqa: PLR2004 - IPv6
        return False
    return found.is_global and not found.is_multicast and (inner is None or inner.is_global)


def _read(chunks: Iterable[bytes]) -> bytes:
    raw = bytearray()
    for chunk in chunks:
        raw += chunk
        if len(raw) > MAX_FILE_BYTES:
            raise DataError(f"the page has more than {MAX_FILE_BYTES:,} bytes; paste the article instead")
    return bytes(raw)


def _public_transport() -> Any:
    """Return a transport that connects to public addresses alone.

    The name is resolved here and the connection made to what was checked: a name that means another address the next
    time it is asked for leads nowhere else.
    """
    import socket

    import httpcore
    import httpx

    class _PublicBackend(httpcore.SyncBackend):
        def connect_tcp(self, host: str, port: int, *arguments: Any, **options: Any) -> Any:
            try:
                found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
            except OSError as error:
                raise httpcore.ConnectError(str(error)) from error
            if not found or not all(map(is_public, found)):
                raise DataError("the address is of this machine or of a private network; paste the article instead")
            return super().connect_tcp(min(found), port, *arguments, **options)

    transport = httpx.HTTPTransport(trust_env=False)
    transport._pool._network_backend = _PublicBackend()  # noqa: SLF001 - httpx offers no other way to choose it
    return transport
