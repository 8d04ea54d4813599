"""What metrics cost: microseconds of a request at the edge, milliseconds of a scrape.

Run: `./run bench metrics`. Time on a core, so that others on the machine do not count; the best of
several rounds, because what disturbs only adds.
"""

from __future__ import annotations

import timeit
from functools import partial
from time import process_time

from controlplane.metrics import ControlMetrics
from edge.core.decisions import Attempt, Ending, Notes, Record
from tests.fakes.metrics import MODELS, REPLICAS, TENANTS, busy_edge, led, told
from trimtab.model import Outcome, Urgency

ROUNDS, NUMBER = 9, 20_000
rounds = partial(timeit.repeat, timer=process_time, repeat=ROUNDS)


def record(pool: str, tenant: str, *, stream: bool) -> Record:
    """One that went well."""
    one = Attempt("r1", 1.0, 2.0, Outcome.OK, "", 200, (), tokens=200, prompt_tokens=900)
    first_s = 1.2 if stream else None
    notes, ending = Notes(None, [one]), Ending("ok", 200)
    return Record("req", pool, tenant, Urgency.DEFAULT, 1, 1.0, notes, first_s, 2.0, ending)


def main() -> None:
    """Measure and print."""
    metrics = busy_edge()
    for kind, stream in (("plain request", False), ("stream", True)):
        one = record("m1", "t1", stream=stream)

        def request(one: Record = one) -> None:
            counts = metrics.model(one.pool)
            counts.in_flight[one.urgency].inc()
            counts.queue_wait.observe(0.0)
            metrics.attempted("r1", None, Outcome.OK)
            counts.in_flight[one.urgency].dec()
            metrics.ended(one)

        best_s = min(rounds(request, number=NUMBER)) / NUMBER
        print(f"{kind}: {1e6 * best_s:.2f} us of metrics, all in all")
    registry = led()
    control = ControlMetrics(lambda: told(registry))
    print(f"scrapes with {REPLICAS} replicas, {TENANTS} tenants and {MODELS} models:")
    for name, page in (("an edge", metrics), ("the leader", control)):
        on_loop_s = min(rounds(page.refresh, number=1))
        in_all_s = on_loop_s + min(rounds(page.render, number=1))
        lines = page.render().count(b"\n")
        text = f"{1e3 * in_all_s:.1f} ms, {1e3 * on_loop_s:.1f} of them on the loop"
        print(f"{name}: {text}, {lines} lines")


if __name__ == "__main__":
    main()
