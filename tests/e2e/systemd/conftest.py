"""One box with a whole fleet for all tests of a module: booting and starting is what takes long."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.e2e.systemd.box import COMMAND, UNITS, Box

KEY, ENGINES_KEY = "sk-of-the-box", "sk-of-the-engines"
CONFIG = f"""
fleet: lab
node: box
state_dir: /var/lib/trimtab
controlplane: unix:/run/trimtab/control.sock
engines:
  - url: http://127.0.0.1:8000
    unit: vllm@0.service
  - url: http://127.0.0.1:8001
    unit: vllm@1.service
remediation:
  restarts_per_hour: 2
  after_s: 10
keys:
  - name: users
    sha256: {hashlib.sha256(KEY.encode()).hexdigest()}
upstream_key: {{credential: trimtab.engines}}
edge:
  drain_s: 60
"""
ENGINE = COMMAND.format("sim.engine_http").replace('"$@"', '--model "$2" --port "$6"')
VLLM = ENGINE.replace("exec ", "sleep 3600 &  # a worker that outlives its parent\nexec ", 1)
SHORT = "[Service]\nWatchdogSec=3\n"
SERVICES = ("trimtab-controlplane", "trimtab-agent", "trimtab-edge.socket", "trimtab-edge@1")
ENGINES = ("vllm@0", "vllm@1")
FILES = {
    "etc/trimtab/trimtab.yaml": CONFIG,
    "etc/credstore/trimtab.engines": f"{ENGINES_KEY}\n",
    "etc/trimtab/vllm.env": "MODEL=demo\n",
    "etc/systemd/system/trimtab-edge@2.service.d/short.conf": SHORT,
    "opt/vllm/bin/vllm": VLLM,
    "etc/polkit-1/rules.d/50-trimtab.rules": (UNITS / "trimtab.rules").read_text(),
}


@pytest.fixture(scope="module")
def booted() -> Iterator[Box]:
    """The fleet's machine, with everything started by its units."""
    if refusal := Box.refusal():
        pytest.skip(f"NOT TESTED with a real systemd: {refusal}")
    made = Box(FILES)
    try:
        made.start(*ENGINES, *SERVICES)
        yield made
    finally:
        made.close()


@pytest.fixture
def box(booted: Box) -> Iterator[Box]:
    """The fleet as it was at first, whatever another test did, as seen from its network."""
    booted.start(*ENGINES, *SERVICES)
    booted.run("systemctl", "stop", "trimtab-edge@2")
    with booted.network():
        yield booted
