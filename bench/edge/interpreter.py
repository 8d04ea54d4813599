"""Which Python runs our edge, and how it was built: a fifth of a request hangs on that."""

from __future__ import annotations

import shutil
import subprocess

from bench.goodput import install
from bench.goodput.install import MissingError

_ASK = """
import platform, sysconfig
told = str(sysconfig.get_config_var("CONFIG_ARGS"))
flags = [flag for flag in ("--enable-optimizations", "--with-lto") if flag in told]
built = " and ".join(flags) or "says neither --enable-optimizations nor --with-lto"
name = f"{platform.python_implementation()} {platform.python_version()}"
print(f"{name} ({platform.python_compiler()}, {built})")
"""


def own(python: str) -> str:
    """The interpreter of an environment that is made for it; raises MissingError."""
    found = shutil.which(python)
    if found is None:
        raise MissingError(f"no {python} here")
    files = (install.ROOT / "pyproject.toml", install.ROOT / "constraints.txt")
    pins = ("--constraint", str(files[1]), "--editable", str(install.ROOT))
    made_from = "".join([path.read_text() for path in files])
    name = "python" + found.replace("/", "-")
    return str(install.venv(name, pins, python=found, made_from=made_from) / "python")


def about(python: str) -> str:
    """Its version, and whether it says that it was built to be quick; Debian's is, and does not."""
    done = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, check=True)
    return done.stdout.strip()
