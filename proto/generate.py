"""Generate code from the contracts: `./run proto` (write) or `./run proto --check` (compare).

Rule: nothing else calls protoc. The generator is pinned to the lowest gRPC and protobuf that we
support, because generated code refuses an older runtime; it therefore has a venv of its own.
"""

from __future__ import annotations

import argparse
import filecmp
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
# Ours, what we use of etcd's, what KEDA uses of us; code lands in the package of the same path.
PACKAGES = tuple(
    map(pathlib.Path, ("trimtab/v1", "controlplane/store/etcdpb", "controlplane/keda"))
)


def contracts() -> list[pathlib.Path]:
    """Every file that says what is on a wire."""
    return [path for package in PACKAGES for path in sorted((PROTO / package).glob("*.proto"))]


def generate(out: pathlib.Path) -> None:
    """Write messages, services and their typed stubs below `out`."""
    sources = [str(path.relative_to(PROTO)) for path in contracts()]
    args = ["-I", str(PROTO), f"--python_out={out}", f"--grpc_python_out={out}"]
    args += [f"--mypy_out=quiet:{out}", f"--mypy_grpc_out=quiet,only_async:{out}"]
    tools = pathlib.Path(sys.executable).parent
    for plugin in ("protoc-gen-mypy", "protoc-gen-mypy_grpc"):
        args.append(f"--plugin={plugin}={tools / plugin}")
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *args, *sources], check=True)


def undocumented() -> list[str]:
    """Fields, values, messages and rpcs without a comment right above them."""
    declaration = re.compile(r"^\s*(?:(?:repeated|optional) )?[\w.]+ \w+ = \d+;|^\s*\w+ = \d+;")
    opening = re.compile(r"^\s*(message|enum|service|rpc|oneof) ")
    missing = []
    for path in contracts():
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            if (declaration.match(line) or opening.match(line)) and "//" not in lines[number - 2]:
                missing.append(f"{path.relative_to(ROOT)}:{number}: say what it is: {line.strip()}")
    return missing


def stale(fresh: pathlib.Path) -> list[str]:
    """Paths of generated files that differ from the committed ones."""
    found = []
    for package in PACKAGES:
        names = {p.name for at in (fresh, ROOT) for p in (at / package).glob("*_pb2*")}
        _, differ, absent = filecmp.cmpfiles(
            fresh / package, ROOT / package, sorted(names), shallow=False
        )
        found += [str(package / name) for name in sorted(differ + absent)]
    return found


def main() -> int:
    """Exit 0 when all is written or fresh, 1 when something is stale or undocumented."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check: bool = parser.parse_args().check
    problems = undocumented()
    if not check:
        generate(ROOT)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            generate(pathlib.Path(scratch))
            names = stale(pathlib.Path(scratch))
            problems += [f"{name}: stale, run ./run proto" for name in names]
    print("\n".join(problems) or "contracts: fresh and documented")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
