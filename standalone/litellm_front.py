"""LiteLLM's own file for the trial with the least risk: it stays in front, with us behind it.

Rule: each pool is one deployment, so that there is nothing to cool down in favour of something
else; what is not about our pools stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from trimtab.runtime import config as file
from trimtab.runtime import shapes
from trimtab.runtime.service import ConfigError

KEY = "os.environ/TRIMTAB_KEY"
# What LiteLLM would do a second time, or against us.
_OURS = {
    "allowed_fails",
    "allowed_fails_policy",
    "cooldown_time",
    "max_parallel_requests",
    "num_retries",
    "retry_after",
    "retry_policy",
    "routing_strategy",
}


def trimmed(found: Mapping[str, Any], pools: Sequence[file.Pool], url: str) -> str:
    """The file; raises ConfigError when `url` is none."""
    base = url.rstrip("/").removesuffix("/v1")
    if problem := shapes.url_problem(base):
        raise ConfigError(f"--in-front {problem}")
    names = {name for pool in pools for name in (pool.name, *pool.aliases)}
    made = dict(found)
    made["model_list"] = [
        *(
            {"model_name": name, "litellm_params": _deployment(name, base)}
            for name in sorted(names)
        ),
        *(entry for entry in found["model_list"] if entry.get("model_name") not in names),
    ]
    for section in ("router_settings", "litellm_settings"):
        settings = found.get(section) or {}
        made[section] = {name: value for name, value in settings.items() if name not in _OURS}
    made["litellm_settings"]["num_retries"] = 0  # the edge has tried already
    text: str = yaml.safe_dump(made, sort_keys=False, allow_unicode=True)
    return text


def _deployment(name: str, base: str) -> dict[str, str]:
    return {"model": f"openai/{name}", "api_base": f"{base}/v1", "api_key": KEY}
