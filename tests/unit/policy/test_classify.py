"""policy/classify: overload is not failure, and the caller's doing says nothing."""

from __future__ import annotations

import pytest

from trimtab.model import Outcome
from trimtab.policy.classify import Failure, Fault, classify

BUSY = "The engine is currently busy and cannot accept new requests."
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (None, Outcome.OK),
        (Failure(Fault.STATUS, 503, BUSY), Outcome.OVERLOAD),
        (Failure(Fault.STATUS, 429), Outcome.OVERLOAD),
        (Failure(Fault.STATUS, 400), Outcome.CLIENT),
        (Failure(Fault.STATUS, 404), Outcome.CLIENT),
        (Failure(Fault.STATUS, 422), Outcome.CLIENT),
        (Failure(Fault.STATUS, 401), Outcome.SOFT),
        (Failure(Fault.STATUS, 403), Outcome.SOFT),
        (Failure(Fault.STATUS, 500, "CUDA error in this request"), Outcome.SOFT),
        (Failure(Fault.STATUS, 500, DEAD), Outcome.HARD),
        (Failure(Fault.STATUS, 500, "cannot schedule new futures after shutdown"), Outcome.HARD),
        (Failure(Fault.STATUS, 502), Outcome.SOFT),
        (Failure(Fault.REFUSED), Outcome.HARD),
        (Failure(Fault.EMPTY), Outcome.HARD),
        (Failure(Fault.ABORTED), Outcome.HARD),
        (Failure(Fault.LOST), Outcome.HARD),
        (Failure(Fault.CUT), Outcome.SOFT),
        (Failure(Fault.MALFORMED), Outcome.SOFT),
        (Failure(Fault.UNREACHABLE), Outcome.PATH),
        (Failure(Fault.STALE), Outcome.UNKNOWN),
        (Failure(Fault.SILENT), Outcome.UNKNOWN),
        (Failure(Fault.CLIENT_GONE), Outcome.CLIENT),
        (Failure(Fault.LATE), Outcome.CLIENT),
        (Failure(Fault.OUTRUN), Outcome.CLIENT),
    ],
)
def test_classes(failure: Failure | None, outcome: Outcome) -> None:
    assert classify(failure) is outcome


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_has_a_class(fault: Fault) -> None:
    assert classify(Failure(fault, 500)) in set(Outcome) - {Outcome.UNSPECIFIED, Outcome.OK}
