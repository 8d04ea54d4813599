"""What an engine was told when it was started: flags and a few settings of its environment.

Rules: vLLM takes underscores for hyphens, and of a flag that is given twice the last one; what is
not a number is as good as not given. No value of a key is kept, only that there is one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from trimtab.facts import EngineSetup

DEV_MODE = "VLLM_SERVER_DEV_MODE"
KEEP_ALIVE = "VLLM_HTTP_TIMEOUT_KEEP_ALIVE"
API_KEY = "VLLM_API_KEY"
SETTINGS = (DEV_MODE, KEEP_ALIVE, API_KEY)
TEXT_LIMIT_CHARS = 64
NUMBER_LIMIT = 1_000_000
_OFF = frozenset({"", "0", "false"})


def read(
    replica: str, lines: Iterable[Sequence[str]], environment: Mapping[str, str] | None
) -> EngineSetup:
    """The setup; `environment` None is one that can't be read."""
    words = [word for line in lines for word in line]
    given = environment or {}
    keys = value(words, "--api-key") or given.get(API_KEY)
    batch = _number(value(words, "--max-num-seqs"))
    return EngineSetup(
        replica=replica,
        seen=True,
        has_flags=bool(words),
        shutdown_timeout_s=_number(value(words, "--shutdown-timeout")),
        max_num_seqs=int(batch) if batch else None,
        scheduling_policy=value(words, "--scheduling-policy")[:TEXT_LIMIT_CHARS],
        has_api_key=bool(keys),
        dev_mode=None if environment is None else given.get(DEV_MODE, "").lower() not in _OFF,
        keep_alive_s=_number(given.get(KEEP_ALIVE, "")),
    )


def value(line: Sequence[str], name: str) -> str:
    """What follows --name or --name=; empty when it is not given."""
    found = ""
    for word, following in itertools.pairwise([*line, ""]):
        option, equals, text = word.partition("=")
        if option.replace("_", "-") == name:
            found = text if equals else following
    return found


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number <= NUMBER_LIMIT else None
