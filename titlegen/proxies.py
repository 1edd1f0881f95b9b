"""Proxy variables in the forms that every HTTP library understands, and which way a request goes.

Each library reads HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY by rules of its own, many while they are imported or
build a client, and a value that one of them does not know breaks requests that need no proxy at all. So the variables
are rewritten once, before any library is imported. A proxy that none could use is replaced by a name that can never be
reached: what is meant to go through a proxy must not go around it because of a misspelling.
"""

import ipaddress
import os
import re
import socket
import unicodedata
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib.util import find_spec
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from titlegen.errors import ConfigError

_SCHEMES = ("http", "https", "all")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# RFC 2606: no name below .invalid exists.
_UNUSABLE = ".proxy.invalid"
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_CONNECT_TIMEOUT_S = 5.0
# What people and programs write for no proxy; the first is a PAC file's.
_DIRECT = frozenset(
    (
        *("", "direct", "direct://", "none", "<none>", "no", "off", "false", "0", "disable", "disabled", "null", "nil"),
        *("undefined", "-", "noproxy", "no_proxy"),
    )
)
# As the function of a PAC file answers: PROXY 10.0.0.1:3128; DIRECT
_PAC_ANSWER = re.compile(r"(PROXY|HTTPS?|SOCKS5?) +([^\s;,]+) *(?:;.*)?", re.IGNORECASE)
_PAC_SCHEMES = {"proxy": "http", "socks": "socks5"}

# As Windows and macOS write ranges of addresses.
_PART_OF_ADDRESS = re.compile(r"(\d{1,3}(?:\.\d{1,3}){0,2})(?:\.|(?:\.\*){1,3})")
# What a mistaken order of host, port, user and password, or another program's address with its key inside, looks like.
_SECRET = re.compile(r"(?:[^:@\[\]/;,]+:){2,}[^:@;,]*/?|(?=.*[=+/\d])[A-Za-z0-9+/_-]{12,}=*(?:#.*)?")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class _Proxy(NamedTuple):
    """A proxy as the user gave it, and the value that stands in the environment for it."""

    variable: str
    given: str
    used: str


# What the environment no longer says after it was rewritten.
_given: dict[str, _Proxy] = {}
# Ranges of NO_PROXY, of which most libraries read the first address alone, or on which they fail.
_networks: set[Network] = set()
# Entries that no library understands: names with an asterisk inside, and Windows' <local> for names without a dot.
_remembered: set[str] = set()


def normalise_proxies() -> None:
    """Rewrite the proxy variables so that no library fails on them; loopback is never asked for through a proxy."""
    found = {scheme: _pop(f"{scheme}_proxy") for scheme in _SCHEMES}
    direct = {name for name, (_, value) in found.items() if value.strip() and _unquoted(value).casefold() in _DIRECT}
    if direct - {"all"} and "all" not in direct:
        # A library would use ALL_PROXY for addresses that need no proxy.
        of_all = found.pop("all")
        found |= {scheme: of_all for scheme, (_, value) in found.items() if not value.strip()}
    for scheme, (variable, value) in found.items():
        if not value.strip() or scheme in direct:
            continue
        try:
            used = _normalised(value)
        except ValueError:
            used = f"http://{scheme}{_UNUSABLE}:9"
        if scheme not in _given or _given[scheme].used != value:
            _given[scheme] = _Proxy(variable, value, used)
        _put(f"{scheme}_proxy", used)
    hosts = dict.fromkeys([*_exempt_hosts(_pop("no_proxy")[1]), *_LOOPBACK])
    # urllib knows the asterisk only where it stands alone.
    _put("no_proxy", "*" if "*" in hosts else ",".join(hosts))


def is_loopback(url: str) -> bool:
    """Return whether an address is on this machine."""
    name = _host_and_port(url)[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and (getattr(address, "ipv4_mapped", None) or address).is_loopback


def check_proxy(url: str) -> None:
    """Raise unless the proxy that stands between us and an address can be used; a direct way is not looked at.

    Raises:
        ConfigError: naming the variable, its value and what to do.
    """
    proxy = _proxy_of(url)
    if proxy is None:
        return
    remedy = f"correct or unset {proxy.variable}, or add {_host_and_port(url)[0]} to NO_PROXY"
    try:
        parts = urlsplit(_normalised(proxy.given))
    except ValueError as error:
        raise ConfigError(
            f"{proxy.variable} = {_without_password(proxy.given)!r} cannot be used as a proxy: {error}; {remedy}"
        ) from None
    try:
        address = (parts.hostname or "", parts.port or _PORTS[parts.scheme])
        socket.create_connection(address, timeout=_CONNECT_TIMEOUT_S).close()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{proxy.variable} = {_without_password(proxy.given)!r}: the proxy does not answer ({reason}), and {url} "
            f"is asked for through it; start it, or {remedy}"
        ) from None


def proxy_hint(url: str) -> str:
    """Return the words that a failed request's message needs when it went through a proxy, else nothing."""
    proxy = _proxy_of(url)
    return f" through the proxy of {proxy.variable}" if proxy else ""


def _proxy_of(url: str) -> _Proxy | None:
    if _is_direct(url):
        return None
    for scheme in (urlsplit(url).scheme, "all"):
        name = f"{scheme}_proxy"
        if used := os.environ.get(name, os.environ.get(name.upper(), "")).strip():
            found = _given.get(scheme)
            return found if found and found.used == used else _Proxy(name.upper(), used, used)
    return None


def _is_direct(url: str) -> bool:
    if is_loopback(url):
        return True
    name, port = _host_and_port(url)
    exempt = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    for entry in filter(None, exempt.split(",")):
        host, at = (entry, None) if _address(entry) else _host_and_port(f"//{entry}")
        if host == "*" or (at in {None, port} and (name == host or name.endswith(f".{host.lstrip('.')}"))):
            break
    else:
        address = _address(name)
        is_near = address is None and "." not in name and "<local>" in _remembered
        if not (is_near or any(fnmatchcase(name, pattern) for pattern in _remembered - {"*"})) and (
            address is None or not any(address in network for network in _networks)
        ):
            return False
    # Not every library knows ranges, or takes a missing port for the usual one.
    if name not in exempt.split(",") and exempt != "*":
        _put("no_proxy", f"{exempt},{name}")
    return True


def _normalised(value: str) -> str:
    """Return a proxy's address in the form that every library takes.

    Raises:
        ValueError: none could use it; says why.
    """
    text = _unquoted(unicodedata.normalize("NFKC", value))
    if answer := _PAC_ANSWER.fullmatch(text):
        scheme = answer[1].lower()
        text = f"{_PAC_SCHEMES.get(scheme, scheme)}://{answer[2]}"
    elif text.partition("?")[0].lower().endswith(".pac") or text.lower().startswith("pac+"):
        raise ValueError("browsers alone read a PAC file; give the proxy that it names")
    parts = urlsplit(text if "://" in text else f"http://{text}")
    # GNOME writes SOCKS proxies in this way.
    scheme = {"socks": "socks5"}.get(parts.scheme, parts.scheme)
    if scheme not in _PORTS:
        raise ValueError(f"{parts.scheme!r} is none of http, https, socks5 and socks5h")
    if scheme.startswith("socks") and find_spec("socksio") is None:
        raise ValueError("SOCKS needs a package; run: python -m pip install socksio")
    if text.count("://") > 1 or parts.path.startswith("//") or re.search(r"[,;]", parts.netloc.rpartition("@")[2]):
        raise ValueError("it is more than one address; write it as http://HOST:PORT")
    host, port = parts.hostname or "", _port(parts)
    if _address(host) is None and (not _HOST.fullmatch(host) or host.isdecimal()):
        raise ValueError("it names no host; write it as http://HOST:PORT")
    if host.endswith(_UNUSABLE):
        raise ValueError("it could not be read")
    user = ":".join(quote(unquote(part), safe="") for part in (parts.username, parts.password) if part is not None)
    return f"{scheme}://{user}{'@' if user else ''}{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"


def _unquoted(value: str) -> str:
    """Return a value without the quotation marks that Docker's --env-file keeps."""
    text = value.strip().strip("\ufeff\u200b").strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _port(parts: SplitResult) -> int | None:
    """Return the port of a proxy.

    Raises:
        ValueError: it is none; the text is not quoted, for it may be half a password.
    """
    try:
        return parts.port
    except ValueError:
        raise ValueError(
            "its port is no number up to 65535; write it as http://HOST:PORT, and / # ? and : of a password as %2F %23 "
            "%3F and %3A"
        ) from None


def _exempt_hosts(text: str) -> Iterator[str]:
    """Yield the entries of a NO_PROXY that every library understands; what else has a meaning is remembered."""
    for given in filter(None, re.split(r"[\s,;|、]+", unicodedata.normalize("NFKC", _unquoted(text)))):
        entry = (given.partition("://")[2] or given).strip("\"'")
        if entry in {"*", "<local>"}:
            _remembered.add(entry)
            yield from ["*"] if entry == "*" else []
            continue
        networks = _networks_of(entry)
        _networks.update(networks)
        # Of the sixth version libraries know addresses alone.
        yield from (str(network) for network in networks if network.version == 4 and network.num_addresses > 1)  # noqa: PLR2004
        yield from (str(network[0]) for network in networks if network.num_addresses == 1)
        if networks:
            continue
        host, port = _host_and_port(f"//{entry.removesuffix(':*')}")
        host = host or entry.strip("[]").lower()
        host = host.removeprefix("*").strip(".")
        if "*" in host:
            _remembered.add(host)
        elif _address(host) is not None and ":" in host:
            yield host
        elif _HOST.fullmatch(host):
            yield f"{host}:{port}" if port else host


def _networks_of(entry: str) -> list[Network]:
    """Return the addresses that an entry stands for: one, a range with a mask, 192.168.*, 192.168. or from-to."""
    entry = entry.strip("[]")
    if match := _PART_OF_ADDRESS.fullmatch(entry):
        parts = match[1].split(".")
        entry = f"{'.'.join([*parts, *['0'] * (4 - len(parts))])}/{8 * len(parts)}"
    try:
        if "-" in entry:
            first, last = (ipaddress.IPv4Address(part) for part in entry.split("-"))
            return list(ipaddress.summarize_address_range(first, last))
        return [ipaddress.ip_network(entry, strict=False)]
    except ValueError:
        return []


def _host_and_port(url: str) -> tuple[str, int | None]:
    """Return an address' host in small letters and in ASCII, and its port; nothing for what cannot be read."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
        host = host if host.isascii() else host.encode("idna").decode()
        return host, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return "", None


def _address(name: str) -> Address | None:
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None


def _without_password(value: str) -> str:
    # A password may hold a slash or an @.
    text = re.sub(r"^(\w+://)?.*@", r"\1***@", value.strip(), flags=re.DOTALL)
    scheme, mark, rest = text.rpartition("://")
    return f"{scheme}{mark}***" if _SECRET.fullmatch(rest) and _address(rest) is None else text


def _pop(name: str) -> tuple[str, str]:
    """Take every spelling of a variable out of the environment; the one in small letters counts, also when empty."""
    spellings = sorted((key for key in os.environ if key.lower() == name), key=lambda key: key != name)
    values = [(key, os.environ.pop(key)) for key in spellings]
    return values[0] if values else (name.upper(), "")


def _put(name: str, value: str) -> None:
    os.environ[name] = os.environ[name.upper()] = value
