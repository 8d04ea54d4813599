"""vLLM's other faces on the simulated engine: Responses, Anthropic's Messages, pooling.

Rules: each is a chat or a completion in other words, as in vLLM; names and order of fields are
those of its source (0.32). What it does not say well is kept: a failed Messages stream quotes the
error that it could not read, a failed Responses stream just ends, and `response.created` comes at
once.
Not here: background responses, tools, reasoning.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import web

from sim.driver import Driver, Live
from sim.openai_request import ApiError, Call, check_model, parse_call, parse_object, render_chat
from sim.text import tokenize
from trimtab.runtime.clock import wall_s

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}
_SAMPLING = ("temperature", "top_p", "top_k", "stream", "ignore_eos", "min_tokens")

_NOT_HERE = ("kv_transfer_params", "ec_transfer_params", "input_messages", "output_messages")
_READ = {"cached_tokens": 0, "cache_write_tokens": 0, "input_tokens_per_turn": []}
_READ |= {"cached_tokens_per_turn": []}
_MADE = {"reasoning_tokens": 0, "tool_output_tokens": 0, "output_tokens_per_turn": []}
_MADE |= {"tool_output_tokens_per_turn": []}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class DialectApi:
    """The handlers; `admit` is the engine's first check of a call."""

    driver: Driver
    models: list[str]
    admit: Callable[[Call], None]
    keeps_responses: bool = False
    _responses: dict[str, dict[str, Any]] = field(default_factory=dict)

    def routes(self) -> list[tuple[str, str, Handler]]:
        """What it serves."""
        pooling = {"/v1/embeddings": self._embed, "/pooling": self._embed}
        pooling |= dict.fromkeys(("/v1/score", "/score", "/classify"), self._score)
        pooling |= dict.fromkeys(("/v1/rerank", "/rerank", "/v2/rerank"), self._rerank)
        return [
            ("POST", "/v1/messages", self._messages),
            ("POST", "/v1/messages/count_tokens", self._count_tokens),
            ("POST", "/v1/responses", self._respond),
            ("GET", "/v1/responses/{id}", self._retrieve),
            ("POST", "/v1/responses/{id}/cancel", self._cancel),
            *(("POST", path, handler) for path, handler in pooling.items()),
        ]

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        data = parse_object(await request.read(), request.content_type)
        if "max_tokens" not in data:  # not in Anthropic's envelope
            raise ApiError.invalid("missing", "body.max_tokens", "Field required", data)
        try:
            call = self._call(_chat_of(data), data["max_tokens"])
        except ApiError as error:
            return _anthropic_error(error)
        head = {"id": f"chatcmpl-{uuid4().hex}", "model": data["model"]}
        if call.stream:
            return await stream(request, self._message_events(call, head))
        with self.driver.admit(call) as live:
            text = "".join([piece async for piece in self._pieces(live)])
            reason = _STOP_REASONS.get(live.choices[0].finish_reason or "")
            body: dict[str, Any] = {"id": head["id"], "type": "message", "role": "assistant"}
            body |= {"content": [{"type": "text", "text": text}], "model": head["model"]}
            body |= {"stop_reason": reason} if reason else {}
            return _json(body | {"usage": _message_usage(call, live)})

    async def _message_events(self, call: Call, head: dict[str, Any]) -> AsyncIterator[bytes]:
        try:
            with self.driver.admit(call) as live:
                opened = False
                async for piece in self._pieces(live):
                    if not opened:
                        opened = True
                        usage = _message_usage(call, live) | {"output_tokens": 0}
                        message = {"id": head["id"], "type": "message", "role": "assistant"}
                        message |= {"content": [], "model": head["model"], "stop_reason": None}
                        message |= {"stop_sequence": None, "usage": usage}
                        yield _event("message_start", message=message)
                        block = {"type": "text", "text": ""}
                        yield _event("content_block_start", content_block=block, index=0)
                    if piece:
                        delta = {"type": "text_delta", "text": piece}
                        yield _event("content_block_delta", delta=delta, index=0)
                yield _event("content_block_stop", index=0)
                reason = _STOP_REASONS.get(live.choices[0].finish_reason or "")
                usage = _message_usage(call, live)
                stopped = {"stop_reason": reason, "stop_sequence": None}
                yield _event("message_delta", delta=stopped, usage=usage)
        except ApiError as error:
            quoted = str(error.body)
            text = "1 validation error for ChatCompletionStreamResponse\nchoices\n  Field required "
            text += f"[type=missing, input_value={quoted[:25]}...{quoted[-24:]}, input_type=dict]"
            yield _event("error", error={"type": "internal_error", "message": text})
            return
        yield _event("message_stop")

    async def _count_tokens(self, request: web.Request) -> web.StreamResponse:
        data = parse_object(await request.read(), request.content_type)
        try:
            check_model(data, self.models)
        except ApiError as error:
            return _anthropic_error(error)
        count = len(tokenize(render_chat(_chat_of(data))))
        counted = {"original_input_tokens": count}
        return _json({"input_tokens": count, "context_management": counted})

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        data = parse_object(await request.read(), request.content_type)
        if before := data.get("previous_response_id"):
            self._kept(before)
        call = self._call(_chat_of_input(data), data.get("max_output_tokens"))
        head = self._response(data, call)
        if call.stream:
            return await stream(request, self._response_events(call, head))
        with self.driver.admit(call) as live:
            text = "".join([piece async for piece in self._pieces(live)])
            return _json(self._finished(head, call, live, _message(text)))

    async def _response_events(self, call: Call, head: dict[str, Any]) -> AsyncIterator[bytes]:
        numbers = iter(range(1_000_000))

        def event(kind: str, **fields: Any) -> bytes:
            return _event(kind, last=("sequence_number", next(numbers)), **fields)

        yield event("response.created", response=head)
        yield event("response.in_progress", response=head)
        with self.driver.admit(call) as live:
            item: dict[str, Any] = _message("") | {"content": [], "status": "in_progress"}
            at = {"item_id": item["id"], "output_index": 0}
            text = ""
            async for piece in self._pieces(live):
                if not text:
                    yield event("response.output_item.added", item=item, output_index=0)
                    part = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
                    yield event("response.content_part.added", content_index=0, **at, part=part)
                text += piece
                delta = {"content_index": 0, "delta": piece, "logprobs": []}
                yield event("response.output_text.delta", **delta, **at)
            said = {"content_index": 0, **at}
            yield event("response.output_text.done", **said, logprobs=[], text=text)
            done = _message(text) | {"id": item["id"]}
            yield event("response.content_part.done", **said, part=done["content"][0])
            yield event("response.output_item.done", item=done, output_index=0)
            yield event("response.completed", response=self._finished(head, call, live, done))

    async def _retrieve(self, request: web.Request) -> web.StreamResponse:
        return _json(self._kept(request.match_info["id"]))

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        self._kept(request.match_info["id"])
        message = "Cannot cancel a synchronous response."
        raise ApiError(400, "invalid_request_error", message, "response_id")

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        data = parse_object(await request.read(), request.content_type)
        texts = data.get("input", "")
        listed = texts if isinstance(texts, list) else [texts]
        tokens = await self._pass(data, listed)
        vectors = [[len(text) / 1000, 0.5] for text in listed]
        cards = [
            {"index": index, "object": "embedding", "embedding": vector}
            for index, vector in enumerate(vectors)
        ]
        return _json(self._list(data, cards, tokens))

    async def _score(self, request: web.Request) -> web.StreamResponse:
        data = parse_object(await request.read(), request.content_type)
        tokens = await self._pass(data, [data.get("text_1"), data.get("input")])
        return _json(self._list(data, [{"index": 0, "object": "score", "score": 0.5}], tokens))

    async def _rerank(self, request: web.Request) -> web.StreamResponse:
        data = parse_object(await request.read(), request.content_type)
        documents = data.get("documents", [])
        tokens = await self._pass(data, documents)
        results = [
            {"index": index, "document": {"text": text}, "relevance_score": 0.5}
            for index, text in enumerate(documents)
        ]
        head = {"id": f"score-{uuid4().hex}", "model": data.get("model") or self.models[0]}
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return _json(head | {"usage": usage, "results": results})

    async def _pass(self, data: dict[str, Any], texts: list[Any]) -> int:
        """One pass over a prompt, for which the engine makes one token here; what it counted."""
        prompt = {"model": data.get("model"), "prompt": " ".join(map(str, texts)) or "-"}
        call = self._call(prompt, 1, chat=False)
        with self.driver.admit(call) as live:
            async for _ in self._pieces(live):
                pass
        return sum(map(len, call.prompt_tokens))

    def _call(self, data: dict[str, Any], max_tokens: Any, *, chat: bool = True) -> Call:
        limit = self.driver.engine.spec.max_model_len
        data = data | {"max_tokens": max_tokens}
        call = parse_call(data, chat=chat, models=self.models, max_model_len=limit)
        self.admit(call)
        return call

    async def _pieces(self, live: Live) -> AsyncIterator[str]:
        while not live.done:
            for choice in await live.news():
                await self.driver.responsive.wait()
                yield choice.take()

    def _kept(self, response_id: str) -> dict[str, Any]:
        if response_id in self._responses:
            return self._responses[response_id]
        message = f"Response with id '{response_id}' not found."
        raise ApiError(404, "invalid_request_error", message, "response_id")

    def _response(self, data: dict[str, Any], call: Call) -> dict[str, Any]:
        response: dict[str, Any] = {"id": data.get("request_id") or f"resp_{uuid4().hex}"}
        response |= {"created_at": int(wall_s())}
        response |= dict.fromkeys(("incomplete_details", "instructions"))
        response |= {"metadata": data.get("metadata"), "model": data.get("model") or self.models[0]}
        response |= {"object": "response", "output": [], "parallel_tool_calls": True}
        response |= {"temperature": 1.0, "tool_choice": "none", "tools": [], "top_p": 1.0}
        response |= {"background": False, "max_output_tokens": call.limits[0].max_tokens}
        before = data.get("previous_response_id")
        response |= {"max_tool_calls": None, "previous_response_id": before}
        response |= {"prompt": None, "reasoning": None, "service_tier": "auto"}
        response |= {"status": "in_progress", "text": None, "top_logprobs": None}
        response |= {"truncation": "disabled", "usage": None, "user": None}
        response |= {"presence_penalty": 0.0, "frequency_penalty": 0.0}
        return response | dict.fromkeys(_NOT_HERE)

    def _finished(
        self, head: dict[str, Any], call: Call, live: Live, item: dict[str, Any]
    ) -> dict[str, Any]:
        status = "incomplete" if live.choices[0].finish_reason == "length" else "completed"
        details = {"reason": "max_output_tokens"} if status == "incomplete" else None
        made, read = live.choices[0].taken, sum(map(len, call.prompt_tokens))
        usage = {"input_tokens": read, "input_tokens_details": _READ}
        usage |= {"output_tokens": made, "output_tokens_details": _MADE}
        done = {"incomplete_details": details, "output": [item], "status": status}
        response = head | done | {"usage": usage | {"total_tokens": read + made}}
        if self.keeps_responses:
            self._responses[head["id"]] = response
        return response

    def _list(
        self, data: dict[str, Any], cards: list[dict[str, Any]], tokens: int
    ) -> dict[str, Any]:
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
        body: dict[str, Any] = {
            "id": f"embd-{uuid4().hex}",
            "object": "list",
            "created": int(wall_s()),
        }
        body |= {"model": data.get("model") or self.models[0], "data": cards}
        return body | {"usage": usage | {"prompt_tokens_details": None}}


async def stream(request: web.Request, events: AsyncIterator[bytes]) -> web.StreamResponse:
    """Events as they come; an error that nobody has turned into one just ends them."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    try:
        async for event in events:
            await response.write(event)
    except ApiError:
        if request.transport is not None:
            request.transport.close()
        return response
    await response.write_eof()
    return response


def _chat_of(data: dict[str, Any]) -> dict[str, Any]:
    """A Messages request as a chat."""
    chat = {name: data[name] for name in _SAMPLING if name in data}
    system = data.get("system")
    first = [{"role": "system", "content": system}] if system else []
    chat |= {"model": data.get("model"), "messages": first + data.get("messages", [])}
    return chat | {"stop": data.get("stop_sequences")}


def _chat_of_input(data: dict[str, Any]) -> dict[str, Any]:
    """A Responses request as a chat."""
    given = data.get("input", "")
    turns = [{"role": "user", "content": given}] if isinstance(given, str) else given
    return _chat_of(data | {"system": data.get("instructions"), "messages": turns})


def _message(text: str) -> dict[str, Any]:
    part: dict[str, Any] = {"annotations": [], "text": text, "type": "output_text"}
    head = {"id": f"msg_{uuid4().hex}", "content": [part | {"logprobs": None}], "role": "assistant"}
    return head | {"status": "completed", "type": "message", "phase": None}


def _message_usage(call: Call, live: Live) -> dict[str, int]:
    made = sum(choice.taken for choice in live.choices)
    return {"input_tokens": sum(map(len, call.prompt_tokens)), "output_tokens": made}


def _event(kind: str, last: tuple[str, Any] | None = None, **fields: Any) -> bytes:
    """One event; Anthropic's begin with their type, OpenAI's end with a number and the type."""
    data = {"type": kind} | fields if last is None else fields | dict([last]) | {"type": kind}
    return f"event: {kind}\n".encode() + b"data: " + msgspec.json.encode(data) + b"\n\n"


def _anthropic_error(error: ApiError) -> web.Response:
    inner = error.body["error"]
    body = {"type": "error", "error": {"type": inner["type"], "message": inner["message"]}}
    return _json(body, error.status)


def _json(value: object, status: int = 200) -> web.Response:
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return web.Response(body=body, status=status, headers={"content-type": "application/json"})
