"""A socket is made only where it is ours to make."""

from __future__ import annotations

import pathlib
import socket

import pytest

from controlplane import listen
from trimtab.runtime.service import ConfigError


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("unix:/a/b", pathlib.Path("/a/b")),
        ("unix:///a/b", pathlib.Path("/a/b")),
        ("unix:b", pathlib.Path("b")),
        ("127.0.0.1:9", None),
    ],
)
def test_socket_path(address: str, path: pathlib.Path | None) -> None:
    assert listen.socket_path(address) == path


def test_a_leftover_is_replaced(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as leftover:
        leftover.bind(str(path))
    listen.prepare(f"unix:{path}")
    assert not path.exists()
    listen.prepare(f"unix:{path}")


def test_one_that_answers_is_left_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        alive.listen()
        with pytest.raises(ConfigError, match=f"^another control plane is running on unix:{path}$"):
            listen.prepare(f"unix:{path}")
    assert path.is_socket()


def test_one_that_is_too_busy_to_answer_is_alive(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(ConfigError, match="another control plane"):
            listen.prepare(f"unix:{path}")


@pytest.mark.parametrize(
    ("name", "text"),
    [("file", "is a file"), ("x" * 200, "too long"), ("no/where", "is not a directory")],
)
def test_other_things_are_left_alone(tmp_path: pathlib.Path, name: str, text: str) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ConfigError, match=text):
        listen.prepare(f"unix:{tmp_path}/{name}")
    assert (tmp_path / "file").read_text() == "precious"


def test_protect(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s"
    path.touch(0o666)
    listen.protect(f"unix:{path}")
    assert path.stat().st_mode & 0o777 == 0o600
    listen.protect("127.0.0.1:9")
