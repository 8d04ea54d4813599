"""vLLM's realtime transcription on the simulated engine: a WebSocket of events.

Rules: the events are vLLM 0.32's, and so is its order: the session is opened before anybody spoke,
a commit needs a session.update before it, and the final commit ends an utterance. The text begins
with what tells this audio from others.
"""

import base64
import json
from typing import Any
from uuid import uuid4

from aiohttp import WSMsgType, web

from sim import audio
from sim.driver import Driver
from sim.openai_answer import usage_of
from sim.openai_request import ApiError
from trimtab.runtime.clock import wall_s

_FRAME_LIMIT_BYTES = 16 * 1024 * 1024


async def converse(
    request: web.Request, driver: Driver, models: list[str], max_model_len: int
) -> web.StreamResponse:
    """One session."""
    socket = web.WebSocketResponse(max_msg_size=_FRAME_LIMIT_BYTES)
    await socket.prepare(request)
    session_id = f"sess-{uuid4().hex}"
    await _say(socket, "session.created", id=session_id, created=int(wall_s()))
    sound, model = bytearray(), ""
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            break
        try:
            event = json.loads(message.data)
        except json.JSONDecodeError:
            await _say(socket, "error", error="Invalid JSON", code="invalid_json")
            continue
        kind = event.get("type")
        if kind == "session.update":
            model = event["model"]
        elif kind == "input_audio_buffer.append":
            sound += base64.b64decode(event["audio"])
        elif kind != "input_audio_buffer.commit":
            await _say(socket, "error", error=f"Unknown event type: {kind}", code="unknown_event")
        elif not model:
            text = "Model not validated. Make sure to validate the model by sending a"
            text += " session.update event."
            await _say(socket, "error", error=text, code="model_not_validated")
        elif event.get("final"):
            form = audio.Form(bytes(sound), {"model": model})
            await _transcribe(socket, driver, form, models, max_model_len)
            sound.clear()
    return socket


async def _transcribe(
    socket: web.WebSocketResponse,
    driver: Driver,
    form: audio.Form,
    models: list[str],
    max_model_len: int,
) -> None:
    text = f"{form.mark} "
    try:
        call = audio.call(form, models, max_model_len)
        with driver.admit(call) as live:
            await _say(socket, "transcription.delta", delta=text)
            async for piece in audio.pieces(live):
                text += piece
                await _say(socket, "transcription.delta", delta=piece)
            usage = usage_of(len(form.audio) // 1000, live.choices[0].taken)
        await _say(socket, "transcription.done", text=text, usage=usage)
    except ApiError as error:
        await _say(socket, "error", error=str(error), code="processing_error")


async def _say(socket: web.WebSocketResponse, kind: str, **fields: Any) -> None:
    await socket.send_str(json.dumps({"type": kind, **fields}))
