"""What a request means. The texts of refusals are compared with recordings in tests/sim."""

from typing import Any

import pytest

from sim.openai_request import ApiError, Call, parse_call, parse_object
from sim.text import Limits, token_id, tokenize

USER = {"role": "user", "content": "hi"}


def _call(data: dict[str, Any], *, chat: bool = False, max_model_len: int = 100) -> Call:
    return parse_call(data, chat=chat, models=["m", "alias"], max_model_len=max_model_len)


def test_a_completion_has_vllms_default_length() -> None:
    call = _call({"prompt": "one two"})
    assert call.prompts == [b"one two"]
    assert call.limits == [Limits(max_tokens=16)]
    assert (call.n, call.stream, call.include_usage) == (1, False, False)


def test_a_chat_may_fill_the_context() -> None:
    call = _call({"messages": [USER]}, chat=True)
    assert call.prompts == [b"<|user|>\nhi\n<|assistant|>\n"]
    assert call.limits[0].max_tokens == 100 - len(call.prompt_tokens[0])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"prompt": ["ab", "cd"]}, [b"ab", b"cd"]),
        ({"prompt": [token_id(token) for token in tokenize(b"one two")]}, [b"one two"]),
        ({"prompt": [[token_id(b"a")], [token_id(b"b")]]}, [b"a", b"b"]),
    ],
)
def test_prompts_come_as_text_tokens_or_lists_of_them(data: dict[str, Any], text: object) -> None:
    assert _call(data).prompts == text


def test_messages_may_have_parts() -> None:
    parts = [{"type": "text", "text": "he"}, {"type": "image_url"}, {"type": "text", "text": "llo"}]
    call = _call({"messages": [{"role": "user", "content": parts}]}, chat=True)
    assert b"\nhello\n" in call.prompts[0]


def test_an_open_last_message_is_continued() -> None:
    begun = {"role": "assistant", "content": "It was"}
    data = {"messages": [USER, begun], "add_generation_prompt": False}
    closed = _call(data, chat=True)
    still_open = _call(data | {"continue_final_message": True}, chat=True)
    assert closed.prompts[0].endswith(b"It was\n")
    assert still_open.prompts[0].endswith(b"<|assistant|>\nIt was")


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ({"max_tokens": "5"}, Limits(5)),
        ({"max_tokens": 5, "stop": "x"}, Limits(5, stop=("x",))),
        ({"max_tokens": 5, "stop": ["x", "y"]}, Limits(5, stop=("x", "y"))),
        ({"max_tokens": 5, "min_tokens": 3, "ignore_eos": True}, Limits(5, 3, ignore_eos=True)),
    ],
)
def test_limits(given: dict[str, Any], limits: Limits) -> None:
    assert _call({"prompt": "a"} | given).limits == [limits]


def test_max_completion_tokens_wins() -> None:
    data = {"messages": [USER], "max_tokens": 5, "max_completion_tokens": 7}
    assert _call(data, chat=True).limits[0].max_tokens == 7


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"include_usage": True}, (True, False)),
        ({"include_usage": True, "continuous_usage_stats": True}, (True, True)),
        ({"continuous_usage_stats": True}, (False, False)),
    ],
)
def test_stream_options(options: dict[str, bool], expected: tuple[bool, bool]) -> None:
    call = _call({"prompt": "a", "stream": True, "stream_options": options})
    assert (call.include_usage, call.continuous_usage) == expected


@pytest.mark.parametrize(
    ("data", "status", "part"),
    [
        ({"prompt": "a", "model": "other"}, 404, "Valid aliases: m, alias."),
        ({"prompt": "a", "n": 0}, 400, "n must be between"),
        ({"prompt": "a", "n": "many"}, 400, "valid integer"),
        ({"prompt": "a", "stream": "perhaps"}, 400, "valid boolean"),
        ({"prompt": {"a": 1}}, 400, "string_type"),
        ({"prompt": [["a"]]}, 400, "out of vocabulary"),
        ({"prompt": "a " * 200}, 400, "at least 101 input tokens, which exceeds"),
        (
            {"prompt": "a " * 30, "max_tokens": 90},
            400,
            "you requested 90 output tokens and your prompt contains at least 11 input tokens, "
            "for a total of at least 101 tokens",
        ),
    ],
)
def test_refused_completions(data: dict[str, Any], status: int, part: str) -> None:
    with pytest.raises(ApiError) as caught:
        _call(data)
    assert caught.value.status == status
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ({"messages": "hi"}, "list_type"),
        ({"messages": [USER], "continue_final_message": True}, "Cannot set both"),
    ],
)
def test_refused_chats(data: dict[str, Any], part: str) -> None:
    with pytest.raises(ApiError, match=part):
        _call(data, chat=True)


@pytest.mark.parametrize("body", [b"[1]", b"\xff\xfe{}", b"\xff"])
def test_bodies_that_are_no_object(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_object(body, "application/json")
    assert caught.value.status == 400
