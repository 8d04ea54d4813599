"""Every answer of the edge's own that is not a success, in OpenAI's shape (others: envelopes).

Rules: the code is a string of OpenAI's where one exists; a message says what, whose fault, and what
to do; `retry-after-ms` and `retry-after` say when to come back (core/headers spreads it),
`x-should-retry: false` when coming back can't help. Contract: docs/errors.md.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import msgspec

from edge.core import base_url, encodings, headers
from trimtab.policy.classify import Failure, Fault
from trimtab.policy.deadline import Deadline
from trimtab.policy.poison import Incident, Way
from trimtab.policy.queue import PATIENCE_RATIO, Refusal

INVALID = "invalid_request_error"
UNAVAILABLE = "service_unavailable_error"
SERVER = "server_error"
IN_USE_S = 2.0
PROBE_S = 5.0  # how soon a closed pool may look different
FULL_S = 1.0  # how soon a slot may be free
AGAIN_S = 0.5  # another replica may do better at once
CONTEXT_EXCEEDED = "context_length_exceeded"
UNROUTED = b'{"detail":"Not Found"}'  # what vLLM says of a path that its model does not serve


@dataclass(frozen=True, slots=True)
class Problem:
    """One refusal or failure. `retry` None says nothing about coming back."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    retry: bool | None = None
    reason: str = ""
    """Why it was shed, if it was: EDGE_SHED in trimtab/catalogue.py."""

    def fields(self) -> dict[str, object]:
        """What a client can read of it."""
        return {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }

    def body(self) -> bytes:
        """The JSON envelope."""
        return msgspec.json.encode({"error": self.fields()})

    def event(self) -> bytes:
        """The same inside a stream."""
        return b"data: " + self.body() + b"\n\n"

    def headers(self, request_id: str) -> dict[str, str]:
        """What tells an SDK when to come back."""
        said = {"content-type": "application/json"}
        if self.retry_after_s is not None:
            wait_s = headers.retry_after_s(self.retry_after_s, request_id)
            said["retry-after-ms"] = str(int(1000 * wait_s))
            said["retry-after"] = str(math.ceil(wait_s))
        if self.retry is not None:
            said["x-should-retry"] = "true" if self.retry else "false"
        if self.status == 401:
            said["www-authenticate"] = "Bearer"
        if self.status == 415:
            said["accept-encoding"] = ", ".join(encodings.KNOWN)
        return said


def no_key() -> Problem:
    """No credentials at all."""
    text = "No API key. Send it as 'Authorization: Bearer <key>' or 'x-api-key: <key>'."
    return Problem(401, INVALID, "invalid_api_key", text, retry=False)


def bad_key(key: str) -> Problem:
    """Credentials that nobody knows; shows enough to recognise the key, never the key."""
    text = f"Unknown API key ({_shown(key)}). Check it, or ask whoever runs this fleet for one."
    return Problem(401, INVALID, "invalid_api_key", text, retry=False)


def expired_key(key: str, when: str) -> Problem:
    """Credentials that were good once."""
    text = f"This API key ({_shown(key)}) expired at {when}. "
    text += "Ask whoever runs this fleet for a new one."
    return Problem(401, INVALID, "expired_api_key", text, retry=False)


def _shown(key: str) -> str:
    return f"{key[:3]}…{key[-4:]}" if len(key) >= 16 else "…"


def bad_json(detail: str) -> Problem:
    """A body that is no JSON object."""
    text = f"The request body is not a valid JSON object: {detail}."
    return Problem(400, INVALID, "invalid_json", text, retry=False)


def bad_content_type(given: str) -> Problem:
    """A body of another kind."""
    text = f"Content-Type must be application/json, not {given[:80]!r}."
    return Problem(400, INVALID, "invalid_json", text, retry=False)


def bad_form(detail: str) -> Problem:
    """A form that can't be read."""
    text = f"The request body is not a valid multipart form: {detail}."
    return Problem(400, INVALID, "invalid_form", text, retry=False)


def not_a_websocket() -> Problem:
    """A path that is one, asked for as if it were none."""
    text = "This path is a WebSocket: ask for it with 'Upgrade: websocket'."
    return Problem(426, INVALID, "upgrade_required", text, retry=False)


def session_without_model() -> Problem:
    """Nobody can know where it should go."""
    text = "Name the model in the URL (?model=…), or in a session.update before anything else."
    return Problem(400, INVALID, "missing_required_parameter", text, param="model", retry=False)


def other_model(model: str) -> Problem:
    """A session is about one model."""
    text = f"This session is about another model than {model[:200]!r}: open a new one for that."
    return Problem(400, INVALID, "invalid_value", text, param="model", retry=False)


def session_over() -> Problem:
    """It was silent, or open, for too long."""
    text = "The session was silent or open for too long; open a new one."
    return Problem(408, INVALID, "session_expired", text, retry=False)


def too_large(limit_bytes: int) -> Problem:
    """A body over the limit."""
    text = f"The request body is larger than {limit_bytes} bytes, this fleet's limit."
    return Problem(413, INVALID, "request_too_large", text, retry=False)


def bomb(ratio: int) -> Problem:
    """A compressed body that is mostly air."""
    text = (
        f"The request body grows to more than {ratio} times its compressed size. "
        "Send it without content-encoding."
    )
    return Problem(413, INVALID, "request_too_large", text, retry=False)


def bad_encoding(given: str) -> Problem:
    """A body compressed in a way that is not known here."""
    known = " and ".join(encodings.KNOWN)
    text = f"Content-Encoding {given[:80]!r} is not known here; {known} are, or none."
    return Problem(415, INVALID, "unsupported_content_encoding", text, retry=False)


def bad_expectation(given: str) -> Problem:
    """An Expect header that asks for something else."""
    text = f"Expect {given[:80]!r} can't be met; only 100-continue can."
    return Problem(417, INVALID, "bad_request", text, retry=False)


def bad_body(what: str) -> Problem:
    """A body that ends in the middle, in one of its layers."""
    return Problem(400, INVALID, "bad_request", f"The request body {what}.", retry=False)


def head_too_large(limit_bytes: int) -> Problem:
    """Headers over a limit."""
    text = (
        f"The request's headers are larger than {limit_bytes // 1024} KiB, "
        "the limit for one is 32 KiB, for all 64 KiB."
    )
    return Problem(431, INVALID, "request_headers_too_large", text, retry=False)


def too_many_headers(limit: int) -> Problem:
    """More headers than anybody needs."""
    text = f"The request has more than {limit} headers."
    return Problem(431, INVALID, "request_headers_too_large", text, retry=False)


def url_too_long(limit_bytes: int) -> Problem:
    """A URL over the limit."""
    text = f"The request's URL is longer than {limit_bytes // 1024} KiB, the limit."
    return Problem(414, INVALID, "url_too_long", text, retry=False)


def too_slow(what: str, limit_s: float) -> Problem:
    """A caller that sends its request a bit at a time."""
    text = f"The {what} did not come within {limit_s:.0f} s."
    return Problem(408, INVALID, "request_timeout", text)


def unknown_model(model: str, known: Iterable[str]) -> Problem:
    """No such pool."""
    names = sorted(known)
    close = difflib.get_close_matches(model, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(names[:20]) or "none yet"
    text = f"The model {model[:200]!r} does not exist.{hint} Models served: {listed}."
    return Problem(404, INVALID, "model_not_found", text, param="model", retry=False)


def model_required(known: Iterable[str]) -> Problem:
    """No model named, and more than one to choose from."""
    text = f"'model' is required and must be a string. Models served: {', '.join(sorted(known))}."
    return Problem(400, INVALID, "missing_required_parameter", text, param="model", retry=False)


def answer_too_long(asked_tokens: int, longest_tokens: int) -> Problem:
    """No replica has a context for such an answer."""
    text = (  # in OpenAI's words, which clients look for
        f"This model's maximum context length is {longest_tokens} tokens, for prompt and answer "
        f"together. However, you requested {asked_tokens} output tokens alone. Ask for fewer."
    )
    return Problem(400, INVALID, CONTEXT_EXCEEDED, text, param="max_tokens", retry=False)


def named(verdict: bytes) -> bytes:
    """An engine's verdict as it is, but a prompt too long under the code that clients look for."""
    if b"maximum context length" not in verdict:
        return verdict
    try:
        fields = msgspec.json.decode(verdict, type=dict[str, dict[str, msgspec.Raw]])
        fields["error"]["code"] = msgspec.Raw(msgspec.json.encode(CONTEXT_EXCEEDED))
    except (msgspec.DecodeError, KeyError):
        return verdict
    return msgspec.json.encode(fields)


def unknown_path(method: str, path: str, served: Iterable[str]) -> Problem:
    """Not served here."""
    served = list(served)
    hint = base_url.hint(path, served)
    text = f"{method} {path[:200]} is not served by this fleet.{hint} Served: {', '.join(served)}."
    return Problem(404, INVALID, "unknown_url", text, retry=False)


def not_by_the_model(model: str, path: str) -> Problem:
    """Served here, but not by this model's engines: vLLM serves what a model is made for."""
    text = f"The model {model[:200]!r} does not serve {path}: it is made for something else."
    return Problem(404, INVALID, "unknown_url", text, retry=False)


def wrong_method(method: str, path: str, allowed: str) -> Problem:
    """Served, but not so."""
    text = f"{path} takes {allowed}, not {method}."
    return Problem(405, INVALID, "method_not_allowed", text, retry=False)


def bad_request(detail: str) -> Problem:
    """Not even HTTP."""
    text = f"The request could not be read: {detail[:200].rstrip('.')}."
    return Problem(400, INVALID, "bad_request", text, retry=False)


def key_reused() -> Problem:
    """One Idempotency-Key for two requests."""
    text = "This Idempotency-Key stands for another request of the last minutes. Use a new one."
    return Problem(422, INVALID, "idempotency_key_reused", text, retry=False)


def key_in_use(waited_s: float) -> Problem:
    """The first request of this Idempotency-Key still runs."""
    text = (
        f"The first request with this Idempotency-Key still runs (waited {waited_s:g} s for it). "
        "Come back for its answer."
    )
    return Problem(409, INVALID, "idempotency_key_in_use", text, None, IN_USE_S, retry=True)


def overloaded(refusal: Refusal, patience_s: float = math.inf) -> Problem:
    """No room in time; `patience_s` is how long its caller would wait."""
    wait = f", about {refusal.wait_s:.0f} s of work" if refusal.wait_s else ""
    if refusal.wait_s > PATIENCE_RATIO * patience_s:
        wait += f", too long for your time limit of {patience_s:g} s"
    text = (
        f"The fleet is full: {refusal.queued} requests wait{wait}. "
        f"Nothing is wrong with your request; come back in {refusal.retry_after_s:.1f} s."
    )
    parts = (503, UNAVAILABLE, "server_is_overloaded", text, None, refusal.retry_after_s)
    return Problem(*parts, reason=refusal.reason)


def nowhere(refusal: Problem, what: str) -> Problem:
    """The fleet's refusal stands: its external fallback does not help."""
    return replace(refusal, message=f"{refusal.message} The external fallback {what}.")


def fallback_broke() -> Problem:
    """What the external fallback had begun is not whole."""
    text = "The external fallback broke off in the middle of the answer; what you have is "
    return Problem(502, SERVER, "fallback_broke", f"{text}incomplete.", None, 0.5)


def unknown_response(response_id: str) -> Problem:
    """An answer that no replica here has made for this caller."""
    text = (
        f"Response with id {response_id[:128]!r} not found: the replica that made it keeps it, "
        "and its id names none that is here and made it for you."
    )
    return Problem(404, INVALID, "response_not_found", text, param="response_id", retry=False)


def replica_away(response_id: str) -> Problem:
    """The one replica that could serve it can't."""
    text = (
        f"The replica that made response {response_id[:128]!r} can't take requests now; "
        f"come back in {PROBE_S:.0f} s, or go on without its id."
    )
    return Problem(503, UNAVAILABLE, "no_replica_available", text, None, PROBE_S)


def no_replica(model: str, total: int) -> Problem:
    """Nothing to send to."""
    text = (
        f"None of the {total} replicas of {model!r} can take requests now. "
        f"Nothing is wrong with your request; come back in {PROBE_S:.0f} s."
    )
    parts = (503, UNAVAILABLE, "no_replica_available", text, None, PROBE_S)
    return Problem(*parts, reason="no_replica")


def quarantined(incident: Incident) -> Problem:
    """The very same request broke replicas a moment ago."""
    what = "died" if incident.way is Way.DIED else "failed"
    text = (
        f"{len(incident.replicas)} replicas {what} on this very request, so it is not run again "
        f"for {math.ceil(incident.left_s)} s (incident {incident.name}). Change the request, or "
        "tell whoever runs this fleet; your other requests are served."
    )
    parts = (422, INVALID, "request_quarantined", text, None, incident.left_s, False)
    return Problem(*parts, reason="poison")


def not_ready() -> Problem:
    """This edge has never heard from a control plane."""
    text = "This endpoint has just started and does not know the fleet yet."
    return Problem(503, UNAVAILABLE, "no_replica_available", text, None, 1.0)


def internal() -> Problem:
    """A bug of ours."""
    text = "The endpoint failed on this request; this is its own fault, not yours."
    return Problem(500, SERVER, "internal_error", text)


def too_late(deadline: Deadline, *, started: bool) -> Problem:
    """Its time is up; trying again would take as long, so nobody should by itself."""
    have = "; what you have is incomplete" if started else ""
    text = f"The answer was not whole within {deadline.allows_s:g} s, which is all that "
    text += f"{deadline.whose} (total timeout){have}."
    return Problem(504, SERVER, "upstream_timeout", text, retry=False)


def attempt_failed(failure: Failure, attempts: int, *, started: bool) -> Problem:
    """The replica's doing, after all tries; `started`: the caller saw part of the answer."""
    tries = f"{attempts} attempt{'s' if attempts > 1 else ''}"
    if failure.fault is Fault.SILENT:
        limit = f"{failure.message}, the idle timeout" if failure.message else "too long"
        text = f"The replica sent nothing for {limit} ({tries})."
        return Problem(504, SERVER, "upstream_timeout", text, retry=False if started else None)
    if failure.fault is Fault.STATUS and failure.status in {429, 503}:
        text = f"Every replica was full ({tries})."
        parts = (503, UNAVAILABLE, "server_is_overloaded", text, None, FULL_S)
        return Problem(*parts, reason="engines_full")
    if failure.fault is Fault.STATUS and 400 <= failure.status < 500:
        return Problem(failure.status, INVALID, "bad_request", failure.message, retry=False)
    if failure.fault is Fault.STATUS and not started:
        said = f": {failure.message[:500]}" if failure.message else "."
        text = f"The replica failed on this request ({tries}){said}"
        return Problem(502, SERVER, "replica_error", text, None, AGAIN_S)
    part = " in the middle of the answer; what you have is incomplete" if started else ""
    text = f"The replica was lost{part} ({tries}: {failure.fault.name.lower()})."
    return Problem(502, SERVER, "replica_lost", text, None, AGAIN_S)
