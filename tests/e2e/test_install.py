"""The bundle: made here, installed where there is no network, run from there, taken away again.

It needs root, for the namespaces, and a package index to make the bundle from; without them it says
loudly that nothing was tested.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = pathlib.Path(__file__).with_name("install_box.sh")
TOOLS = ("ip", "mount", "systemd-sysusers", "unshare", "userdel")
LIMIT_S = 300


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A bundle for this Python."""
    into = tmp_path_factory.mktemp("dist")
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        (ROOT / "run", "bundle", into),
        capture_output=True,
        check=False,
        text=True,
        env=environment,
        timeout=LIMIT_S,
    )
    if done.returncode:
        pytest.skip(f"NOT TESTED: no bundle can be made here: {done.stderr[-2_000:]}")
    return pathlib.Path(done.stdout.strip())


@pytest.mark.timeout(3 * LIMIT_S)  # the bundle, too
def test_installed_without_a_network_it_serves_and_leaves_nothing(
    bundle: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if sys.platform != "linux" or os.geteuid() != 0 or missing:
        pytest.skip(f"NOT TESTED: a box without a network needs root on Linux {missing}")
    python = pathlib.Path(sysconfig.get_config_var("BINDIR")) / "python3"
    unshare = ("unshare", "--fork", "--kill-child", "--pid", "--mount", "--net")
    done = subprocess.run(
        (*unshare, "sh", SCRIPT, bundle, tmp_path, python),
        capture_output=True,
        check=False,
        text=True,
        env={"PATH": os.environ["PATH"]},
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "models").read_text())["data"]
    installed, again = (tmp_path / "installed").read_text(), (tmp_path / "again").read_text()
    assert ("sk-tt-" in installed, "sk-tt-" in again) == (True, False)
    there = (tmp_path / "there").read_text()
    for path, mode in {
        "/etc/systemd/system/trimtab-edge@.service": "644 root root",
        "/etc/trimtab/trimtab.yaml": "640 root trimtab",
        "/opt/trimtab/share/trimtab/systemd/vllm@.service": "644 root root",
        "/opt/trimtab/share/trimtab/install.sh": "755 root root",
        "/opt/trimtab/share/doc/trimtab/install.md": "644 root root",
    }.items():
        assert f"\n{path} {mode}\n" in there
    assert (tmp_path / "after").read_text() == (tmp_path / "before").read_text()
