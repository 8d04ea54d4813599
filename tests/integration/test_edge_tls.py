"""The edge's own listener over TLS: real handshakes, a renewed certificate, unusable files."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import pathlib
import ssl

import aiohttp
import openai
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.fakes.edge import KEY, MODEL, running_edge
from tests.fakes.engines import sim_engine
from tests.fakes.wait import until
from trimtab.runtime.listener_tls import ListenerTls
from trimtab.runtime.service import ConfigError


class Files:
    """A self-signed certificate and its key in a directory."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.cert, self.key = directory / "edge.crt", directory / "edge.key"
        self.write("first")

    def write(self, name: str) -> None:
        """Put another pair in their place, as certbot does: each file at once."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        cert = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self._replace(self.key, pem)
        self._replace(self.cert, cert.public_bytes(serialization.Encoding.PEM))

    def _replace(self, path: pathlib.Path, content: bytes) -> None:
        new = path.with_suffix(".new")
        new.write_bytes(content)
        new.chmod(0o600)
        os.replace(new, path)


@pytest.fixture
def files(tmp_path: pathlib.Path) -> Files:
    return Files(tmp_path)


def trusting(path: pathlib.Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(path))


async def served_name(url: str) -> str:
    """Whose certificate a new connection is shown."""
    host, port = url.removeprefix("https://").split(":")
    text = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
    names = x509.load_pem_x509_certificate(text.encode()).subject
    return str(names.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


async def test_the_openai_client_with_its_own_ca(files: Files) -> None:
    tls = ListenerTls(files.cert, files.key)
    async with sim_engine() as engine, running_edge([engine.url], tls=tls) as edge:
        http = openai.DefaultAsyncHttpxClient(verify=trusting(files.cert))
        async with openai.AsyncOpenAI(
            base_url=f"{edge.url}/v1", api_key=KEY, max_retries=0, http_client=http
        ) as client:
            stream = await client.completions.create(
                model=MODEL, prompt="hi", max_tokens=5, stream=True
            )
            assert [chunk.choices[0].text async for chunk in stream]


async def test_tls_1_2_at_least_and_http_1_1(files: Files) -> None:
    tls = ListenerTls(files.cert, files.key)
    async with running_edge([], tls=tls) as edge:
        port = int(edge.url.rpartition(":")[2])
        trust = trusting(files.cert)
        trust.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        writer.close()
    assert tls.context.minimum_version is tls._current.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_renewed_certificate_is_served_and_open_connections_go_on(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    tls = ListenerTls(files.cert, files.key)
    async with running_edge([], tls=tls) as edge:
        connector = aiohttp.TCPConnector(ssl=trusting(files.cert), limit=1)
        async with aiohttp.ClientSession(connector=connector) as session:
            async with session.get(f"{edge.url}/healthz") as answer:
                assert answer.status == 200
            assert await served_name(edge.url) == "first"
            files.write("second")
            tls.reload()
            assert await served_name(edge.url) == "second"
            async with session.get(f"{edge.url}/healthz") as answer:  # trusts only the first
                assert answer.status == 200
        files.cert.write_text("not a certificate")
        for _ in range(3):
            tls.reload()
        assert await served_name(edge.url) == "second"
        files.key.unlink()
        tls.reload()
        assert await served_name(edge.url) == "second"
        files.write("third")
        tls.reload()
        assert await served_name(edge.url) == "third"
    kept = [r for r in caplog.records if r.getMessage() == "the certificate stays as it was"]
    assert len(kept) == 2  # one for the file that is none, one for the file that is gone


async def test_it_looks_by_itself(files: Files) -> None:
    from trimtab.runtime.tasks import TaskRunner  # noqa: PLC0415

    tls = ListenerTls(files.cert, files.key)
    before = tls._current
    async with TaskRunner() as runner:
        runner.forever("certificate", tls.follow(poll_s=0.01))
        files.write("second")
        await until(lambda: tls._current is not before)


def test_files_that_cannot_be_used_are_one_sentence(files: Files, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none.crt: No such file"):
        ListenerTls(tmp_path / "none.crt", files.key)
    files.key.chmod(0o640)
    with pytest.raises(ConfigError, match=r"may be read by others \(-rw-r-----\): chmod 600 it"):
        ListenerTls(files.cert, files.key)
    files.key.chmod(0o600)
    files.key.write_text("x")
    with pytest.raises(ConfigError, match="are no certificate with its key"):
        ListenerTls(files.cert, files.key)
