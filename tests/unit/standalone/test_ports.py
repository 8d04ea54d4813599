"""Ports that can't be had are named in a sentence."""

from __future__ import annotations

import socket

import pytest

from standalone import ports
from trimtab.runtime.service import ConfigError


def test_free_ports_are_found_past_busy_ones() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        busy = server.getsockname()[1]
        found = ports.free_from(busy, 2)
        assert busy < found[0] < found[1]
        assert ports.free_from(busy, 2) == found
        for port in found:
            ports.require_free(f"127.0.0.1:{port}", "--listen")


def test_a_want_of_free_ports_is_said() -> None:
    with pytest.raises(ConfigError, match=r"^no 200 free ports on 127\.0\.0\.1:9000-9099$"):
        ports.free_from(9000, 200)


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


def test_a_claimed_port_is_nobody_elses() -> None:
    (first,) = ports.claim(8900, 1)
    assert ports.claim(first, 2) == ports.free_from(first + 1, 2)
    assert ports.free_from(first, 1) == [first]
