"""vLLM's answers, field by field and in its order: bodies, stream events, errors.

Rules: pure; normal JSON is compact, an error event inside a stream is `json.dumps` style, with
spaces; a stream ends with [DONE], also after an error.
"""

import json
from typing import Any

import msgspec

from sim.openai_request import ApiError, Call

DONE = b"data: [DONE]\n\n"


def error_event(error: ApiError) -> bytes:
    """An error inside a stream."""
    return b"data: " + json.dumps(error.body).encode() + b"\n\n"


class Writer:
    """Writes the answers to one call: everything they share is bound here once."""

    def __init__(
        self, call: Call, *, answer_id: str, model: str, created: int, fingerprint: str
    ) -> None:
        self._chat = call.chat
        self._usage_follows = call.include_usage
        self._fingerprint = fingerprint
        self._head = {"id": answer_id, "object": "", "created": created, "model": model}

    def body(self, choices: list[dict[str, Any]], usage: dict[str, Any]) -> bytes:
        """A whole answer."""
        details = {"prompt_tokens_details": None, "completion_tokens_details": None}
        body = self._head | {
            "object": "chat.completion" if self._chat else "text_completion",
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": self._fingerprint,
            "usage": usage | details,
        }
        if self._chat:
            body |= {"prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None}
        body |= {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}
        return msgspec.json.encode(body)

    def choice(self, index: int, text: str, reason: str | None, stop: str | None) -> dict[str, Any]:
        """One choice of a whole answer."""
        ending = {"logprobs": None, "finish_reason": reason, "stop_reason": stop, "token_ids": None}
        if self._chat:
            message = {"role": "assistant", "content": text, "refusal": None, "annotations": None}
            message |= {"audio": None, "function_call": None, "reasoning": None}
            return {"index": index, "message": message} | ending | {"routed_experts": None}
        prompt = {"prompt_logprobs": None, "prompt_token_ids": None, "routed_experts": None}
        return {"index": index, "text": text} | ending | prompt

    def role_event(self, index: int, usage: dict[str, Any] | None) -> bytes:
        """The first event of a chat choice; it comes with the first token."""
        choice = {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        tail = {"prompt_token_ids": None, "prompt_text": None}
        return self._event([choice], self._with_details(usage) | tail)

    def text_event(
        self,
        index: int,
        text: str,
        reason: str | None,
        stop: str | None,
        usage: dict[str, Any] | None,
    ) -> bytes:
        """Some text of a choice. The last signs, unless a usage event follows and does."""
        choice: dict[str, Any] = {"index": index}
        choice |= {"delta": {"content": text}} if self._chat else {"text": text}
        choice |= {"logprobs": None, "finish_reason": reason}
        if reason is not None or not self._chat:
            choice["stop_reason"] = stop
        if not self._chat:
            choice["prompt_token_ids"] = None
        choice["token_ids"] = None
        tail = self._with_details(usage)
        if reason is not None and not self._usage_follows:
            tail["system_fingerprint"] = self._fingerprint
        return self._event([choice], tail)

    def usage_event(self, usage: dict[str, Any]) -> bytes:
        """The last event where include_usage was asked for."""
        return self._event([], {"usage": usage, "system_fingerprint": self._fingerprint})

    def _event(self, choices: list[dict[str, Any]], tail: dict[str, Any]) -> bytes:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        event = self._head | {"object": kind, "choices": choices} | tail
        return b"data: " + msgspec.json.encode(event) + b"\n\n"

    @staticmethod
    def _with_details(usage: dict[str, Any] | None) -> dict[str, Any]:
        return {} if usage is None else {"usage": usage | {"completion_tokens_details": None}}


def usage_of(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    """The three counts every client reads."""
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


def model_list(
    models: list[str], root: str, adapters: dict[str, str], created: int, max_model_len: int
) -> dict[str, Any]:
    """The body of /v1/models: all names of the model, then its LoRA adapters."""
    cards = [_card(name, root, None, created, max_model_len) for name in models]
    cards += [_card(name, path, models[0], created, None) for name, path in adapters.items()]
    return {"object": "list", "data": cards}


def _card(
    name: str, root: str, parent: str | None, created: int, max_model_len: int | None
) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": max_model_len,
        "permission": [_permission(name, created)],
    }


def _permission(model: str, created: int) -> dict[str, Any]:
    return {
        "id": f"modelperm-{model.encode().hex():0>16.16}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
