"""One fleet of three nodes for all tests of a module: starting it is what takes long."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator

import pytest

from bench.cluster.fleet import HOSTS, Cluster
from bench.cluster.net import Net


@pytest.fixture(scope="module")
def net() -> Iterator[Net | None]:
    """Hosts of their own, where the machine lets us make them."""
    if Net.refusal():
        yield None
        return
    made = Net(HOSTS)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def three_nodes(net: Net | None) -> Iterator[Cluster]:
    """The fleet; on loopback where there can be no network."""
    with tempfile.TemporaryDirectory(prefix="tt-", dir="/tmp") as root:
        made = Cluster(pathlib.Path(root), net=net)
        try:
            with _inside(net):
                made.start()
            yield made
        finally:
            made.close()


@pytest.fixture
def cluster(three_nodes: Cluster, net: Net | None) -> Iterator[Cluster]:
    """The fleet, as seen from its network."""
    with _inside(net):
        yield three_nodes


def _inside(net: Net | None) -> contextlib.AbstractContextManager[None]:
    return net.inside() if net else contextlib.nullcontext()
