"""Each test here is told by every SDK; one that can't be had is named when the tests are over."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.sdks import node
from tests.e2e.sdks.speakers import AnthropicPython, OpenAINode, OpenAIPython, Speaker

_missing: set[str] = set()


@pytest.fixture(scope="module")
def node_process() -> Iterator[subprocess.Popen[str]]:
    """One for a module: a start takes as long as ten questions."""
    try:
        with node.running() as process:
            yield process
    except node.NoNodeError as error:
        _missing.add(str(error))
        pytest.skip(f"openai for Node can't be had here: {error}")


@pytest.fixture(params=["openai-python", "openai-node", "anthropic-python"])
def speaker(request: pytest.FixtureRequest) -> Speaker:
    """An official SDK."""
    if request.param == "openai-node":
        return OpenAINode(request.getfixturevalue("node_process"))
    return OpenAIPython() if request.param == "openai-python" else AnthropicPython()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A skip alone is easily overlooked."""
    for why in _missing:
        terminalreporter.section("NOT TESTED with openai for Node")
        terminalreporter.line(why)
