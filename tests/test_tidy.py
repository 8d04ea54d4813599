"""House style as a test: sizes, rooms, names. A violation names the file, the rule and the way out.

Rules are about the whole tree, committed or not, so that a mistake shows before it is committed.
"""

from __future__ import annotations

import ast
import os
import pathlib
import re
import tomllib
from collections.abc import Iterator
from functools import cache

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
GENERATED = ("trimtab/v1/", "controlplane/store/etcdpb/", "controlplane/keda/")
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
MAIN_LINES_MAX = 150
# A clone has none of these; a developer's tree may.
SKIPPED_DIRS = re.compile(r"\.(?!ci$)|__pycache__$|dist$|build$|.*\.egg-info$")

# Pure modules and where their own tests are; a module may have no test only with a reason here.
PURE_ROOMS = {
    "trimtab/policy": ("tests/unit/policy",),
    "agent/core": ("tests/unit/agent", "tests/unit/agent/core"),
    "controlplane/core": ("tests/unit/controlplane", "tests/unit/controlplane/core"),
    "edge/core": ("tests/unit/edge", "tests/unit/edge/core"),
}
UNTESTED = {
    "trimtab/policy/dice.py": "a Protocol, it does nothing",
    "controlplane/core/events.py": "values, they do nothing",
}

# Where this was written is nobody's business; spelled so that this file does not match itself. The
# home in a container of vLLM's is no such place.
PRIVATE = re.compile(
    r"(?<![\w.])/[w]ork/|(?<![\w.])/[r]oot/(?!\.cache/tiktoken)|\bshared/[rdv](?:eference|esign|llm)\b"
    r"|\b(?:[p]eers|[u]sers)\.md\b|\b[h]elper [A-Z]\b|\b[p]ypi\.org\b|\b[p]ythonhosted\b"
)
UNFINISHED = re.compile(r"\b(?:[T]ODO|[F]IXME|[X]XX)\b(?!\(#\d+\))")


@cache
def files() -> tuple[str, ...]:
    """Every file of the project, relative to its root."""
    found = []
    for where, folders, names in os.walk(ROOT):
        folders[:] = sorted(name for name in folders if not SKIPPED_DIRS.match(name))
        found += [os.path.relpath(os.path.join(where, name), ROOT) for name in sorted(names)]
    return tuple(found)


def written() -> Iterator[tuple[str, str]]:
    """Python files that people write, with their text."""
    for path in files():
        if path.endswith(".py") and not path.startswith(GENERATED):
            yield path, (ROOT / path).read_text()


def texts() -> Iterator[tuple[str, str]]:
    """Every file that is text."""
    for path in files():
        if path.startswith(GENERATED):
            continue
        try:
            yield path, (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def matches(pattern: re.Pattern[str]) -> list[str]:
    """Lines that match, as file:line: text."""
    return [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_files_are_short() -> None:
    limits = [
        (
            path,
            len(text.splitlines()),
            MAIN_LINES_MAX if path.endswith("/main.py") else FILE_LINES_MAX,
        )
        for path, text in written()
    ]
    assert [f"{p}: {n} lines, at most {limit}" for p, n, limit in limits if n > limit] == []


def test_functions_are_short() -> None:
    long = []
    for path, text in written():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long.append(f"{path}:{node.lineno}: {node.name} has {lines} lines")
    assert long == []


def test_packages_begin_empty() -> None:
    inits = [path for path in files() if path.endswith("__init__.py")]
    assert [path for path in inits if path.startswith("proto/")] == []
    hand_made = [path for path in inits if not path.startswith(GENERATED)]
    hand_made.remove("trimtab/__init__.py")  # says why it is not
    assert [path for path in hand_made if (ROOT / path).read_text().strip()] == []


@pytest.mark.parametrize("room", PURE_ROOMS)
def test_every_decision_has_its_own_tests(room: str) -> None:
    modules = [path for path in files() if re.fullmatch(rf"{room}/(?!__)\w+\.py", path)]
    assert modules
    missing = []
    for module in modules:
        name = f"test_{pathlib.Path(module).name}"
        if module not in UNTESTED and not any(f"{at}/{name}" in files() for at in PURE_ROOMS[room]):
            missing.append(f"{module}: wants {PURE_ROOMS[room][0]}/{name}")
    assert missing == []


def test_exceptions_still_exist() -> None:
    assert [path for path in UNTESTED if path not in files()] == []


def test_what_is_unfinished_names_its_issue() -> None:
    assert matches(UNFINISHED) == []


def test_the_project_stands_alone() -> None:
    assert matches(PRIVATE) == []


def test_the_readmes_two_commands_exist() -> None:
    readme, run = (ROOT / "README.md").read_text(), (ROOT / "run").read_text()
    for command in ("up", "test"):
        assert f"./run {command}" in readme
        assert re.search(rf"^\s*(?:[\w-]+ ?\| ?)*{command}(?: ?\| ?[\w-]+)*\)", run, re.MULTILINE)


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in wanted}
    decision = (ROOT / "docs/decisions/0001-dependencies.md").read_text()
    told = set(re.findall(r"^\| `([\w.-]+)` \|", decision, re.MULTILINE))
    assert sorted(names - told) == []


@pytest.mark.parametrize(
    ("pattern", "words", "bites"),
    [
        (PRIVATE, "see /" + "work/x", True),
        (PRIVATE, "a framework/x and rework/y", False),
        (PRIVATE, "http://h/" + "work/x", False),
        (UNFINISHED, "# TO" + "DO: later", True),
        (UNFINISHED, "# TO" + "DO(#12): later", False),
    ],
)
def test_patterns_bite(pattern: re.Pattern[str], words: str, bites: bool) -> None:
    assert bool(pattern.search(words)) is bites
