"""Which versions of etcd are known to lose writes."""

from __future__ import annotations

import pytest

from controlplane.store.etcd_client import is_unsafe

VERSIONS = {
    "3.3.27": True,
    "3.4.21": True,
    "3.4.22": False,
    "3.4.35": False,
    "3.5.0": True,
    "3.5.5": True,
    "3.5.6": False,
    "3.5.16": False,
    "3.6.0-rc.1": False,
    "4.0.0": False,
    "": True,
    "nightly": True,
}


@pytest.mark.parametrize("version", VERSIONS)
def test_versions(version: str) -> None:
    assert is_unsafe(version) is VERSIONS[version]
