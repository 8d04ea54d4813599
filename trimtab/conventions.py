"""The names of OpenTelemetry's semantic conventions, all that we use, and our own beside them.

Rules: nobody else spells one, because those of GenAI still change: they are as in
open-telemetry/semantic-conventions-genai of November 2026 (status: Development). HTTP's and the
resource's are stable. What the conventions have no word for is `trimtab.*`. There is no name for
prompts or answers here, and there will be none.
"""

from __future__ import annotations

# Resource
SERVICE_NAME = "service.name"
SERVICE_INSTANCE = "service.instance.id"
SERVICE_VERSION = "service.version"

# HTTP, of both kinds of spans
METHOD = "http.request.method"
ROUTE = "http.route"
STATUS = "http.response.status_code"
RESEND_COUNT = "http.request.resend_count"
ERROR_TYPE = "error.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

# GenAI
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"  # seconds

VLLM = "vllm"
"""The provider of what our engines answer."""
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/embeddings": "embeddings",
}
"""Of the paths whose operation has a well-known name; others have the path's last word."""

# Ours
REQUEST_ID = "trimtab.request_id"
CALLER_ID = "trimtab.caller_id"
POOL = "trimtab.pool"
TENANT = "trimtab.tenant"
CLASS = "trimtab.class"
OUTCOME = "trimtab.outcome"
REPLICA = "trimtab.replica"
ATTEMPT = "trimtab.attempt"
WHY = "trimtab.attempt.why"
AT_HOME = "trimtab.attempt.at_home"
CONTINUED_AT = "trimtab.attempt.continued_at_tokens"
NOT_CONTINUED = "trimtab.not_continued"
PREDICTED_WAIT = "trimtab.queue.predicted_wait_seconds"
FIRST_DATA = "trimtab.first_data"  # an event


def operation(path: str) -> str:
    """What a path does, in the conventions' words."""
    return OPERATIONS.get(path) or path.rpartition("/")[2]
