"""Nothing listens beyond this machine unless somebody asked for it."""

from __future__ import annotations

import pathlib

import pytest

from controlplane import config as controlplane_config
from edge import config as edge_config
from trimtab.runtime import config as file
from trimtab.runtime.service import ConfigError


def test_the_edges_addresses_are_loopback() -> None:
    config = edge_config.from_args(["--controlplane", "unix:/x"])
    assert (config.host, config.admin_host) == ("127.0.0.1", "127.0.0.1")


def test_the_control_plane_has_no_default_but_to_refuse(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="nowhere to listen"):
        controlplane_config.from_args(["--store", str(tmp_path / "x.db")])
    config = controlplane_config.from_args(
        ["--listen", "unix:/x", "--store", str(tmp_path / "x.db")]
    )
    assert config.metrics == ""


def test_the_files_defaults_are_loopback_or_nothing() -> None:
    base = file.Config()
    assert base.listen.startswith("127.0.0.1:")
    assert base.admin.startswith("127.0.0.1:")
    assert (base.controlplane, base.controlplane_metrics) == ("", None)


def test_metrics_go_where_they_are_asked_to(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(f"controlplane: unix:/x\nstate_dir: {tmp_path}\n")
    asked = path.read_text() + "controlplane_metrics: 127.0.0.1:4002\n"
    path.write_text(asked)
    assert controlplane_config.from_args(["--config", str(path)]).metrics == "127.0.0.1:4002"
    with pytest.raises(ConfigError, match=r"--metrics: .* is not HOST:PORT"):
        controlplane_config.from_args(["--config", str(path), "--metrics", "nowhere"])
    path.write_text(asked.replace("127.0.0.1:4002", "nowhere"))
    with pytest.raises(ConfigError, match="is not HOST:PORT"):
        controlplane_config.from_args(["--config", str(path)])


def test_the_edge_takes_a_certificate_from_the_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("controlplane: unix:/x\nedge: {tls: {cert: a.crt, key: a.key}}\n")
    config = edge_config.from_args(["--config", str(path)])
    assert config.tls == file.Certificate(cert="a.crt", key="a.key")
    assert config.listen_url.startswith("https://127.0.0.1:")
