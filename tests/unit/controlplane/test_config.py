"""Flags and file become what the control plane needs."""

from __future__ import annotations

import hashlib
import pathlib
import socket

import pytest

from controlplane.config import from_args
from controlplane.core.placement import EngineSpec
from trimtab.model import ApiKey, EdgePolicy, Pool
from trimtab.runtime.service import ConfigError

FILE = """
fleet: lab
node: n1
controlplane: unix:/run/x.sock
state_dir: /var/lib/x
pools:
  - name: big
    aliases: [gpt]
    engines:
      - url: http://127.0.0.1:8000/
        name: gpu0
        served_as: served-big
engines:
  - url: http://127.0.0.1:8001
keys:
  - name: hashed
    sha256: "{sha256}"
  - name: referenced
    key: {{env: TEST_KEY}}
edge:
  queue_wait_s: 1.5
""".format(sha256="AB" * 32)


def test_the_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    path = tmp_path / "c.yaml"
    path.write_text(FILE)
    config = from_args(["--config", str(path)])

    assert (config.fleet, config.name, config.listen) == ("lab", "n1", "unix:/run/x.sock")
    assert config.store == pathlib.Path("/var/lib/x/trimtab.db")
    assert config.pools == (Pool("big", ("gpt",)),)
    assert config.engines == (
        EngineSpec("gpu0", "http://127.0.0.1:8000", "big", "served-big"),
        EngineSpec("n1-8001", "http://127.0.0.1:8001", named=False),
    )
    assert config.keys == (
        ApiKey(b"\xab" * 32, "hashed"),
        ApiKey(hashlib.sha256(b"sk-secret").digest(), "referenced"),
    )
    assert config.policy == EdgePolicy(queue_wait_ms=1_500)
    assert "sk-secret" not in repr(config)


def test_flags_beat_the_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    path = tmp_path / "c.yaml"
    path.write_text(FILE)
    flags = ["--listen", "127.0.0.1:9", "--store", "s.db", "--name", "cp2"]
    config = from_args(["--config", str(path), *flags])
    assert (config.listen, config.store, config.name) == (
        "127.0.0.1:9",
        pathlib.Path("s.db"),
        "cp2",
    )


def test_without_a_file_the_policy_is_the_default() -> None:
    config = from_args(["--listen", "unix:/x", "--store", "s.db"])
    assert config.policy == EdgePolicy()
    assert (config.pools, config.engines, config.keys) == ((), (), ())


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "nowhere to listen"),
        (["--listen", "unix:/x"], "nowhere to keep state"),
        (["--config", "/no/such/file"], "cannot read /no/such/file"),
    ],
)
def test_what_is_missing_is_said(argv: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        from_args(argv)


def test_a_key_that_is_not_there_is_said(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(FILE)
    with pytest.raises(ConfigError, match="TEST_KEY is not set"):
        from_args(["--config", str(path)])


TLS = """
fleet: lab
state_dir: /var/lib/x
controlplane: {listen}
tls: {{dir: /etc/x, enroll: "0.0.0.0:7444", names: [{names}], certificate_days: 1}}
"""


@pytest.mark.parametrize(
    ("listen", "names", "shown"),
    [
        ("0.0.0.0:7443", "cp1.lan, 10.0.0.1", "cp1.lan:7444"),
        ("10.0.0.1:7443", "", "10.0.0.1:7444"),
        ("0.0.0.0:7443", "", f"{socket.gethostname()}:7444"),
    ],
)
def test_tls_and_where_others_join(
    tmp_path: pathlib.Path, listen: str, names: str, shown: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(TLS.format(listen=listen, names=names))
    config = from_args(["--config", str(path)])
    assert config.tls is not None
    assert (config.tls.enroll, config.tls.enroll_url) == ("0.0.0.0:7444", shown)
    assert config.tls.life_s == 86_400
    assert config.admin_socket == "unix:/var/lib/x/control.sock"
    other = from_args(["--config", str(path), "--admin-socket", "/run/a.sock", "--tls-dir", "/t"])
    assert other.tls is not None
    assert (other.admin_socket, other.tls.directory) == ("unix:/run/a.sock", pathlib.Path("/t"))


@pytest.mark.parametrize(
    ("listen", "insecure", "starts"),
    [
        ("127.0.0.1:7443", False, True),
        ("[::1]:7443", False, True),
        ("localhost:7443", False, True),
        ("unix:/x", False, True),
        ("0.0.0.0:7443", False, False),
        (":7443", False, False),
        ("10.0.0.1:7443", False, False),
        ("ipv4:10.0.0.1:7443", False, False),
        ("10.0.0.1:7443", True, True),
    ],
)
def test_nothing_is_open_beyond_this_machine_unless_told(
    tmp_path: pathlib.Path, listen: str, insecure: bool, starts: bool
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"insecure: {str(insecure).lower()}\n")
    flags = ["--config", str(path), "--store", "s.db", "--listen", listen]
    if starts:
        assert from_args(flags).listen == listen
        return
    with pytest.raises(ConfigError, match="anybody could steer the fleet"):
        from_args(flags)
