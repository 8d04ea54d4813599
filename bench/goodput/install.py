"""Peers as a user would install them, each in a folder of its own under `.bench/`.

Rules: nothing is installed into the system or into our own environment; versions are pinned, so
that two runs compare the same things; what can't be had raises MissingError with the reason.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / ".bench"
_INSTALL_TIMEOUT_S = 1200.0


class MissingError(Exception):
    """A peer can't be had here; says why."""


def venv(
    name: str, requirements: tuple[str, ...], *, python: str = sys.executable, made_from: str = ""
) -> pathlib.Path:
    """The `bin` of a virtual environment that has these packages; anew if `made_from` changes."""
    place = CACHE / name
    done = place / "made-from"
    recipe = "\n".join((sys.version, python, *requirements, made_from))
    if not done.is_file() or done.read_text() != recipe:
        print(f"bench: installing {' '.join(requirements)} into {place}, once ...", flush=True)
        shutil.rmtree(place, ignore_errors=True)
        _call([python, "-m", "venv", str(place)])
        pip = [str(place / "bin/python"), "-m", "pip", "install", "--quiet"]
        _call([*pip, "--disable-pip-version-check", *requirements])
        done.write_text(recipe)
    return place / "bin"


def debian(name: str, packages: tuple[str, ...]) -> pathlib.Path:
    """The root under which these Debian packages are unpacked; no service is started."""
    place = CACHE / name
    done = place / "made-from"
    if not done.is_file() or done.read_text() != " ".join(packages):
        print(f"bench: unpacking {' '.join(packages)} into {place}, once ...", flush=True)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        if shutil.which("apt-get") is None:
            raise MissingError("no apt-get on this machine")
        _call(["apt-get", "download", "--quiet", *packages], place)
        for archive in sorted(place.glob("*.deb")):
            _call(["dpkg", "-x", str(archive), str(place)])
        done.write_text(" ".join(packages))
    return place


def libraries(root: pathlib.Path) -> dict[str, str]:
    """Where an unpacked Debian program finds its libraries."""
    found = [str(path) for path in sorted((root / "usr/lib").glob("*-linux-gnu"))]
    return {"LD_LIBRARY_PATH": os.pathsep.join(found)}


def first_line(command: list[str], env: dict[str, str] | None = None, word: str = "") -> str:
    """The first line of a program's output with a digit and that word: what it says it is."""
    environ = {**os.environ, **(env or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    said = (line.strip() for line in lines if word in line and any(c.isdigit() for c in line))
    return next(said, "unknown")


def _call(command: list[str], place: pathlib.Path | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=place,
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingError(f"{command[0]}: {error}") from None
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise MissingError(
            f"{' '.join(command[:4])} ...: {words[-1] if words else done.returncode}"
        )
