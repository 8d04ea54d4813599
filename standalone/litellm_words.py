"""What becomes of LiteLLM's settings that have no place in our file: a sentence for each.

Rules: the first pattern that fits counts; where people may have relied on a thing that there is not
here it begins with "not here". What no pattern knows is never passed over in silence.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

_COOLDOWN = (
    "dropped: nothing is cooled down for being busy; a replica that does no useful work is seen by "
    "its own counters, and comes back by a ramp (docs/steering.md)"
)
_RETRIES = (
    "dropped: a retry is made before the first data only, a tenth of all requests at most; what is "
    "refused for overload waits in the queue in place of being tried again"
)
_QUEUE = "dropped: one fair queue a pool, edge.queue_limit and edge.queue_wait_s are its bounds"
_SHARED = "dropped: edges get the fleet's state from the control plane; answers are not cached"
_SPEND = "not here: no spend, budgets or prices"
_LIMITS = "not here: no limits by rate; who relies on them keeps LiteLLM in front"
_SLOTS = "dropped: an engine gets what it can run, its --max-num-seqs (engines[].max_num_seqs)"
_DATABASE = "dropped: there is no database; --keys brings the keys that are in LiteLLM's"
_LOGS = "dropped: /metrics, /decisions and the logs tell what was done"
_HEALTH = "dropped: agents watch the engines' counters, no request is spent on it"
_ELSEWHERE = "not here: a fallback is one API outside for a pool (pools[].fallback)"
_DEFAULTS = (
    "not here: LiteLLM put it into each request; bodies pass as they are: set it in the clients, "
    "or for all by vLLM's --override-generation-config"
)
_UNKNOWN = "unknown to this import, and not carried over: look whether you need it"
_PATTERNS: Mapping[str, Mapping[str, str]] = {
    "router_settings": {
        "routing_strategy*": "dropped: the free replica with the least work for its size is picked",
        "cooldown_time allowed_fails* disable_cooldowns *health_check*": _COOLDOWN,
        "num_retries *retry_policy retry_after max_fallbacks": _RETRIES,
        "enable_priority_queue polling_interval default_priority": _QUEUE,
        "redis_* cache* caching_groups client_ttl": _SHARED,
        "default_max_parallel_requests": _SLOTS,
        "enable_pre_call_checks optional_pre_call_checks": (
            "dropped: an engine says itself what is too long; prefixes find their replica again"
        ),
        "*fallbacks": _ELSEWHERE,
        "*tag*": "not here: no routing by tags",
        "*budget*": _SPEND,
        "set_verbose debug_level": _LOGS,
    },
    "litellm_settings": {
        "num_retries num_retries_per_request": _RETRIES,
        "allowed_fails* cooldown_time": _COOLDOWN,
        "*cache* enable_redis*": _SHARED,
        "drop_params modify_params": (
            "dropped: bodies pass as they are, and vLLM passes over fields that it does not know"
        ),
        "max_parallel_requests": _SLOTS,
        "*fallbacks": _ELSEWHERE,
        "*budget* *cost* *spend*": _SPEND,
        "*callback* *log* *verbose turn_off_message_logging": _LOGS,
        "*guardrail* mcp*": "not here: no guardrails and no MCP; keep LiteLLM in front for them",
    },
    "general_settings": {
        "database_* store_* use_redis* proxy_batch* disable_*": _DATABASE,
        "max_in_flight_requests_per_worker *max_parallel_requests": _SLOTS,
        "max_queued_requests_per_worker admission_queue_timeout_seconds": _QUEUE,
        "cancel_on_disconnect": "dropped: a caller who leaves frees his slot at once, always",
        "*health_check*": _HEALTH,
        "alerting* alert_*": "dropped: alerts are Prometheus's, over /metrics",
        "*jwt* custom_auth custom_sso ui_* *sso*": "not here: keys alone, no logins and no UI",
        "pass_through_endpoints": "not here: see edge.extra_paths for more of vLLM's own paths",
        "*budget* *spend*": _SPEND,
    },
    "litellm_params": {
        "rpm tpm itpm otpm default_api_key_*": _LIMITS,
        "max_parallel_requests": _SLOTS,
        "weight order": "not here: no weights and tiers in the file; load decides (ctl weights)",
        "*tag*": "not here: no routing by tags",
        "*cost* *budget*": _SPEND,
        "max_retries": _RETRIES,
        "drop_params additional_drop_params": "dropped: vLLM passes over what it does not know",
        "custom_llm_provider model_info": "",
        "*": _DEFAULTS,
    },
    "model_info": {
        "*cost*": _SPEND,
        "id mode base_model max_*tokens supports_* *description": "",
    },
    "": {
        "environment_variables": "dropped: give them to the service that starts Trimtab",
        "include": "not followed: import each of these files, and put the results together",
        "guardrails mcp_* *_tools prompts": (
            "not here: no guardrails, tools, prompts and no MCP; keep LiteLLM in front for them"
        ),
    },
}


def verdict(section: str, name: str) -> str:
    """The sentence for a setting; empty when nothing is lost with it."""
    for patterns, words in _PATTERNS.get(section, {}).items():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns.split()):
            return words
    return _UNKNOWN
