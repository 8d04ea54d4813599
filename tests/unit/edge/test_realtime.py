"""edge/core/realtime: what a frame is, and what it becomes."""

from __future__ import annotations

import json

import pytest

from edge.core import problems, realtime
from edge.core.realtime import Frame, Verdict

NAMES, PASSES, BROKEN = Verdict.NAMES, Verdict.PASSES, Verdict.BROKEN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"type":"session.update","model":"a"}', Frame(NAMES, "a")),
        ('{"type":"session.upd\\u0061te","session":{"model":"a"}}', Frame(NAMES, "a")),
        ('{"model":"b","type":"session.update","model":"a"}', Frame(NAMES, "a")),
        ('{"type":"session.update","session":{"voice":"x"}}', Frame(PASSES)),
        ('{"type":"session.update","model":null}', Frame(PASSES)),
        ('{"type":"input_audio_buffer.append","audio":"AAAA","model":"a"}', Frame(PASSES)),
        ('{"type":7}', Frame(PASSES)),
        ("[]", Frame(PASSES)),
        ('{"type":"session.update","model":7}', Frame(BROKEN)),
        ('{"type":"session.update","model":"a","x":NaN}', Frame(BROKEN)),
        ("{", Frame(BROKEN)),
        ("", Frame(BROKEN)),
    ],
)
def test_frames(text: str, expected: Frame) -> None:
    assert realtime.read(text) == expected


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"model": "a", "x": 1}, {"model": "served", "x": 1}),
        ({"session": {"model": "a", "y": 2}}, {"session": {"model": "served", "y": 2}}),
        ({"model": "a", "session": None}, {"session": {"model": "served"}}),
    ],
)
def test_the_name_is_put_where_engines_look_for_it(
    event: dict[str, object], expected: dict[str, object]
) -> None:
    made = json.loads(realtime.renamed(json.dumps({"type": "session.update"} | event), "served"))
    assert made == {"type": "session.update", "model": "served"} | expected


def test_what_the_edge_says_itself() -> None:
    opened = realtime.created("sess-1", 7.5)
    assert json.loads(opened) == {"type": "session.created", "id": "sess-1", "created": 7}
    assert realtime.is_created(opened)
    assert not realtime.is_created('{"type":"transcription.delta"}')
    assert not realtime.is_created("x")
    assert not realtime.is_created(opened + " " * 2000)
    said = json.loads(realtime.error(problems.other_model("a")))
    assert (said["type"], said["code"]) == ("error", "invalid_value")
    assert "'a'" in said["error"]
