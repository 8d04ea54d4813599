"""The openai client for Node, installed as package-lock.json pins it: `.sdks/` in the checkout.

Rule: where it can't be had (no Node 20, no npm, no registry) the reason is one sentence, and tests
of Node are skipped with it. Only our own words are shown: npm's stay in `.sdks/npm.log`.
"""

from __future__ import annotations

import hashlib
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

HERE = pathlib.Path(__file__).parent
RECIPE = ("package.json", "package-lock.json")
SPEAKER = "speaker.mjs"
HOME = HERE.parents[2] / ".sdks"
INSTALL = ("ci", "--no-audit", "--no-fund", "--omit=peer", "--omit=optional", "--ignore-scripts")
INSTALL_LIMIT_S = 120.0
NODE_MIN = 20


class NoNodeError(Exception):
    """Why the client can't be had here."""


@contextmanager
def running() -> Iterator[subprocess.Popen[str]]:
    """speaker.mjs, waiting for questions; raises NoNodeError."""
    node = _node()
    _install()
    shutil.copy(HERE / SPEAKER, HOME / SPEAKER)  # modules are looked for beside the script
    with subprocess.Popen(
        [node, HOME / SPEAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _node() -> str:
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise NoNodeError("node and npm are not on the PATH")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"v(\d+)\.", said)
    if version is None or int(version[1]) < NODE_MIN:
        raise NoNodeError(f"node {said.strip()} is older than {NODE_MIN}")
    return node


def _install() -> None:
    wanted = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in RECIPE)).hexdigest()
    stamp = HOME / "stamp"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    HOME.mkdir(exist_ok=True)
    for name in RECIPE:
        shutil.copy(HERE / name, HOME / name)
    command = [shutil.which("npm") or "npm", *INSTALL]
    with (HOME / "npm.log").open("wb") as log:
        try:
            done = subprocess.run(
                command, cwd=HOME, stdout=log, stderr=log, check=False, timeout=INSTALL_LIMIT_S
            )
        except subprocess.TimeoutExpired:
            raise NoNodeError(f"npm took over {INSTALL_LIMIT_S:.0f} s to install openai") from None
    if done.returncode != 0:
        raise NoNodeError("npm could not install openai; its words are in .sdks/npm.log")
    stamp.write_text(wanted)
