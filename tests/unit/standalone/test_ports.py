"""Ports that can't be had are named in a sentence."""

from __future__ import annotations

import socket

import pytest

from standalone import ports
from trimtab.runtime.service import ConfigError


def test_a_free_port_is_free() -> None:
    port = ports.free_port()
    ports.require_free(f"127.0.0.1:{port}", "--listen")
    assert 1024 <= port <= 65_535


def test_a_busy_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConfigError) as caught:
            ports.require_free(address, "--listen")
    wanted = f"cannot listen on {address}: another program listens there: free it, or give another"
    assert str(caught.value) == f"{wanted} --listen HOST:PORT"


CASES = {
    "127.0.0.1:0": "--admin 127.0.0.1:0: name a port",
    "192.0.2.1:4000": "not an address of this machine",
    "no-such-host.invalid:4000": "no such host",
}


@pytest.mark.parametrize("address", CASES)
def test_other_reasons(address: str) -> None:
    with pytest.raises(ConfigError, match=CASES[address]):
        ports.require_free(address, "--admin")
