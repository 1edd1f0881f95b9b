import os
import urllib.request
from collections.abc import Iterator

import httpx
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from titlegen import proxies
from titlegen.daemon import free_port
from titlegen.errors import ConfigError
from titlegen.proxies import check_proxy, is_loopback, normalise_proxies, proxy_hint

HUB = "https://huggingface.co"
LOOPBACK = ["http://127.0.0.1:11434/api/tags", "http://localhost:8089", "http://[::1]:11434"]
# One of each way in which people write them.
WRITTEN = [
    "socks5h://127.0.0.1:7890",
    "socks://127.0.0.1:7890/",
    "socks4://a:1",
    "direct://",
    "127.0.0.1:7890",
    "http://",
    "garbage:::",
    "http://[::1",
    "[::1]:80",
    "http://a:99999",
    "http://a:b",
    "//a",
    "http:/a",
    "HTTP://A:1",
    "user:p@ss@a:1",
    "http://編輯:密碼@a:1",
    "https://代理:1",
    "none",
    "DIRECT",
    "PROXY a:1; DIRECT",
    "http://127.0.0.1:7890/pac?x#y",
]
EXEMPT = [
    *["*", "[::1]", "::1", "[::1]:80", "10.0.0.0/8", "fd00::/8", "[fd00::]/8", "10.0.0.0/99", "fe80::1%eth0"],
    *[
        "*.a.b",
        ".a.b",
        "a.b:80",
        "a:99999",
        "localhost:11434",
        "a;b",
        "192.168.*",
        "10.",
        "1.1.1.1-2.2.2.2",
        "3.3.3.3-1",
        "<local>",
        "a.*",
        "內網.tw",
        "http://a",
        "http://[",
        "A[",
        "*.",
        ".",
    ],
]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give every test an environment without proxies, and the next one the old environment."""
    before = dict(os.environ)
    monkeypatch.setattr(proxies, "_given", {})
    monkeypatch.setattr(proxies, "_networks", set())
    monkeypatch.setattr(proxies, "_remembered", set())
    clear()
    yield
    os.environ.clear()
    os.environ.update(before)


def clear() -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]


def texts(written: list[str]) -> st.SearchStrategy[str]:
    # What a variable can hold.
    letters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    return st.one_of(st.sampled_from(written), st.text(letters, max_size=20))


@pytest.mark.fault
@settings(max_examples=200)
@given(
    st.dictionaries(st.sampled_from(["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "All_Proxy"]), texts(WRITTEN)),
    st.lists(texts(EXEMPT), max_size=4).map(",".join),
)
def test_no_library_fails_on_any_value_and_loopback_stays_direct(variables: dict[str, str], exempt: str) -> None:
    clear()
    os.environ.update(variables | {"NO_PROXY": exempt})
    normalise_proxies()
    settled = dict(os.environ)
    normalise_proxies()
    assert settled == dict(os.environ), "a daemon settles again what its parent has settled"
    with httpx.Client(verify=False) as client, requests.Session() as session:  # noqa: S501 - certificates take time
        for url in LOOPBACK:
            assert client._transport_for_url(httpx.URL(url)) is client._transport
            assert not session.merge_environment_settings(url, {}, None, None, None)["proxies"]
            check_proxy(url)
        client._transport_for_url(httpx.URL(HUB))
    assert urllib.request.proxy_bypass("127.0.0.1:11434")
    assert "\n" not in proxy_hint(HUB)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("ALL_PROXY", "socks4://127.0.0.1:1", "'socks4' is none of http, https, socks5 and socks5h"),
        ("all_proxy", "tcp://a:1", "'tcp' is none of"),
        ("HTTPS_PROXY", "auto://", "'auto' is none of"),
        ("HTTPS_PROXY", "http://wpad/proxy.pac", "browsers alone read a PAC file"),
        ("HTTPS_PROXY", "pac+http://wpad/wpad.dat", "browsers alone read a PAC file"),
        ("HTTPS_PROXY", "http://http://a:1", "more than one address"),
        ("HTTPS_PROXY", "https//a:1", "more than one address"),
        ("HTTPS_PROXY", "http://a:1,http://b:1", "more than one address"),
        ("HTTPS_PROXY", "a,8080", "more than one address"),
        ("HTTPS_PROXY", "7890", "it names no host"),
        ("HTTPS_PROXY", "${PROXY}", "it names no host"),
        ("HTTPS_PROXY", "http://", "it names no host"),
        ("https_proxy", "garbage:::", "its port is no number up to 65535"),
        ("HTTPS_PROXY", "http://a:99999", "its port is no number up to 65535"),
        ("HTTPS_PROXY", "http://[::1", "Invalid IPv6"),
    ],
)
def test_what_cannot_be_used_is_named_and_nothing_goes_around_it(variable: str, value: str, reason: str) -> None:
    os.environ[variable] = value
    normalise_proxies()
    with pytest.raises(ConfigError) as raised:
        check_proxy(HUB)
    line = str(raised.value)
    assert line.startswith(f"{variable} = {value!r} cannot be used as a proxy: ")
    assert reason in line
    assert f"correct or unset {variable}, or add huggingface.co to NO_PROXY" in line
    with httpx.Client() as client, pytest.raises(httpx.ConnectError):
        client.get(HUB)


@pytest.mark.fault
@pytest.mark.parametrize("scheme", ["http://", "", "socks5h://", "socks://", "https://user:s3cret@"])
def test_a_proxy_that_does_not_answer_is_named_without_its_password(scheme: str) -> None:
    os.environ["ALL_PROXY"] = f"{scheme}127.0.0.1:{free_port()}"
    normalise_proxies()
    with pytest.raises(ConfigError, match=r"ALL_PROXY = '.*127.0.0.1:\d+': the proxy does not answer \(Connection ref"):
        check_proxy(HUB)
    with pytest.raises(ConfigError) as raised:
        check_proxy(HUB)
    assert "s3cret" not in str(raised.value)
    assert proxy_hint(HUB) == " through the proxy of ALL_PROXY"


@pytest.mark.fault
@pytest.mark.parametrize("password", ["s3cret#x", "s3cret/x", "s3cret@x", "s3cret?x", "s3:cret/@x"])
def test_a_password_that_breaks_the_address_is_not_shown(password: str) -> None:
    os.environ["HTTPS_PROXY"] = f"http://user:{password}@127.0.0.1:{free_port()}"
    normalise_proxies()
    with pytest.raises(ConfigError) as raised:
        check_proxy(HUB)
    assert "s3" not in str(raised.value)
    assert "HTTPS_PROXY = 'http://***@127.0.0.1:" in str(raised.value)


@pytest.mark.fault
@pytest.mark.parametrize(
    "value",
    [
        # Host, port, user and password in the order of a seller's list, and addresses that are keys themselves.
        *("user:s3cret:127.0.0.1:9", "127.0.0.1:9:user:s3cret", "http://127.0.0.1:9:user:s3cret"),
        *("ss://YWVzLTI1Ni1nY206czNjcmV0QGhvc3Q6OA==", "vmess://eyJwcyI6InMzY3JldCJ9", "trojan://s3cret@a:443#x"),
    ],
)
def test_a_password_in_the_wrong_place_is_not_shown(value: str) -> None:
    os.environ["HTTPS_PROXY"] = value
    normalise_proxies()
    with pytest.raises(ConfigError, match=r"HTTPS_PROXY = '.*\*\*\*.*' cannot be used as a proxy") as raised:
        check_proxy(HUB)
    assert not {part for part in ("s3cret", value.partition("://")[2]) if part and part in str(raised.value)}


@pytest.mark.fault
@pytest.mark.parametrize(
    "value", ["${PROXY}", "vmess://abc", "http=a:1;https=b:2", "htp://a:1", "socks4a://a.b.c:1080"]
)
def test_what_is_no_password_is_shown(value: str) -> None:
    os.environ["HTTPS_PROXY"] = value
    normalise_proxies()
    with pytest.raises(ConfigError) as raised:
        check_proxy(HUB)
    assert repr(value) in str(raised.value)


@pytest.mark.fault
@pytest.mark.parametrize(
    "value", ["DIRECT", "direct", "direct://", "none", "NONE", "off", "no", "false", "0", "-", "null", '"DIRECT"', '""']
)
def test_no_proxy_at_all_in_the_words_of_people_and_programs(value: str) -> None:
    os.environ |= {"HTTPS_PROXY": value, "HTTP_PROXY": "http://a:1"}
    normalise_proxies()
    normalise_proxies()
    check_proxy(HUB)
    assert proxy_hint(HUB) == ""
    assert proxy_hint("http://example.com") == " through the proxy of HTTP_PROXY"
    assert not {"HTTPS_PROXY", "https_proxy"} & os.environ.keys()


@pytest.mark.fault
def test_what_goes_direct_does_not_take_the_proxy_of_all_others() -> None:
    os.environ |= {"HTTPS_PROXY": "DIRECT", "ALL_PROXY": "http://a:1"}
    normalise_proxies()
    assert proxy_hint(HUB) == ""
    assert proxy_hint("http://example.com") == " through the proxy of ALL_PROXY"
    with httpx.Client() as client:
        assert client._transport_for_url(httpx.URL(HUB)) is client._transport
        assert client._transport_for_url(httpx.URL("http://example.com")) is not client._transport


@pytest.mark.fault
@pytest.mark.parametrize(
    ("value", "used"),
    [
        ("PROXY 10.0.0.1:3128", "http://10.0.0.1:3128"),
        ("PROXY 10.0.0.1:3128; DIRECT", "http://10.0.0.1:3128"),
        ("SOCKS5 127.0.0.1:1080", "socks5://127.0.0.1:1080"),
        ("SOCKS 127.0.0.1:1080; SOCKS5 b:1", "socks5://127.0.0.1:1080"),
        ("HTTPS proxy.example:443", "https://proxy.example:443"),
        ('"http://a:80"', "http://a:80"),
        ("'a:80'", "http://a:80"),
        ("http：//ａ：８０", "http://a:80"),
        ("\ufeffhttp://a:80", "http://a:80"),
    ],
)
def test_a_proxy_is_understood_as_other_programs_write_it(value: str, used: str) -> None:
    os.environ["https_proxy"] = value
    normalise_proxies()
    assert (os.environ["https_proxy"], os.environ["HTTPS_PROXY"]) == (used, used)


@pytest.mark.fault
def test_socks_without_its_package_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "find_spec", lambda _: None)
    os.environ["ALL_PROXY"] = "socks5://127.0.0.1:7890"
    normalise_proxies()
    with pytest.raises(ConfigError, match="pip install socksio"):
        check_proxy(HUB)


def test_the_spelling_in_small_letters_counts_also_when_it_is_empty() -> None:
    os.environ |= {"HTTPS_PROXY": "http://a:1", "https_proxy": ""}
    normalise_proxies()
    assert proxy_hint(HUB) == ""
    assert "HTTPS_PROXY" not in os.environ


@pytest.mark.parametrize(
    ("exempt", "url", "direct"),
    [
        ("*", HUB, True),
        ("a, *", HUB, True),
        ("huggingface.co", HUB, True),
        (".huggingface.co", HUB, True),
        ("*.huggingface.co", "https://cdn.huggingface.co", True),
        ("huggingface.co:443", HUB, True),
        ("huggingface.co:80", HUB, False),
        ("face.co", HUB, False),
        ("10.0.0.0/8", "http://10.1.2.3:11434", True),
        ("10.0.0.0/8", "http://11.1.2.3:11434", False),
        ("fd00::/8", "http://[fd00::5]:11434", True),
        ("[fd00::5]", "http://[fd00::5]:11434", True),
        ("內網.tw", "http://ollama.內網.tw:11434", True),
        ("a b", "http://b:1", True),
        # Ranges of addresses as Windows, macOS and firewalls write them.
        ("192.168.*", "http://192.168.3.4:11434", True),
        ("192.168.*.*", "http://192.168.3.4:11434", True),
        ("10.*", "http://11.1.1.1", False),
        ("192.168.1.", "http://192.168.1.9", True),
        ("192.168.1.", "http://192.168.2.9", False),
        ("192.168.1.0/255.255.255.0", "http://192.168.1.9", True),
        ("192.168.1.1-192.168.1.20", "http://192.168.1.9:1", True),
        ("192.168.1.1-192.168.1.20", "http://192.168.1.21:1", False),
        ("0.0.0.0/0", "http://8.8.8.8", True),
        ("[fd00::1]:11434", "http://[fd00::1]:11434", True),
        ("10.0.0.5:1", "http://10.0.0.5:11434", False),
        # Names without a dot, asterisks inside, any port, quotation marks, and marks of other languages between.
        ("<local>", "http://ollama:11434", True),
        ("<local>", "http://ollama.corp:11434", False),
        ("<local>;*.corp.tw", "http://a.corp.tw", True),
        ("corp.*", "http://corp.tw", True),
        ("corp.*", "http://corps.tw", False),
        ("*corp.tw", "http://a.corp.tw", True),
        ("corp.tw:*", "http://corp.tw:8080", True),
        (".corp.tw:8080", "http://a.corp.tw:80", False),
        ("corp.tw|b", "http://b", True),
        ("corp.tw、b", "http://b", True),
        ("，corp.tw，b", "http://corp.tw", True),
        ('"corp.tw,b"', "http://b", True),
        ("'corp.tw'", "http://corp.tw", True),
        ("[corp.tw]", "http://corp.tw", True),
        ("ＣＯＲＰ.ＴＷ", "http://corp.tw", True),
        ("https://corp.tw/path", "https://corp.tw", True),
        ("corp.tw\nb", "http://b", True),
        ("none", "http://x", False),
        ("", HUB, False),
    ],
)
def test_no_proxy_means_what_people_write_into_it(exempt: str, url: str, direct: bool) -> None:
    os.environ |= {"ALL_PROXY": f"http://127.0.0.1:{free_port()}", "no_proxy": exempt}
    normalise_proxies()
    assert (proxy_hint(url) == "") == direct
    with httpx.Client() as client:
        assert (client._transport_for_url(httpx.URL(url)) is client._transport) == direct, os.environ["no_proxy"]


def test_loopback_is_known_in_every_spelling() -> None:
    for name in ("127.0.0.1", "127.5.6.7", "localhost", "LOCALHOST", "localhost.", "a.localhost", "[::1]"):
        assert is_loopback(f"http://{name}:1"), name
    assert is_loopback("http://[::ffff:127.0.0.1]:1")
    for name in ("10.0.0.1", "localhost.example.com", "[::2]", "[", ""):
        assert not is_loopback(f"http://{name}:1"), name
