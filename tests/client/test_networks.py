"""Proxies and HTTP/2 below the cache, with real servers."""

import asyncio
import base64
import contextlib
import http.client
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import hypercorn.asyncio
import hypercorn.config
import pytest

from tests.client.stack import Stack
from tests.client.upstream import Reply, Upstream
from tests.managers import WITHIN
from tests.servers import Certificates

FRESH = [("cache-control", "max-age=60")]


class Proxy:
    """A forward proxy, and one that makes tunnels.

    Attributes:
        asked: target and fields of each request.
        refusals: statuses by which the next tunnels are refused.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.refusals: list[int] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                proxy.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                self.close_connection = True
                if proxy.refusals:
                    self.send_error(proxy.refusals.pop())
                    return
                host, _, port = self.path.partition(":")
                with socket.create_connection((host, int(port)), WITHIN) as origin:
                    self.send_response(200)
                    self.end_headers()
                    other = {self.connection: origin, origin: self.connection}
                    while ready := select.select(list(other), [], [], WITHIN)[0]:
                        for end in ready:
                            data = end.recv(65536)
                            if not data:
                                return
                            other[end].sendall(data)

            def do_GET(self) -> None:
                proxy.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                target = urlsplit(self.path)
                connection = http.client.HTTPConnection(target.netloc, timeout=WITHIN)
                with contextlib.closing(connection):
                    connection.request("GET", target.path, headers={"host": target.netloc, "connection": "close"})
                    response = connection.getresponse()
                    body = response.read()
                    self.send_response(response.status)
                    for name in ("cache-control", "content-type"):
                        if response.headers[name]:
                            self.send_header(name, response.headers[name])
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.authority = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.authority}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Proxy"]:
        """The proxy while it runs."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(WITHIN)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy that runs."""
    with Proxy().running() as running:
        yield running


@pytest.mark.parametrize("way", ["transport", "mounted", "wrapped", "environment"])
async def test_what_comes_through_a_proxy_is_cached(
    stack: Stack, upstream: Upstream, proxy: Proxy, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.replies(Reply(200, FRESH, [b"page"], length=True))
    address = f"http://ada:secret@{proxy.authority}"
    if way == "transport":
        client = stack.client(stack.transport(stack.network(proxy=address)))
    elif way == "mounted":
        mounts = {"http://127.0.0.1": stack.transport(stack.network(proxy=address))}
        client = stack.client(stack.mock(lambda request: None), {"mounts": mounts})
    else:
        settings: dict[str, Any] = {"proxy": address}
        if way == "environment":
            settings = {"trust_env": True}
            for name in ("ALL_PROXY", "HTTPS_PROXY", "NO_PROXY", "all_proxy", "https_proxy", "no_proxy", "http_proxy"):
                monkeypatch.delenv(name, raising=False)
            monkeypatch.setenv("HTTP_PROXY", address)
        client = stack.keep(stack.maker(verify=False, **settings))
        stack.package.wrap(client, cache=stack.manager)
    for hit in (False, True, True):
        answer = await stack.get(upstream.url, client=client)
        assert (answer.body, answer.is_hit) == (b"page", hit)
    ((target, fields),) = proxy.asked
    assert target == upstream.url
    assert fields["proxy-authorization"] == "Basic " + base64.b64encode(b"ada:secret").decode()
    assert upstream.calls == 1


async def test_the_environment_is_left_alone_where_that_is_wanted(
    stack: Stack, upstream: Upstream, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.replies(Reply(200, FRESH, [b"page"], length=True))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    client = stack.keep(stack.maker(verify=False, trust_env=False))
    stack.package.wrap(client, cache=stack.manager)
    for hit in (False, True):
        assert (await stack.get(upstream.url, client=client)).is_hit is hit
    assert proxy.asked == []


class Secure:
    """A server of HTTPS.

    Attributes:
        url: of the server.
        asked: fields of each request.
    """

    def __init__(self, certificates: Certificates) -> None:
        self.asked: list[dict[str, str]] = []
        secure = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                secure.asked.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(200)
                for name, value in (*FRESH, ("content-length", "4")):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"page")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.server, certificates.key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.authority = f"127.0.0.1:{self._server.server_port}"
        self.url = f"https://{self.authority}/a"

    @contextlib.contextmanager
    def running(self) -> Iterator["Secure"]:
        """The server while it runs."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(WITHIN)


@pytest.mark.parametrize("way", ["transport", "mounted", "wrapped", "environment"])
async def test_what_comes_through_a_tunnel_is_cached(
    stack: Stack, proxy: Proxy, certificates: Certificates, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An https origin behind a proxy, which sees nothing but CONNECT, and a hit does not even ask for that."""
    trust = ssl.create_default_context(cafile=certificates.authority)
    address = f"http://ada:secret@{proxy.authority}"
    with Secure(certificates).running() as origin:
        if way == "transport":
            client = stack.client(stack.transport(stack.network(proxy=address, verify=trust)))
        elif way == "mounted":
            mounts = {"https://": stack.transport(stack.network(proxy=address, verify=trust))}
            client = stack.client(stack.mock(lambda request: None), {"mounts": mounts})
        else:
            settings: dict[str, Any] = {"proxy": address}
            if way == "environment":
                settings = {"trust_env": True}
                for name in ("ALL_PROXY", "HTTP_PROXY", "NO_PROXY", "all_proxy", "https_proxy", "no_proxy"):
                    monkeypatch.delenv(name, raising=False)
                monkeypatch.setenv("HTTPS_PROXY", address)
            client = stack.keep(stack.maker(verify=trust, **settings))
            stack.package.wrap(client, cache=stack.manager)
        for hit in (False, True, True):
            answer = await stack.get(origin.url, client=client)
            assert (answer.body, answer.is_hit) == (b"page", hit)
        other = await stack.get(origin.url + "?other", client=client)
        assert (other.body, other.is_hit) == (b"page", False)
        ((target, fields),) = proxy.asked
        assert target == origin.authority
        assert fields["proxy-authorization"] == "Basic " + base64.b64encode(b"ada:secret").decode()
        assert len(origin.asked) == 2
        assert not any("proxy-authorization" in asked for asked in origin.asked)
        await stack.aclose()


@pytest.mark.parametrize("status", [407, 502])
async def test_a_tunnel_that_is_refused_is_the_librarys_error_and_is_not_stored(
    stack: Stack, proxy: Proxy, certificates: Certificates, status: int
) -> None:
    trust = ssl.create_default_context(cafile=certificates.authority)
    proxy.refusals.append(status)
    with Secure(certificates).running() as origin:
        client = stack.client(stack.transport(stack.network(proxy=proxy.url, verify=trust)))
        with pytest.raises(stack.library.ProxyError):
            await stack.get(origin.url, client=client)
        for hit in (False, True):
            answer = await stack.get(origin.url, client=client)
            assert (answer.body, answer.is_hit) == (b"page", hit)
        assert len(origin.asked) == 1
        await stack.aclose()


class Http2:
    """A server of HTTP/2 with prior knowledge.

    Attributes:
        url: of the server.
        asked: version and path of each request.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass  # hypercorn fails on what is still to come of a request that was answered
        self.asked.append((scope["http_version"], scope["path"]))
        fields = [(b"cache-control", b"max-age=60"), (b"etag", b'"1"'), (b"content-length", b"8")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"over", "more_body": True})
        await send({"type": "http.response.body", "body": b"http", "more_body": False})

    @contextlib.contextmanager
    def running(self) -> Iterator["Http2"]:
        """The server while it runs."""
        config = hypercorn.config.Config()
        config.bind = [f"fd://{self._socket.detach()}"]
        config.accesslog = config.errorlog = None
        config.graceful_timeout = 1

        def serve() -> None:
            serving = hypercorn.asyncio.serve(self._app, config, shutdown_trigger=self._stop.wait)
            try:
                self._loop.run_until_complete(serving)
            finally:
                self._loop.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(WITHIN)


@pytest.fixture
def http2() -> Iterator[Http2]:
    """A server that runs."""
    with Http2().running() as running:
        yield running


async def test_what_comes_over_http2_is_cached(stack: Stack, http2: Http2) -> None:
    client = stack.client(stack.transport(stack.network(http1=False, http2=True)))
    for hit in (False, True, True):
        opened = await stack.open("GET", f"{http2.url}/a", client=client)
        assert b"".join(await opened.rest()) == b"overhttp"
        response = opened.response
        assert ("; hit" in response.headers["cache-status"]) is hit
        assert response.http_version == ("HTTP/1.1" if hit else "HTTP/2")
        assert response.headers["content-length"] == "8"
        await opened.close()
    head = await stack.send("HEAD", f"{http2.url}/a", client=client)
    assert (head.is_hit, head.body) == (True, b"")
    part = await stack.get(f"{http2.url}/a", client=client, headers={"range": "bytes=2-4"})
    assert (part.status, part.body) == (206, b"erh")
    posted = await stack.send("POST", f"{http2.url}/a", client=client, content=b"x")
    assert (posted.body, posted.cache_status) == (b"overhttp", "")
    assert http2.asked == [("2", "/a"), ("2", "/a")]


async def test_a_client_of_http2_that_is_there_already_is_wrapped(stack: Stack, http2: Http2) -> None:
    client = stack.keep(stack.maker(verify=False, http1=False, http2=True))
    stack.package.wrap(client, cache=stack.manager)
    answers = await asyncio.gather(*(stack.get(f"{http2.url}/{n % 3}", client=client) for n in range(9)))
    assert [answer.body for answer in answers] == [b"overhttp"] * 9
    assert sorted(http2.asked) == [("2", "/0"), ("2", "/1"), ("2", "/2")]
