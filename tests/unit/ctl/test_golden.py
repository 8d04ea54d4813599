"""Every form of output against a file: what `ctl` prints, on which stream, with which exit code.

TRIMTAB_GOLDEN=write rewrites the files; review the difference like any other change.
"""

from __future__ import annotations

import os
import pathlib
from dataclasses import replace

import pytest

from ctl.main import main
from tests.fakes.admin import FakeAdmin
from tests.fakes.fleet import FLEET, WELL
from tests.fakes.steered_fleet import ENTRIES, STEERED
from trimtab.views import Fleet

GOLDEN = pathlib.Path(__file__).parent / "golden"
FORMS = ("table", "wide", "json", "yaml", "jsonl", "csv", "name")
EMPTY = Fleet(name="lab-a", leader="cp1", term=1, controlplane_version="0.1.0")

SKEWED = replace(FLEET, edges=(replace(FLEET.edges[0], edge_version="0.2.0"), *FLEET.edges[1:]))
CONTEXTS = """\
current: lab-a
contexts:
  - {name: lab-a, server: "cp1:7443,cp2:7443", tls_dir: /home/op/lab-a}
  - {name: lab-b, server: "unix:/run/lab-b.sock"}
"""

CASES: dict[str, tuple[str, Fleet]] = {
    **{f"get-replicas-{form}": (f"get replicas -o {form}", FLEET) for form in FORMS},
    **{f"get-{noun}-table": (f"get {noun}", FLEET) for noun in ("edges", "agents", "pools")},
    **{f"get-{noun}-json": (f"get {noun} -o json", FLEET) for noun in ("edges", "agents", "pools")},
    "get-replicas-well": ("get replicas", WELL),
    "get-replicas-none": ("get replicas", EMPTY),
    "get-replicas-none-json": ("get replicas -o json", EMPTY),
    "get-replicas-none-csv": ("get replicas -o csv", EMPTY),
    "get-one": ("get re gpu1 -o name", FLEET),
    "get-unknown-name": ("get replica gpu9", FLEET),
    "get-unknown-noun": ("get replcas", FLEET),
    "get-noun-first": ("replicas get", FLEET),
    "status-degraded": ("status --check", FLEET),
    "status-ok": ("status --check", WELL),
    "status-down": ("status --check", EMPTY),
    "status-without-check": ("status", EMPTY),
    "cordon-last": ("cordon gpu0 --reason fan", FLEET),
    "cordon-last-confirmed": ("cordon gpu0 --reason fan --confirm gpu0", FLEET),
    "cordon-unknown": ("cordon gpu7", FLEET),
    "explain-blocked": ("explain replica gpu1", FLEET),
    "explain-fine": ("why re gpu0", FLEET),
    "explain-json": ("explain replica gpu1 -o json", FLEET),
    "explain-unknown": ("explain replica gpu9", FLEET),
    "explain-what": ("explain edge edge-a", FLEET),
    "explain-request": ("explain request req_7d1e", FLEET),
    "explain-request-refused": ("explain request req_9f2c", FLEET),
    "explain-request-json": ("why req req_9f2c -o json", FLEET),
    "explain-request-unknown": ("explain request req_0", FLEET),
    "explain-tenant": ("explain tenant trials", FLEET),
    "explain-model": ("explain model gpt-oss-120b", FLEET),
    "explain-model-json": ("explain pool gpt-oss-120b -o json", FLEET),
    "explain-form": ("explain replica gpu1 -o csv", FLEET),
    "describe-replica": ("describe replica gpu1", FLEET),
    "describe-replica-json": ("describe re gpu1 -o json", FLEET),
    "describe-node": ("describe node h200a", FLEET),
    "describe-edge": ("describe edge edge-a", FLEET),
    "describe-model": ("describe model gpt-oss-120b", FLEET),
    "describe-unknown": ("describe node h200z", FLEET),
    "describe-what": ("describe tenant x", FLEET),
    "top-replicas": ("top", FLEET),
    "top-models": ("top models", FLEET),
    "top-edges": ("top edges", FLEET),
    "top-none": ("top", EMPTY),
    "top-what": ("top nodes", FLEET),
    "events": ("events", FLEET),
    "events-jsonl": ("events -o jsonl -n 2", FLEET),
    "events-type": ("events --type breaker --since 2h", FLEET),
    "events-since": ("events --since yesterday", FLEET),
    "events-about": ("events --for gpu1", FLEET),
    "uncordon": ("uncordon gpu2", FLEET),
    "cordon-yes": ("cordon replica gpu0 --yes", STEERED),
    "cordon-nobody-there": ("cordon gpu0", STEERED),
    "cordon-dry-run": ("cordon node h200a --dry-run", STEERED),
    "drain-detached": ("drain node h200b --confirm h200b --detach --reason fan", STEERED),
    "drain-what": ("drain pool gpt-oss-120b", FLEET),
    "drain-edge": ("drain edge edge-a --detach --yes", FLEET),
    "drain-edge-last": ("drain edge edge-a", WELL),
    "drain-edge-unknown": ("drain edge edge-c", FLEET),
    "cordon-edge": ("cordon edge edge-a", FLEET),
    "uncordon-edge": ("uncordon edge edge-a", FLEET),
    "status-steered": ("status", STEERED),
    "weights-get": ("weights get", STEERED),
    "weights-get-json": ("weights get gpt-oss-120b -o json", STEERED),
    "weights-get-unknown": ("weights get gpt-oss-12b", STEERED),
    "weights-set": ("weights set gpt-oss-120b gpu0=70 gpu4=30 --for 2h --yes", STEERED),
    "weights-set-dry-run": ("weights set gpt-oss-120b gpu4=0 gpu0=1 --dry-run", STEERED),
    "weights-set-other": ("weights set gpt-oss-120b gpu3=1 --yes", STEERED),
    "weights-set-what": ("weights set gpt-oss-120b gpu0:70 --yes", STEERED),
    "weights-set-long": ("weights set gpt-oss-120b gpu0=70 --for ever --yes", STEERED),
    "weights-reset": ("weights reset gpt-oss-120b", STEERED),
    "weights-reset-none": ("weights reset qwen3-8b", STEERED),
    "breaker-get": ("breaker get", STEERED),
    "breaker-get-jsonl": ("breaker get gpu1 -o jsonl", STEERED),
    "breaker-reset": ("breaker reset gpu1 --reason seen", STEERED),
    "breaker-hold-open": ("breaker hold-open gpu0 --for 30m --yes", STEERED),
    "breaker-hold-open-last": ("breaker hold-open gpu0 --yes", FLEET),
    "breaker-hold-closed": ("breaker hold-closed gpu1", STEERED),
    "probe-answered": ("probe gpu0", FLEET),
    "probe-failed": ("probe gpu1 --timeout 5s", FLEET),
    "pause": ("pause --for 30m --yes", FLEET),
    "pause-nobody-there": ("pause", FLEET),
    "resume": ("resume", STEERED),
    "resume-none": ("resume", FLEET),
    "audit": ("audit", FLEET),
    "audit-actor-jsonl": ("audit --actor root@cp1 -o jsonl", FLEET),
    "audit-verify": ("audit --verify", FLEET),
    "audit-verify-part": ("audit --verify --actor ada", FLEET),
    "explain-yaml": ("explain replica gpu1 -o yaml", FLEET),
    "get-verb-second": ("re get gpu1 -o name", FLEET),
    "status-json": ("status -o json", WELL),
    "get-pools-yaml": ("get pools -o yaml", FLEET),
    "get-edges-csv": ("get edges -o csv", FLEET),
    "get-agents-jsonl": ("get agents -o jsonl", FLEET),
    "version-fleet": ("version --fleet", SKEWED),
    "version-fleet-csv": ("version --fleet -o csv", SKEWED),
    "context-list": ("context list", FLEET),
    "context-list-json": ("context list -o json", FLEET),
    "context-use": ("context use lab-b", FLEET),
    "context-use-unknown": ("context use lab-c", FLEET),
    "context-add": ("context add far -s cp9:7443 --tls-dir /etc/far", FLEET),
    "doctor": ("doctor", FLEET),
    "doctor-wide": ("doctor -o wide", FLEET),
    "doctor-json": ("doctor -o json", WELL),
    "doctor-node": ("doctor --node h200a", FLEET),
    "doctor-node-unknown": ("doctor --node h200c", FLEET),
    "config-validate": ("config validate bad.yaml", FLEET),
    "config-validate-json": ("config validate bad.yaml -o jsonl", FLEET),
    "config-validate-good": ("config validate same.yaml", FLEET),
    "config-validate-none": ("config validate none.yaml", FLEET),
    "config-diff": ("config diff new.yaml", FLEET),
    "config-diff-json": ("config diff new.yaml -o json", FLEET),
    "config-diff-same": ("config diff same.yaml", FLEET),
    "config-diff-bad": ("config diff bad.yaml", FLEET),
    "config-apply": ("config apply new.yaml --yes --reason fan", FLEET),
    "config-apply-same": ("config apply same.yaml", FLEET),
    "config-apply-unasked": ("config apply new.yaml", FLEET),
    "config-apply-bad": ("config apply bad.yaml --yes", FLEET),
    "config-show": ("config show", FLEET),
    "config-show-json": ("config show 3 -o json", FLEET),
    "config-show-origin": ("config show --origin", FLEET),
    "config-show-origin-csv": ("config show 0 --origin -o csv", FLEET),
    "config-show-unknown": ("config show 9", FLEET),
    "config-history": ("config history", FLEET),
    "config-history-json": ("config history -o json", FLEET),
    "config-rollback": ("config rollback 1 --yes", FLEET),
}
SAME = f"""\
listen: 127.0.0.1:4000
pools:
  - name: big
    aliases: [gpt]
    engines:
      - {{url: http://10.0.0.7:8000, name: gpu0}}
  - name: old
keys:
  - {{name: imaging, sha256: {"a1" * 32}}}
  - {{name: nlp, sha256: {"a2" * 32}, models: [gpt]}}
edge: {{queue_limit: 512}}
"""
FILES = {
    "same.yaml": SAME,
    "new.yaml": SAME.replace("  - name: old\n", "  - name: tiny\n")
    .replace("[gpt]\n", "[gpt, gpt-oss]\n")
    .replace("name: gpu0}", "name: gpu0, max_num_seqs: 64}\n      - {url: http://10.0.0.8:8000}")
    .replace("a2" * 32, "a3" * 32)
    .replace("{queue_limit: 512}", "{workers: 2, queue_wait_s: 20}")
    .replace("127.0.0.1:4000", "0.0.0.0:4000"),
    "bad.yaml": SAME.replace("http://10", "http:/10").replace("models:", "modls:"),
}


def transcript(words: str, code: int, streams: tuple[str, str], target: str) -> str:
    """A run as a reader sees it."""
    out, err = (stream.replace(target, "TARGET") for stream in streams)
    parts = [f"$ ctl {words}\n", out, f"[stderr]\n{err}" if err else "", f"[exit {code}]\n"]
    return "".join(parts)


def compare(name: str, text: str) -> None:
    """Hold a transcript against its file, or write it."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("TRIMTAB_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", CASES)
def test_output(
    name: str,
    admin: FakeAdmin,
    capfd: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words, fleet = CASES[name]
    monkeypatch.chdir(tmp_path)
    for path, text in FILES.items():
        (tmp_path / path).write_text(text)
    (tmp_path / "ctl.yaml").write_text(CONTEXTS)
    monkeypatch.setenv("TRIMTAB_CONFIG", "ctl.yaml")
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.1.0")
    admin.show(fleet)
    admin.steer.entries = ENTRIES
    code = main(["--server", admin.target, *words.split()])
    compare(name, transcript(words, code, capfd.readouterr(), admin.target))


def test_unreachable(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    target = f"unix:{tmp_path / 'nobody.sock'}"
    code = main(["status", "--server", target])
    compare("unreachable", transcript("status", code, capfd.readouterr(), target))


def test_every_golden_file_is_used() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {*CASES, "unreachable"}
