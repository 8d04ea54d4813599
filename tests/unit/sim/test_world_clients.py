"""Clients of the virtual world: what an SDK, an impatient and a deaf client do with refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from sim.world.client import Client, ClientSpec
from sim.world.loop import Loop
from sim.world.requests import Call, Fate, Job

END_S = 1000.0


class Dice:
    """Always shows the same."""

    def random(self) -> float:
        return 0.0


@dataclass(frozen=True)
class Answer:
    """A refusal, or with status 200 an answer that begins at once and ends a second later."""

    status: int
    retry_after_s: float | None = None
    retry: bool | None = None
    after_s: float = 0.0


class Gateway:
    """Answers as it was told, one after the other; the last answer goes on for ever."""

    name = "g"

    def __init__(self, loop: Loop, *answers: Answer) -> None:
        self.loop = loop
        self.answers = list(answers)
        self.asked_s: list[float] = []
        self.left = 0

    def submit(self, call: Call) -> None:
        self.asked_s.append(self.loop.now_s)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        call.cancel = self.leave
        self.loop.after(answer.after_s, self.answer, call, answer)

    def leave(self) -> None:
        self.left += 1

    def takes(self, replica: str) -> bool:
        return bool(replica)

    def answer(self, call: Call, answer: Answer) -> None:
        if not call.live:
            return
        if answer.status != 200:
            call.live = False
            call.caller.refused(call, answer)
            return
        call.caller.began(call)
        self.loop.after(1.0, self.end, call)

    @staticmethod
    def end(call: Call) -> None:
        call.live = False
        call.caller.ended(call)


def play(spec: ClientSpec, *answers: Answer) -> tuple[Job, Gateway, Client]:
    loop = Loop()
    gateway = Gateway(loop, *answers)
    client = Client(spec, loop, [gateway], Dice(), END_S)
    job = Job(0, 0, "a", 10.0)
    loop.at(10.0, client.submit, job)
    loop.run(END_S)
    return job, gateway, client


OK = Answer(200)
SDK, DEAF, IMPATIENT = ClientSpec(), ClientSpec(obeys_retry_after=False), ClientSpec(timeout_s=5.0)


@pytest.mark.parametrize(
    ("spec", "answers", "asked_s", "fate"),
    [
        (SDK, [OK], [10.0], Fate.DONE),
        (SDK, [Answer(503, 7.5), OK], [10.0, 17.5], Fate.DONE),
        (SDK, [Answer(503), OK], [10.0, 10.5], Fate.DONE),
        (SDK, [Answer(500)], [10.0, 10.5, 11.5], Fate.FAILED),
        (SDK, [Answer(429, 3.0)], [10.0, 13.0, 16.0], Fate.REFUSED),
        (SDK, [Answer(0)], [10.0, 10.5, 11.5], Fate.FAILED),
        (SDK, [Answer(400)], [10.0], Fate.FAILED),
        (SDK, [Answer(503, 121.0)], [10.0], Fate.REFUSED),
        (SDK, [Answer(503, 3.0, retry=False)], [10.0], Fate.REFUSED),
        (SDK, [Answer(400, 3.0, retry=True), OK], [10.0, 13.0], Fate.DONE),
        (DEAF, [Answer(503, 60.0), OK], [10.0, 10.5], Fate.DONE),
        (IMPATIENT, [Answer(200, after_s=9.0)], [10.0, 15.5, 21.5], Fate.LEFT),
        (IMPATIENT, [Answer(200, after_s=4.0)], [10.0], Fate.DONE),
        (ClientSpec(retries=0), [Answer(503, 1.0)], [10.0], Fate.REFUSED),
    ],
)
def test_what_a_client_does(
    spec: ClientSpec, answers: list[Answer], asked_s: list[float], fate: Fate
) -> None:
    job, gateway, client = play(spec, *answers)
    assert gateway.asked_s == pytest.approx(asked_s)
    assert job.fate is fate
    assert job.submissions == len(asked_s)
    assert gateway.left == (len(asked_s) if fate is Fate.LEFT else 0)
    assert client.double_ends == 0
    if fate is Fate.DONE:
        assert job.first_s is not None
        assert job.ended_s == pytest.approx(job.first_s + 1.0)


def test_returns_are_counted_only_when_a_time_was_named() -> None:
    *_, client = play(SDK, Answer(503, 2.0), Answer(503), OK)
    assert (client.returned, client.returned_taken) == (1, 0)
    *_, client = play(SDK, Answer(503), Answer(503, 2.0), OK)
    assert (client.returned, client.returned_taken) == (1, 1)
    assert [refusal.retry_after_s for refusal in client.refusals] == [None, 2.0]


def test_a_second_end_is_noticed() -> None:
    loop = Loop()
    client = Client(SDK, loop, [Gateway(loop, OK)], Dice(), END_S)
    call = Call(Job(0, 0, "a", 0.0), client, 0.0, 600.0)
    ends: tuple[Callable[[Call], None], ...] = (client.ended, client.broke)
    for end in ends:
        end(call)
    assert client.double_ends == 1
