"""vLLM's HTTP face on the simulated engine: its paths, headers, framing, refusals and habits.

Rule 1: a stream's 200 and head go out at once, also while the request waits in the queue; what
        goes wrong later is an error event and [DONE].
Rule 2: one SSE event is one chunk. Header names, their order and `server: uvicorn` are vLLM's.
Rule 3: a client that leaves cancels its handler, and so its request, waiting or running.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from uuid import uuid4

import msgspec
from aiohttp import web

from sim import audio, openai_answer, realtime
from sim.dialect_api import DialectApi
from sim.driver import Driver, Live, request_error
from sim.metrics_text import CONTENT_TYPE, HttpExchange
from sim.openai_answer import DONE, Writer, usage_of
from sim.openai_request import ApiError, Call, check_model, parse_call, parse_object, render_chat
from sim.text import token_id, token_of_id, tokenize
from trimtab.runtime.clock import now_s, wall_s

# vLLM checks its queue limits before the head and again when the request is added, some
# milliseconds later: in a burst many pass the first check and fail the second, inside a 200.
_ADMISSION_GAP_S = 0.003
_GUARDED = ("/v1", "/v2", "/inference", "/cohere")
_UNCOUNTED = ("/metrics", "/health", "/load", "/ping", "/version")
_HEADER_ORDER = (
    *("date", "server", "allow", "content-length", "content-type", "vary"),
    *("upgrade", "connection", "sec-websocket-accept", "transfer-encoding"),
)
_BODY_LIMIT_BYTES = 64 * 1024 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the engine says it is, and whom it serves."""

    models: list[str]
    root: str
    version: str
    fingerprint: str
    api_keys: tuple[str, ...] = ()
    keeps_responses: bool = False
    adapters: dict[str, str] = field(default_factory=dict)
    """LoRA adapters, name to path; they come and go while it runs."""

    @property
    def names(self) -> list[str]:
        """What may be asked for."""
        return [*self.models, *self.adapters]


class HttpApi:
    """The handlers. `app()` is the whole server but for its socket."""

    def __init__(self, driver: Driver, identity: Identity, dice: random.Random) -> None:
        self._driver = driver
        self._identity = identity
        self._dice = dice
        self._dialects = DialectApi(
            driver, identity.models, self._check_admission, identity.keeps_responses
        )

    def app(self) -> web.Application:
        """Routes, middlewares and the last hand on the headers."""
        middlewares = [self._gate, self._count, self._authorize, self._refuse]
        app = web.Application(middlewares=middlewares, client_max_size=_BODY_LIMIT_BYTES)
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/health", self._health),
            ("GET", "/ping", self._health),
            ("POST", "/ping", self._health),
            ("GET", "/version", self._version),
            ("GET", "/load", self._load),
            ("GET", "/metrics", self._metrics),
            ("GET", "/metrics/", self._metrics),
            ("GET", "/v1/models", self._models),
            ("POST", "/v1/load_lora_adapter", self._load_adapter),
            ("POST", "/v1/unload_lora_adapter", self._unload_adapter),
            ("POST", "/v1/completions", self._completions),
            ("POST", "/v1/chat/completions", self._chat_completions),
            ("POST", "/v1/audio/transcriptions", self._transcribe),
            ("POST", "/v1/audio/translations", self._transcribe),
            ("GET", "/v1/realtime", self._realtime),
            ("POST", "/tokenize", self._tokenize),
            ("POST", "/detokenize", self._detokenize),
            *self._dialects.routes(),
        ]
        for method, path, handler in routes:
            app.router.add_route(method, path, handler)
        app.on_response_prepare.append(_dress)
        return app

    @web.middleware
    async def _gate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """While the process hangs, nothing is answered."""
        if request.method == "POST" and request.path.endswith("/completions"):
            self._driver.arrived_total += 1
        await self._driver.responsive.wait()
        return await handler(request)

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        started_s, page = now_s(), self._driver.page
        response = await handler(request)
        if request.path.rstrip("/") not in _UNCOUNTED:
            resource = request.match_info.route.resource
            page.count_http(
                HttpExchange(
                    handler=resource.canonical if resource else "none",
                    method=request.method,
                    status=response.status,
                    request_bytes=request.content_length or 0,
                    response_bytes=response.content_length or 0,
                    duration_s=now_s() - started_s,
                )
            )
        return response

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        keys = self._identity.api_keys
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        allowed = not keys or (scheme.lower() == "bearer" and key in keys)
        if not allowed and request.path.startswith(_GUARDED):
            request["bare"] = True
            return _json({"error": "Unauthorized"}, 401)
        return await handler(request)

    @web.middleware
    async def _refuse(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every refusal in vLLM's shape: its own errors, and its framework's 404 and 405."""
        try:
            return await handler(request)
        except ApiError as error:
            return _json(error.body, error.status)
        except web.HTTPException as error:
            response = _json({"detail": HTTPStatus(error.status).phrase}, error.status)
            if isinstance(error, web.HTTPMethodNotAllowed):
                response.headers["allow"] = ", ".join(sorted(error.allowed_methods))
            return response

    async def _health(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(status=503 if self._driver.dead else 200)

    async def _version(self, _request: web.Request) -> web.StreamResponse:
        return _json({"version": self._identity.version})

    async def _load(self, _request: web.Request) -> web.StreamResponse:
        return _json({"server_load": 0})  # vLLM counts only with --enable-server-load-tracking

    async def _metrics(self, _request: web.Request) -> web.StreamResponse:
        body = self._driver.page.render()
        return web.Response(body=body, headers={"content-type": CONTENT_TYPE})

    async def _models(self, _request: web.Request) -> web.StreamResponse:
        who, length = self._identity, self._driver.engine.spec.max_model_len
        created = int(wall_s())
        listing = openai_answer.model_list(who.models, who.root, who.adapters, created, length)
        return _json(listing)

    async def _load_adapter(self, request: web.Request) -> web.StreamResponse:
        """As with VLLM_ALLOW_RUNTIME_LORA_UPDATING."""
        data = parse_object(await request.read(), request.content_type)
        name, path = data.get("lora_name"), data.get("lora_path")
        if not name or not path:
            message = "Both 'lora_name' and 'lora_path' must be provided."
            raise ApiError(400, "InvalidUserInput", message)
        self._identity.adapters[name] = path
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload_adapter(self, request: web.Request) -> web.StreamResponse:
        data = parse_object(await request.read(), request.content_type)
        name = str(data.get("lora_name"))
        if self._identity.adapters.pop(name, None) is None:
            message = f"The lora adapter '{name}' cannot be found."
            raise ApiError(404, "NotFoundError", message)
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _tokenize(self, request: web.Request) -> web.StreamResponse:
        data = parse_object(await request.read(), request.content_type)
        check_model(data, self._identity.names)
        chat = "messages" in data
        tokens = tokenize(render_chat(data) if chat else str(data.get("prompt", "")).encode())
        spec = self._driver.engine.spec
        answer = {"count": len(tokens), "max_model_len": spec.max_model_len}
        return _json(answer | {"tokens": [*map(token_id, tokens)], "token_strs": None})

    async def _detokenize(self, request: web.Request) -> web.StreamResponse:
        data = parse_object(await request.read(), request.content_type)
        tokens = [token_of_id(number) or b"" for number in data.get("tokens", [])]
        return _json({"prompt": b"".join(tokens).decode(errors="replace")})

    async def _transcribe(self, request: web.Request) -> web.StreamResponse:
        form = await audio.read(request)
        call = audio.call(form, self._identity.names, self._driver.engine.spec.max_model_len)
        self._check_admission(call)
        writer = audio.Writer(form, request.path, self._identity.models[0], int(wall_s()))
        with self._driver.admit(call) as live:
            if not call.stream:
                text = "".join([piece async for piece in audio.pieces(live)])
                return _json(writer.body(text))
            response = await _open_stream(request)
            async for piece in audio.pieces(live):
                await response.write(writer.event(piece, live.choices[0].finish_reason))
            await response.write(DONE)
            await response.write_eof()
            return response

    async def _realtime(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("upgrade", "").lower() != "websocket":
            raise web.HTTPNotFound
        models, length = self._identity.names, self._driver.engine.spec.max_model_len
        return await realtime.converse(request, self._driver, models, length)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=False)

    async def _chat_completions(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=True)

    async def _generate(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        data = parse_object(await request.read(), request.content_type)
        max_model_len = self._driver.engine.spec.max_model_len
        models = self._identity.names
        call = parse_call(data, chat=chat, models=models, max_model_len=max_model_len)
        request_id = request.headers.get("X-Request-Id") or call.request_id or uuid4().hex[:16]
        writer = Writer(
            call,
            answer_id=f"chatcmpl-{request_id}" if chat else f"cmpl-{request_id}",
            model=data.get("model") or models[0],
            created=int(wall_s()),
            fingerprint=self._identity.fingerprint,
        )
        if self._driver.faults.empty_stream:
            return await self._drained(request, call, writer)
        self._check_admission(call)
        if call.stream:
            return await self._stream(request, call, writer)
        await asyncio.sleep(_ADMISSION_GAP_S)
        return await self._whole(call, writer)

    def _check_admission(self, call: Call) -> None:
        """The first check of two, which answers cleanly; and the faults that answer for it."""
        faults = self._driver.faults
        if faults.reject:
            raise self._driver.busy_error("max_num_queued_reqs")
        if self._dice.random() < faults.error_rate:
            raise request_error()
        if (reason := self._driver.engine.rejection(call.n * len(call.prompts))) is not None:
            raise self._driver.busy_error(reason)

    async def _whole(self, call: Call, writer: Writer) -> web.StreamResponse:
        with self._driver.admit(call) as live:
            texts = ["" for _ in live.choices]
            while not live.done:
                for choice in await live.news():
                    texts[choice.index] += choice.take()
            await self._driver.responsive.wait()
            choices = [
                writer.choice(c.index, texts[c.index], c.finish_reason, c.stop_reason)
                for c in live.choices
            ]
            return _json_bytes(writer.body(choices, _usage(call, live)))

    async def _stream(self, request: web.Request, call: Call, writer: Writer) -> web.StreamResponse:
        response = await _open_stream(request)
        await asyncio.sleep(_ADMISSION_GAP_S)
        with contextlib.suppress(ConnectionResetError):  # the caller left, and was aborted
            try:
                with self._driver.admit(call) as live:
                    await self._relay(response, call, live, writer)
            except ApiError as error:
                await response.write(openai_answer.error_event(error))
            await response.write(DONE)
            await response.write_eof()
        return response

    async def _relay(
        self, response: web.StreamResponse, call: Call, live: Live, writer: Writer
    ) -> None:
        """Tokens as they come, until every choice has ended."""
        opened = not call.chat
        while not live.done:
            fresh = await live.news()
            await self._driver.responsive.wait()
            if not opened:
                opened = True
                usage = _usage(call, live) if call.continuous_usage else None
                for choice in live.choices:
                    await response.write(writer.role_event(choice.index, usage))
            for choice in fresh:
                text, reason = choice.take(), choice.finish_reason
                usage = _usage(call, live) if call.continuous_usage else None
                event = writer.text_event(choice.index, text, reason, choice.stop_reason, usage)
                await response.write(event)
        if call.include_usage:
            await response.write(writer.usage_event(_usage(call, live)))

    async def _drained(
        self, request: web.Request, call: Call, writer: Writer
    ) -> web.StreamResponse:
        """What vLLM answers while it drains: three different kinds of nothing."""
        if call.chat:
            request["bare"] = True
            message = "cannot schedule new futures after shutdown"
            raise ApiError(500, "InternalServerError", message)
        if call.stream:
            response = await _open_stream(request)
            await response.write(DONE)
            await response.write_eof()
            return response
        choices = [writer.choice(i, "", "abort", None) for i in range(call.n * len(call.prompts))]
        prompt_tokens = sum(map(len, call.prompt_tokens))
        return _json_bytes(writer.body(choices, usage_of(prompt_tokens, 0)))


def _usage(call: Call, live: Live) -> dict[str, int]:
    return usage_of(sum(map(len, call.prompt_tokens)), sum(choice.taken for choice in live.choices))


def _json(value: object, status: int = 200) -> web.Response:
    return _json_bytes(msgspec.json.encode(value), status)


def _json_bytes(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, headers={"content-type": "application/json"})


async def _open_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    return response


async def _dress(request: web.Request, response: web.StreamResponse) -> None:
    """Put the headers under vLLM's names and in its order."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    headers["server"] = "uvicorn"
    if not request.get("bare"):  # such answers come from outside the framework
        headers["vary"] = "Origin"
    response.headers.clear()
    for name in _HEADER_ORDER:
        if name in headers:
            response.headers[name] = headers[name]
