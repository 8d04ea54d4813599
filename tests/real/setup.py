"""Set up what the real-engine tests need: a CPU-only vLLM in its own environment, and a model.

`python tests/real/setup.py` fills `.real/` in the checkout (or the folder of its own that
TRIMTAB_REAL_DIR names, so that several checkouts can share one): about 100 s and 2.6 GB once, and
nothing when it is up to date. Exits 0 when ready, 75 (EX_TEMPFAIL) when the CPU build cannot be had
here, which is no fault of the code under test. Standard library only. Only package names are
printed: pip's own words may hold addresses and stay in `setup.log`.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements-vllm.txt"
RECIPE = (HERE / "setup.py", HERE / "make_model.py", REQUIREMENTS)
CANNOT_BE_HAD = 75


class CannotBeHadError(Exception):
    """This machine cannot have a CPU-only vLLM; the text says why."""


def real_dir() -> Path:
    """The folder that holds the environment, the model and the stamp."""
    return Path(os.environ.get("TRIMTAB_REAL_DIR") or HERE.parents[1] / ".real").absolute()


def is_ready() -> bool:
    """True if the folder was made by exactly this recipe."""
    stamp = real_dir() / "stamp"
    return stamp.is_file() and stamp.read_text() == _recipe_hash()


def _recipe_hash() -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in RECIPE)).hexdigest()


def _say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%T')}  {text}\n")
    sys.stdout.flush()


def _version_of(python: str) -> str:
    """Empty for a version manager's signpost to an interpreter that is not there."""
    ask = [python, "-c", "import sys; print(sys.version_info[:2])"]
    return subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()


def _find_python311() -> str:
    """The torch wheel is built for Python 3.11 only."""
    for name in (sys.executable, "python3.11"):
        path = shutil.which(name)
        if path and _version_of(path) == "(3, 11)":
            return path
    raise CannotBeHadError("It needs Python 3.11, and no python3.11 is on the PATH.")


def _install(venv: Path, log: Path) -> None:
    pip = [str(venv / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install"]
    options = ["--no-deps", "--retries", "2", "--progress-bar", "off", "-r", str(REQUIREMENTS)]
    with log.open("wb") as out:
        done = subprocess.run([*pip, *options], stdout=out, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        missing = re.findall(r"No matching distribution found for (\S+)", log.read_text())
        what = f"pip finds no {missing[-1]}" if missing else "pip could not install the packages"
        raise CannotBeHadError(f"Here {what}; its own words are in {log}.")


def _build(root: Path) -> None:
    """Everything from nothing; the stamp comes last, so a broken-off run counts for nothing."""
    stamp, venv = root / "stamp", root / "venv"
    if venv.exists() and not stamp.exists():
        raise SystemExit(f"{venv} was not made by this script: point TRIMTAB_REAL_DIR elsewhere")
    python = _find_python311()
    stamp.write_text("unfinished")
    for old in ("venv", "model"):
        shutil.rmtree(root / old, ignore_errors=True)
    _say("environment: a fresh one")
    subprocess.run([python, "-m", "venv", venv], check=True)
    _say("packages: CPU-only torch, vLLM and what they need (1-2 minutes, 2.6 GB)")
    _install(venv, root / "setup.log")
    _say("model")
    subprocess.run([venv / "bin/python", HERE / "make_model.py", root / "model"], check=True)
    stamp.write_text(_recipe_hash())


def main() -> int:
    root = real_dir()
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second checkout waits, then finds the work done
        if not is_ready():
            try:
                _build(root)
            except CannotBeHadError as why:
                line = "!" * 78
                _say(
                    f"\n{line}\nREAL-ENGINE TESTS CANNOT RUN HERE: no CPU-only vLLM.\n{why}\n{line}"
                )
                return CANNOT_BE_HAD
    _say(f"real engines: ready in {root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
