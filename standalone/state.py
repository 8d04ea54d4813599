"""The state directory: who may use it now, and what is where in it.

Rules: one `trimtab up` at a time (a lock that dies with its holder); nobody else may read it; what
holds a key is written with mode 0600 and replaced in one step.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import secrets
import shutil
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from trimtab.runtime import config as file
from trimtab.runtime.service import ConfigError

# sun_path holds 108 bytes, and gRPC and others take a few for themselves.
SOCKET_PATH_LIMIT_BYTES = 100
_LONGEST_NAME = "run/controlplane.notify"
_KEY_RANDOM_BYTES = 32
LOG_LIMIT_BYTES = 32 * 1024 * 1024
"""Of one child; as much again is kept of what came before."""
_TAIL_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class State:
    """Paths below the state directory."""

    root: pathlib.Path

    @property
    def control_target(self) -> str:
        """The control plane's gRPC target."""
        return f"unix:{self.root / 'control.sock'}"

    @property
    def store(self) -> pathlib.Path:
        """The control plane's database."""
        return self.root / "trimtab.db"

    @property
    def config(self) -> pathlib.Path:
        """The configuration that the children read."""
        return self.root / "run" / "trimtab.json"

    @property
    def upstream_key(self) -> pathlib.Path:
        """The engines' own key, if they have one."""
        return self.root / "run" / "upstream.key"

    @property
    def logs(self) -> pathlib.Path:
        """Where the children's output goes."""
        return self.root / "logs"

    def log(self, name: str) -> pathlib.Path:
        """One child's output."""
        return self.logs / f"{name}.log"

    def notify_socket(self, name: str) -> pathlib.Path:
        """Where one child says that it is ready."""
        return self.root / "run" / f"{name}.notify"


def prepare(root: pathlib.Path) -> State:
    """Make the directories; raises ConfigError."""
    longest = len(os.fsencode(root / _LONGEST_NAME))
    if longest > SOCKET_PATH_LIMIT_BYTES:
        over = longest - SOCKET_PATH_LIMIT_BYTES
        raise ConfigError(
            f"{root}: {over} bytes too long for the unix sockets in it: give a shorter --state"
        )
    state = State(root)
    try:
        for directory in (root, root / "run", state.logs):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot use {error.filename}: {error.strerror}: see --state") from None
    return state


def lock(state: State) -> int:
    """Hold the directory until this process ends; raises ConfigError. The lock's descriptor."""
    try:
        descriptor = os.open(state.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot use {error.filename}: {error.strerror}: see --state") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise ConfigError(
            f"trimtab runs already in {state.root} (process {holder}): stop it, or give another "
            "--state and --listen"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def kept_key(state: State) -> str:
    """The key that was made for this directory, made now if there is none."""
    path = state.root / "key"
    if not path.exists():
        write_private(path, f"sk-tt-{secrets.token_urlsafe(_KEY_RANDOM_BYTES)}\n")
    return file.resolve(file.Secret(file=str(path)))


def hand_on(state: State, config: file.Config, upstream_key: str) -> None:
    """Write what the children read; the key in a file, as their environments would show it."""
    if upstream_key:
        write_private(state.upstream_key, f"{upstream_key}\n")
        config = replace(config, upstream_key=file.Secret(file=str(state.upstream_key)))
    write_private(state.config, msgspec.json.format(msgspec.json.encode(config)).decode())


def write_private(path: pathlib.Path, text: str) -> None:
    """Replace a file in one step; nobody else may read it at any time."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    fresh.replace(path)


def rotate(path: pathlib.Path) -> None:
    """Start a log afresh and keep the previous one."""
    if path.exists():
        path.replace(path.with_name(path.name + ".1"))


def bound(path: pathlib.Path) -> None:
    """Start a log afresh that has grown too long, under the feet of those who append to it.

    What they write between the copy and the cut is lost.
    """
    try:
        if path.stat().st_size > LOG_LIMIT_BYTES:
            shutil.copyfile(path, path.with_name(path.name + ".1"))
            os.truncate(path, 0)
    except OSError:
        return  # no room for a copy, or no log yet: the next look may do better


def tail(path: pathlib.Path, began_bytes: int = 0) -> str:
    """The end of a log, of what was written since it had `began_bytes`."""
    with path.open("rb") as stream:
        length = stream.seek(0, os.SEEK_END)
        stream.seek(max(began_bytes if began_bytes <= length else 0, length - _TAIL_BYTES))
        return stream.read(_TAIL_BYTES).decode(errors="replace")


def last_line(path: pathlib.Path) -> str:
    """The last words in a log."""
    lines = tail(path).split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
