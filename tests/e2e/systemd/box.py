"""A machine in the machine: a real systemd as process 1 of namespaces of its own, with our units.

Rules: it has folders, users, processes, a network and a control group of its own, and all of them
end with its process 1; the units are installed as an administrator would, untouched; what they
start is this checkout, by the commands they name. Only root can make it, on a kernel that can:
`Box.refusal` says why not.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping

from bench.cluster.net import entered

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
UNITS = ROOT / "deploy" / "systemd"
GROUPS = pathlib.Path("/sys/fs/cgroup")
SYSTEMD = pathlib.Path("/lib/systemd/systemd")
TOOLS = ("ip", "mount", "nsenter", "systemctl", "systemd-sysusers", "unshare")
UNSHARED = ("--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup")
COMMAND = """#!/bin/sh
export PYTHONPATH=/srv/trimtab:/srv/packages LD_LIBRARY_PATH=/srv/python/lib
exec /srv/python/bin/python3 -P -m {} "$@"
"""
OURS = ("agent", "controlplane", "ctl", "edge")
TARGET = "[Unit]\nDescription=The box\nDefaultDependencies=no\n"
LOG = "/var/log/services"  # there is no journal
LOGGED = f"[Service]\nStandardOutput=append:{LOG}\nStandardError=append:{LOG}\n"
VLLM_USER = 'u vllm - "vLLM"\n'
BOOT_LIMIT_S = 30.0
COMMAND_LIMIT_S = 60.0
POLL_S = 0.05


class BoxError(Exception):
    """It did not do what was asked; with what it said."""


class Box:
    """A booted one; `close` ends it and all that is in it."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._scratch = pathlib.Path(tempfile.mkdtemp(prefix="tt-box-", dir="/tmp"))
        self._group = _groups() / self._scratch.name
        self._group.mkdir()
        commands = {f"opt/trimtab/bin/trimtab-{name}": COMMAND.format(name) for name in OURS}
        own = {
            "etc/systemd/system/box.target": TARGET,
            "etc/systemd/system/service.d/log.conf": LOGGED,
            "etc/vllm.sysusers": VLLM_USER,
        }
        for path, text in {**commands, **own, **files}.items():
            _write(self._scratch / "files" / path, text)
        self._log, self._first = self._scratch / "log", 0
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                (str(shutil.which("unshare")), *UNSHARED, "sh", str(HERE / "box.sh")),
                env={
                    "PATH": os.environ["PATH"],
                    "container": "box",
                    "REPO": str(ROOT),
                    "PYTHON": sys.base_prefix,
                    "PACKAGES": sysconfig.get_path("purelib"),
                    "FILES": str(self._scratch / "files"),
                },
                preexec_fn=self._join,  # noqa: PLW1509 - one write, before anything else runs
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._first = self._await_boot()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def refusal() -> str:
        """Why there can be none here; empty when there can."""
        if sys.platform != "linux" or os.geteuid() != 0:
            return "a systemd of its own needs root on Linux"
        if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
            return f"a systemd of its own needs {', '.join(missing)}"
        if not SYSTEMD.exists():
            return f"there is no {SYSTEMD}"
        try:
            Box({}).close()
        except (OSError, BoxError) as error:
            return f"no systemd can be booted here: {error}"
        return ""

    def run(self, *words: str, check: bool = True) -> str:
        """What a command inside prints. Raises BoxError when it fails, unless told not to."""
        command = ("nsenter", "--target", str(self._first), "--all", "--", *words)
        done = subprocess.run(
            command, capture_output=True, check=False, text=True, timeout=COMMAND_LIMIT_S
        )
        if check and done.returncode:
            raise BoxError(f"{' '.join(words)}: {done.stdout}{done.stderr}\n{self.said()[-6_000:]}")
        return done.stdout

    def start(self, *units: str) -> None:
        """Start them, in this order; returns when they are ready."""
        for unit in units:
            self.run("systemctl", "start", unit)

    def shows(self, unit: str, name: str) -> str:
        """A property of a unit, as `systemctl show` has it."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def network(self) -> contextlib.AbstractContextManager[None]:
        """Have its network for the length of the block: this thread, and what it starts."""
        return entered(pathlib.Path("/proc", str(self._first), "ns", "net"))

    def said(self) -> str:
        """What its services wrote; before there are any, what its systemd did."""
        inside = pathlib.Path(f"/proc/{self._first}/root{LOG}")
        wrote = inside if self._first and inside.exists() else self._log
        return wrote.read_text(errors="replace")

    def close(self) -> None:
        """End everything in it."""
        self._process.kill()
        self._process.wait()
        deadline_s = time.monotonic() + BOOT_LIMIT_S  # noqa: TID251 - no service, but a test's tool
        while self._group.exists() and time.monotonic() < deadline_s:  # noqa: TID251
            for group in (*sorted(self._group.rglob("*/"), reverse=True), self._group):
                with contextlib.suppress(OSError):
                    group.rmdir()
            time.sleep(POLL_S)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _join(self) -> None:
        (self._group / "cgroup.procs").write_text(str(os.getpid()))

    def _await_boot(self) -> int:
        """Its process 1, as we see it."""
        deadline_s = time.monotonic() + BOOT_LIMIT_S  # noqa: TID251
        while time.monotonic() < deadline_s:  # noqa: TID251
            if self._process.poll() is not None:
                raise BoxError(f"it ended: {self.said()}")
            children = pathlib.Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            for first in map(int, children.read_text().split()):
                self._first = first
                with contextlib.suppress(subprocess.SubprocessError):
                    if self.run("systemctl", "is-system-running", check=False).strip() == "running":
                        return first
            time.sleep(POLL_S)
        raise BoxError(f"it did not boot: {self.said()}")


def _groups() -> pathlib.Path:
    """Where control groups of version 2 are; beside those of version 1 on a mixed machine."""
    mixed = GROUPS / "unified"
    return mixed if mixed.is_dir() else GROUPS


def _write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755 if path.parent.name == "bin" else 0o644)
