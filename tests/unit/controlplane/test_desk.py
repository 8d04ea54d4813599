"""Reports wait for their turn; what decides something takes along what waits before it."""

from functools import partial

from controlplane.desk import BACKLOG, Desk
from controlplane.streams import AgentStream
from tests.fakes.wait import until
from trimtab.runtime.tasks import TaskRunner


async def test_reports_are_taken_in_the_order_they_came() -> None:
    desk, taken, streams = Desk(), list[int](), [AgentStream(n, 0.0) for n in range(3)]
    for number in range(9):
        desk.later(streams[number % 3], partial(taken.append, number))
    assert not taken
    async with TaskRunner() as runner:
        runner.forever("desk", desk.run())
        await until(lambda: len(taken) == 9)
    assert taken == list(range(9))


def test_what_is_urgent_takes_along_what_waits_of_its_stream_only() -> None:
    desk, taken, mine, other = Desk(), list[str](), AgentStream(1, 0.0), AgentStream(2, 0.0)
    desk.later(mine, partial(taken.append, "first"))
    desk.later(other, partial(taken.append, "another's"))
    desk.later(mine, partial(taken.append, "second"))
    desk.now(mine)
    assert taken == ["first", "second"]


async def test_what_was_taken_along_is_not_taken_twice() -> None:
    desk, taken, stream = Desk(), list[int](), AgentStream(1, 0.0)
    desk.later(stream, partial(taken.append, 1))
    desk.now(stream)
    desk.later(stream, partial(taken.append, 2))
    async with TaskRunner() as runner:
        runner.forever("desk", desk.run())
        await until(lambda: 2 in taken)
    assert taken == [1, 2]


def test_a_pile_is_not_put_off_any_longer() -> None:
    desk, taken, stream = Desk(), list[int](), AgentStream(1, 0.0)
    for number in range(BACKLOG + 1):
        desk.later(stream, partial(taken.append, number))
    assert taken == list(range(BACKLOG))
