"""The edge's HTTP client against engines that are scripted byte by byte, over real sockets."""

from __future__ import annotations

import asyncio
import pathlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from edge import upstream
from edge.upstream import Upstream, UpstreamError
from tests.fakes.certificates import Authority
from tests.fakes.wait import until
from trimtab.model import Route
from trimtab.policy.classify import Fault

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Engine:
    """Counts its connections and keeps the requests."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections = self.ended = 0
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended += 1
            writer.close()


@asynccontextmanager
async def engine(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Engine]:
    served = Engine(script)
    server = await asyncio.start_server(served, "localhost", 0, ssl=tls, family=socket.AF_INET)
    port = server.sockets[0].getsockname()[1]
    served.url = f"http{'s' if tls else ''}://localhost:{port}"
    try:
        yield served
    finally:
        server.close()
        await until(lambda: served.ended == served.connections)


async def request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


async def serve_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await request(reader)
        writer.write(OK)


async def ask(engines: Upstream, url: str, body: bytes = b"{}") -> bytes:
    route = Route("r0", "pool", "node", url, "demo")
    async with engines.post(route, "/v1/completions", [body], {"x-request-id": "1"}) as answer:
        return await answer.read()


async def fault(engines: Upstream, url: str) -> Fault:
    with pytest.raises(UpstreamError) as caught:
        await ask(engines, url)
    return caught.value.failure.fault


async def test_a_request_is_what_was_asked_and_the_next_uses_its_connection() -> None:
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await request(reader))
            writer.write(OK)

    async with engine(script) as served, upstream.connect("secret") as engines:
        for body in (b"{}", b"x" * 3_000_000, b"{}"):
            assert await ask(engines, served.url + "/prefix", body) == b"hello"
        assert served.connections == 1
    host = served.url.removeprefix("http://")
    assert seen[0].decode() == (
        f"POST /prefix/v1/completions HTTP/1.1\r\nhost: {host}\r\n"
        "content-type: application/json\r\nauthorization: Bearer secret\r\n"
        "content-length: 2\r\nx-request-id: 1\r\n\r\n{}"
    )
    assert seen[1].endswith(b"\r\n\r\n" + b"x" * 3_000_000)


async def test_an_idle_connection_is_left_before_the_engine_leaves_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream, "SWEEP_PERIOD_S", 0.01)
    async with engine(serve_ok) as served, upstream.connect("") as engines:
        await ask(engines, served.url)
        engines.sweep()
        await ask(engines, served.url)
        assert served.connections == 1
        monkeypatch.setattr(upstream, "KEEP_ALIVE_S", 0.0)
        await ask(engines, served.url)
        assert served.connections == 2
        engines.sweep(0.0)
        await until(lambda: served.ended == 2)


async def test_a_kept_connection_that_turns_out_closed_is_stale_and_a_new_one_is_cut() -> None:
    async def one_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(OK)
        await request(reader)

    async def half_an_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one_answer(reader, writer)
        writer.write(OK[:9])

    async def none(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await request(reader)

    async with engine(one_answer) as served, upstream.connect("") as engines:
        await ask(engines, served.url)
        assert await fault(engines, served.url) is Fault.STALE
        served.script = half_an_answer
        await ask(engines, served.url)
        assert await fault(engines, served.url) is Fault.CUT
        served.script = none
        assert await fault(engines, served.url) is Fault.CUT


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with upstream.connect("") as engines:
            assert await fault(engines, f"http://127.0.0.1:{port}") is Fault.REFUSED
            assert await fault(engines, f"http://localhost:{port}") is Fault.REFUSED
            assert await fault(engines, "http://no.such.host.invalid:1") is Fault.UNREACHABLE


async def test_a_connection_that_is_not_made_in_time_is_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream, "CONNECT_TIMEOUT_S", 0.05)

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with engine(silent) as served, upstream.connect("") as engines:
        url = served.url.replace("http:", "https:")  # the handshake is never answered
        assert await fault(engines, url) is Fault.UNREACHABLE


async def test_an_https_engine_is_believed_only_with_a_certificate_that_others_vouch_for(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority("others")
    files = authority.issue(tmp_path / "engine", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    async with engine(serve_ok, context) as served:
        async with upstream.connect("") as engines:
            assert await fault(engines, served.url) is Fault.UNREACHABLE
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.write(tmp_path / "ca.pem")))
        async with upstream.connect("") as engines:
            for _ in range(2):
                assert await ask(engines, served.url, b"x" * 300_000) == b"hello"


async def test_the_engine_notices_who_leaves_before_the_end() -> None:
    gone = asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
        try:
            await reader.read()
        finally:
            gone.set()

    async with engine(stream) as served, upstream.connect("") as engines:
        route = Route("r0", "pool", "node", served.url, "demo")
        async with engines.post(route, "/v1/completions", [b"{}"], {}) as answer:
            assert await answer.some() == b"x"
        async with asyncio.timeout(10.0):
            await gone.wait()


async def test_an_answer_without_end_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "ANSWER_LIMIT_BYTES", 1_000_000)

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    async with engine(endless) as served, upstream.connect("") as engines:
        assert await fault(engines, served.url) is Fault.MALFORMED


@pytest.mark.parametrize(
    ("path", "header"), [("/a b", "1"), ("/a\r\nx: y", "1"), ("", "1"), ("/", "1\r\nx: y")]
)
async def test_nothing_is_smuggled_in_a_path_or_a_header(path: str, header: str) -> None:
    async with upstream.connect("") as engines:
        route = Route("r0", "pool", "node", "http://127.0.0.1:1", "demo")
        with pytest.raises(ValueError, match=r"path|header"):
            engines.post(route, path, [b""], {"x-request-id": header})
