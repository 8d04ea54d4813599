"""Flags and file become what the control plane needs."""

from __future__ import annotations

import hashlib
import pathlib
import socket

import pytest

from controlplane.config import EtcdConfig, from_args
from controlplane.core.placement import EngineSpec
from controlplane.store.etcd_client import Access
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
    models: [gpt, sql]
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
        ApiKey(hashlib.sha256(b"sk-secret").digest(), "referenced", models=("gpt", "sql")),
    )
    assert config.policy == EdgePolicy(queue_wait_ms=1_500)
    assert "sk-secret" not in repr(config)


def test_what_a_pool_and_a_key_promise(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "controlplane: unix:/run/x.sock\nstate_dir: /var/lib/x\n"
        "pools: [{name: p, failover: false, hedge: true, request_timeout_s: 1.5, "
        "idle_timeout_s: 20, fallback: {url: 'https://a/v1', key: {env: UNSET}, model: m}}]\n"
        "keys: [{name: k, sha256: " + "ab" * 32 + ", fallback: true}]\n"
    )
    config = from_args(["--config", str(path)])  # the fallback's key is the edges' own affair
    assert config.pools == (Pool("p", (), True, 1_500, 20_000, True),)
    assert config.keys == (ApiKey(b"\xab" * 32, "k", fallback=True),)


@pytest.mark.parametrize(
    ("said", "expires_ms"),
    [
        ("2027-03-31", 1_806_537_600_000),  # the first moment of April, UTC
        ("'2027-03-31'", 1_806_537_600_000),
        ("2027-03-31T18:00+02:00", 1_806_508_800_000),
        ("2027-03-31 16:00:00Z", 1_806_508_800_000),
    ],
)
def test_when_a_key_expires(tmp_path: pathlib.Path, said: str, expires_ms: int) -> None:
    path = tmp_path / "c.yaml"
    key = "keys: [{name: k, sha256: " + "ab" * 32 + f", expires: {said}}}]\n"
    path.write_text("controlplane: unix:/run/x.sock\nstate_dir: /var/lib/x\n" + key)
    (found,) = from_args(["--config", str(path)]).keys
    assert found == ApiKey(b"\xab" * 32, "k", expires_ms=expires_ms)
    moment_s = expires_ms / 1000
    assert [found.expired(at_s) for at_s in (moment_s - 0.001, moment_s)] == [False, True]


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
        (["--listen", "a:1,b:2", "--store", "s"], "names several"),
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


def test_peers_are_told_where_it_listens_or_what_it_says() -> None:
    flags = ["--listen", "127.0.0.1:7000", "--store", "s.db"]
    assert from_args(flags).advertise == "127.0.0.1:7000"
    assert from_args([*flags, "--advertise", "cp0:7000"]).advertise == "cp0:7000"


ETCD = """
fleet: lab
controlplane: unix:/run/x.sock
etcd:
  endpoints: [https://a:2379/, https://b:2379]
  prefix: lab/
  username: fleet
  password: {env: TEST_KEY}
  ca: ca.crt
"""


def test_the_etcd_section(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "pw-secret")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.crt").write_text("PEM")
    path = tmp_path / "c.yaml"
    path.write_text(ETCD)
    etcd = from_args(["--config", str(path)]).etcd
    endpoints = ("https://a:2379", "https://b:2379")
    assert etcd == EtcdConfig(Access(endpoints, "fleet", "pw-secret", b"PEM"), "lab/")
    assert "pw-secret" not in repr(etcd)

    flags = ["--config", str(path), "--etcd", "https://c:1,https://d:2"]
    changed = from_args(flags).etcd
    assert changed is not None
    assert changed.access.endpoints == ("https://c:1", "https://d:2")
    assert changed.prefix == "lab/"


def test_the_etcd_flag_alone_is_enough() -> None:
    config = from_args(["--listen", "unix:/x", "--etcd", "http://127.0.0.1:2379"])
    assert config.store is None
    assert config.etcd == EtcdConfig(Access(("http://127.0.0.1:2379",)), "trimtab/")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("endpoints: []", "at least one of endpoints"),
        ("endpoints: [http://a]", 'did you mean "http://a:2379"'),
        ("endpoints: ['http://u:p@a:1']", "put them in etcd.username and etcd.password"),
        ("endpoints: [http://a:1, https://b:1]", "https for all endpoints"),
        ("endpoints: [http://a:1]\n  ca: x", "https for all endpoints"),
        ("endpoints: [https://a:1]\n  cert: x", "both of cert and key"),
        ("endpoints: [https://a:1]\n  username: x", "both of username and password"),
        ("endpoints: [https://a:1]\n  prefix: x", "prefix must end with a slash"),
        ("prefix: x/", "missing"),
        ("endpoints: [https://a:1]\n  ca: /nowhere/ca.crt", "cannot read /nowhere/ca.crt"),
    ],
)
def test_what_is_wrong_with_an_etcd_section(
    tmp_path: pathlib.Path, text: str, problem: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"controlplane: unix:/x\netcd:\n  {text}\n")
    with pytest.raises(ConfigError) as raised:
        from_args(["--config", str(path)])
    assert problem in str(raised.value)
    assert "u:p@" not in str(raised.value)


@pytest.mark.parametrize("flag", ["localhost", "http://a:1,", "http://a:1,https://b:1"])
def test_a_wrong_etcd_flag_is_named(flag: str) -> None:
    with pytest.raises(ConfigError, match=r"^--etcd: "):
        from_args(["--listen", "unix:/x", "--etcd", flag])


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
