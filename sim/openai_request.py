"""vLLM's reading of an OpenAI request: what is taken, what is refused, in which words.

Rules: pure; unknown fields are ignored; a refusal is an ApiError whose text is vLLM 0.32's own.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from sim.text import Limits, token_of_id, tokenize

_INT, _FLOAT, _BOOL = "int", "float", "bool"
_FIELD_KINDS = {
    "temperature": _FLOAT,
    "top_p": _FLOAT,
    "presence_penalty": _FLOAT,
    "frequency_penalty": _FLOAT,
    "max_tokens": _INT,
    "max_completion_tokens": _INT,
    "min_tokens": _INT,
    "n": _INT,
    "seed": _INT,
    "priority": _INT,
    "stream": _BOOL,
    "ignore_eos": _BOOL,
    "add_generation_prompt": _BOOL,
    "continue_final_message": _BOOL,
}
_WANTED = {_INT: "integer", _FLOAT: "number", _BOOL: "boolean"}
_COMPLETION_MAX_TOKENS = 16  # what vLLM gives a text completion that does not say
_MAX_CHOICES = 128


class ApiError(Exception):
    """A refusal or failure, as it goes into an error body or an error event."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}

    @classmethod
    def bad_value(cls, param: str, message: str, value: object = None) -> "ApiError":
        """A 400 that names its parameter."""
        suffix = f"(parameter={param})" if value is None else f"(parameter={param}, value={value})"
        return cls(400, "BadRequestError", f"{message} {suffix}", param)

    @classmethod
    def invalid(cls, kind: str, loc: str, msg: str, given: object, **ctx: str) -> "ApiError":
        """A 400 for a body that does not fit the schema."""
        detail: dict[str, object] = {"type": kind, "loc": loc, "msg": msg, "input": str(given)}
        if isinstance(given, dict):
            detail["input"] = f"<dict of {len(given)} items>"
        if ctx:
            detail["ctx"] = ctx
        return cls(400, "Bad Request", f"1 validation error:\n  {detail}", loc)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, understood."""

    chat: bool
    prompts: list[bytes]
    prompt_tokens: list[list[bytes]] = field(repr=False)
    limits: list[Limits] = field(repr=False)  # one per prompt
    max_tokens: int | None = None
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    request_id: str | None = None


def parse_object(body: bytes, content_type: str) -> dict[str, Any]:
    """The JSON object of a body."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        message = (
            "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        )
        raise ApiError(400, "Bad Request", message)
    if not body:
        raise ApiError.invalid("missing", "body", "Field required", None)
    try:
        data = json.loads(body)
    except json.JSONDecodeError as error:
        loc = f"body.{error.pos}"
        raise ApiError.invalid(
            "json_invalid", loc, "JSON decode error", {}, error=error.msg
        ) from None
    except UnicodeDecodeError:
        raise ApiError(400, "Bad Request", "There was an error parsing the body") from None
    if not isinstance(data, dict):
        msg = "Input should be a valid dictionary or object to extract fields from"
        raise ApiError.invalid("model_attributes_type", "body", msg, data)
    return data


def parse_call(data: dict[str, Any], *, chat: bool, models: list[str], max_model_len: int) -> Call:
    """A request to generate, checked in vLLM's order: schema, model, parameters, lengths."""
    if chat and "messages" not in data:
        raise ApiError.invalid("missing", "body.messages", "Field required", data)
    values = {name: _read(data, name, kind) for name, kind in _FIELD_KINDS.items()}
    _check_values(data, values)
    check_model(data, models)
    prompts = [render_chat(data)] if chat else _completion_prompts(data)
    tokens = [tokenize(prompt) for prompt in prompts]
    max_tokens = values["max_tokens"]
    if chat:
        max_tokens = values["max_completion_tokens"] or max_tokens
    elif max_tokens is None:
        max_tokens = _COMPLETION_MAX_TOKENS
    options = data.get("stream_options") or {}
    include_usage = bool(options.get("include_usage"))
    return Call(
        chat=chat,
        prompts=prompts,
        prompt_tokens=tokens,
        limits=[_limits(data, values, len(t), max_tokens, max_model_len) for t in tokens],
        max_tokens=max_tokens,
        n=values["n"] or 1,
        stream=bool(values["stream"]),
        include_usage=include_usage,
        continuous_usage=include_usage and bool(options.get("continuous_usage_stats")),
        request_id=data.get("request_id"),
    )


def check_model(data: dict[str, Any], models: list[str]) -> None:
    """404 for a model that is not served; none named means the first."""
    model = data.get("model")
    if model and model not in models:
        aliases = ", ".join(models)
        message = f"The model `{model}` does not exist. Valid aliases: {aliases}."
        raise ApiError(404, "NotFoundError", message, "model")


def render_chat(data: dict[str, Any]) -> bytes:
    """Messages as one text. Only the last may be left open, to be continued."""
    messages = data["messages"]
    if not isinstance(messages, list):
        raise ApiError.invalid(
            "list_type", "body.messages", "Input should be a valid list", messages
        )
    continue_final = bool(data.get("continue_final_message"))
    if continue_final and data.get("add_generation_prompt", True):
        message = "Cannot set both `continue_final_message` and `add_generation_prompt` to True."
        raise ApiError(400, "BadRequestError", message)
    text = "".join(f"<|{_role(message)}|>\n{_content(message)}\n" for message in messages)
    if continue_final:
        return text.removesuffix("\n").encode()
    if data.get("add_generation_prompt", True):
        text += "<|assistant|>\n"
    return text.encode()


def _role(message: Any) -> str:
    return str(message.get("role", "user")) if isinstance(message, dict) else "user"


def _content(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else message
    if isinstance(content, list):
        return "".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
    return str(content or "")


def _completion_prompts(data: dict[str, Any]) -> list[bytes]:
    """A string, tokens, or a list of either."""
    prompt = data.get("prompt")
    if not prompt:
        message = "Either prompt or prompt_embeds must be provided and non-empty."
        raise ApiError.bad_value("prompt", message)
    if isinstance(prompt, list) and not isinstance(prompt[0], int):
        return [_prompt_text(item) for item in prompt]
    return [_prompt_text(prompt)]


def _prompt_text(prompt: Any) -> bytes:
    if isinstance(prompt, str):
        return prompt.encode()
    if isinstance(prompt, list):
        return b"".join(_token(number) for number in prompt)
    raise ApiError.invalid("string_type", "body.prompt", "Input should be a valid string", prompt)


def _token(number: Any) -> bytes:
    token = token_of_id(number) if isinstance(number, int) else None
    if token is None:
        raise ApiError(400, "BadRequestError", f"Token id {number} is out of vocabulary")
    return token


def _read(data: dict[str, Any], name: str, kind: str) -> Any:
    """A scalar field, leniently: "5" is a 5, as in pydantic."""
    value = data.get(name)
    if value is None or (kind == _BOOL and isinstance(value, bool)):
        return value
    try:
        if kind == _BOOL:
            return {"true": True, "false": False, "1": True, "0": False}[str(value).lower()]
        return float(value) if kind == _FLOAT else int(value)
    except (ValueError, TypeError, KeyError, OverflowError):
        noun = _WANTED[kind]
        if kind == _BOOL:
            msg = "Input should be a valid boolean, unable to interpret input"
        else:
            msg = f"Input should be a valid {noun}, unable to parse string as {_article(noun)}"
        raise ApiError.invalid(f"{kind}_parsing", f"body.{name}", msg, value) from None


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _check_values(data: dict[str, Any], values: dict[str, Any]) -> None:
    if data.get("stream_options") and not values["stream"]:
        message = "Stream options can only be defined when `stream=True`."
        raise ApiError.bad_value("stream_options", message)
    for name in ("max_tokens", "max_completion_tokens"):
        value = values[name]
        if value is not None and value < 1:
            raise ApiError.bad_value(
                "max_tokens", f"max_tokens must be at least 1, got {value}.", value
            )
    temperature = values["temperature"]
    if temperature is not None and temperature < 0:
        message = f"temperature must be non-negative, got {temperature}."
        raise ApiError.bad_value("temperature", message, temperature)
    n = values["n"]
    if n is not None and not 1 <= n <= _MAX_CHOICES:
        raise ApiError.bad_value("n", f"n must be between 1 and {_MAX_CHOICES}, got {n}.", n)


def _limits(
    data: dict[str, Any],
    values: dict[str, Any],
    prompt_tokens: int,
    max_tokens: int | None,
    max_model_len: int,
) -> Limits:
    """How long an answer may be, or why it cannot be."""
    if max_tokens is not None and max_tokens > max_model_len:
        message = f"max_tokens={max_tokens} cannot be greater than max_model_len={max_model_len}."
        message += " Please request fewer output tokens."
        raise ApiError.bad_value("max_tokens", message, max_tokens)
    room = max_model_len - prompt_tokens
    if room < (max_tokens or 1):
        raise _too_long(max_model_len, room, max_tokens)
    stop = data.get("stop") or ()
    return Limits(
        max_tokens=max_tokens or room,
        min_tokens=values["min_tokens"] or 0,
        ignore_eos=bool(values["ignore_eos"]),
        stop=(stop,) if isinstance(stop, str) else tuple(str(s) for s in stop if s),
    )


def _too_long(max_model_len: int, room: int, max_tokens: int | None) -> ApiError:
    start = f"This model's maximum context length is {max_model_len} tokens. However, "
    if max_tokens is None or room < 0:
        least = max_model_len + 1
        middle = (
            f"your prompt contains at least {least} input tokens, which exceeds this limit even"
        )
        middle += " without any output tokens. Please reduce the length of the input prompt."
    else:
        least = max_model_len - max_tokens + 1
        middle = (
            f"you requested {max_tokens} output tokens and your prompt contains at least {least}"
        )
        middle += (
            f" input tokens, for a total of at least {least + max_tokens} tokens. Please reduce"
        )
        middle += " the length of the input prompt or the number of requested output tokens."
    return ApiError.bad_value("input_tokens", start + middle, least)
