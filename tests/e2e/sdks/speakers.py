"""The official SDKs behind one face: a question asked through one, and what its user is told.

Rule: nothing of an SDK is changed but its address, key and number of retries.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import anthropic
import openai

from tests.fakes.edge import KEY, MODEL

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Question:
    """One call: a chat unless `kind` says other, or `raw` is a body in place of the SDK's.

    Kinds are chat, responses (streamed) and models (the list, then one of them).
    """

    kind: str = "chat"
    key: str = KEY
    model: str = MODEL
    prompt: str = "hi"
    fields: dict[str, Any] = field(default_factory=lambda: {"max_tokens": 12})
    stream: bool = False
    retries: int = 2
    raw: str | None = None
    leave_after: int | None = None
    """Leave a stream after so many chunks."""


@dataclass(slots=True)
class Told:
    """What the SDK's user got: text, or an exception and what is in it."""

    text: str = ""
    error: str = ""
    status: int | None = None
    code: Any = None
    type: str | None = None
    param: str | None = None
    message: str = ""
    request_id: str | None = None


class Speaker(Protocol):
    """An SDK."""

    name: str

    async def ask(self, url: str, question: Question) -> Told:
        """Ask the endpoint at `url`."""


class OpenAIPython:
    """openai for Python."""

    name = "openai-python"

    async def ask(self, url: str, question: Question) -> Told:
        """Ask the endpoint at `url`."""
        told = Told()
        try:
            async with openai.AsyncOpenAI(
                base_url=f"{url}/v1", api_key=question.key, max_retries=question.retries
            ) as client:
                await self._ask(client, question, told)
        except openai.APIError as error:
            told.error, told.message = type(error).__name__, error.message
            told.code, told.type, told.param = error.code, error.type, error.param
            told.status = getattr(error, "status_code", None)
            told.request_id = getattr(error, "request_id", None)
        return told

    async def _ask(self, client: openai.AsyncOpenAI, question: Question, told: Told) -> None:
        if question.raw is not None:
            path = "/chat/completions"
            options: Any = {"headers": {"content-type": JSON}}
            raw = question.raw.encode()
            await client.post(path, cast_to=object, content=raw, options=options)
        elif question.kind == "models":
            names = [model.id async for model in client.models.list()]
            told.text = " ".join([*names, (await client.models.retrieve(question.model)).id])
        elif question.stream:
            async for piece in self._pieces(client, question):
                told.text += piece
        else:
            answer = await client.chat.completions.with_raw_response.create(**_chat(question))
            told.request_id = answer.headers["x-request-id"]
            told.text = answer.parse().choices[0].message.content

    async def _pieces(self, client: openai.AsyncOpenAI, question: Question) -> AsyncIterator[str]:
        if question.kind == "responses":
            fields: Any = {
                "model": question.model,
                "input": question.prompt,
                "max_output_tokens": 20,
            }
            async for event in await client.responses.create(**fields, stream=True):
                yield event.delta if event.type == "response.output_text.delta" else ""
            return
        chunks = 0
        async with await client.chat.completions.create(**_chat(question), stream=True) as stream:
            async for chunk in stream:
                yield chunk.choices[0].delta.content or ""
                chunks += 1
                if chunks == question.leave_after:
                    return


class OpenAINode:
    """openai for Node, in a process of its own that answers one question after another."""

    name = "openai-node"

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    async def ask(self, url: str, question: Question) -> Told:
        """Ask the endpoint at `url`."""
        line = json.dumps({"url": url} | asdict(question))
        answer = await asyncio.to_thread(self._exchange, line)
        return Told(**{name: value for name, value in json.loads(answer).items() if value})

    def _exchange(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


class AnthropicPython:
    """anthropic for Python."""

    name = "anthropic-python"

    async def ask(self, url: str, question: Question) -> Told:
        """Ask the endpoint at `url`."""
        told = Told()
        try:
            async with anthropic.AsyncAnthropic(
                base_url=url, auth_token=question.key, max_retries=question.retries
            ) as client:
                await self._ask(client, question, told)
        except anthropic.APIStatusError as error:
            told.error, told.message = type(error).__name__, error.message
            told.status, told.type = error.status_code, error.type
            told.request_id = error.request_id
        return told

    async def _ask(self, client: anthropic.AsyncAnthropic, question: Question, told: Told) -> None:
        if question.raw is not None:
            path = "/v1/messages"
            options: Any = {"headers": {"content-type": JSON}}
            raw = question.raw.encode()
            await client.post(path, cast_to=object, content=raw, options=options)
        elif question.kind == "models":
            names = [model.id async for model in client.models.list()]
            told.text = " ".join([*names, (await client.models.retrieve(question.model)).id])
        elif question.stream:
            chunks = 0
            async with client.messages.stream(**_message(question)) as stream:
                async for piece in stream.text_stream:
                    told.text += piece
                    chunks += 1
                    if chunks == question.leave_after:
                        return
        else:
            message: Any = await client.messages.create(**_message(question))
            told.text, told.request_id = message.content[0].text, message._request_id


def _message(question: Question) -> dict[str, Any]:
    chat = _chat(question)
    if "tools" in chat:
        functions = [tool["function"] for tool in chat["tools"]]
        chat["tools"] = [{"name": f["name"], "input_schema": f["parameters"]} for f in functions]
    return chat


def _chat(question: Question) -> dict[str, Any]:
    messages = [{"role": "user", "content": question.prompt}]
    fields = dict(question.fields)
    # a typed client refuses unknown names; the raw fields of vLLM go as users send them
    extra = {name: fields.pop(name) for name in ("ignore_eos",) if name in fields}
    return {"model": question.model, "messages": messages, "extra_body": extra, **fields}
