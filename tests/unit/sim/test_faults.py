"""Changes merge, orders are not kept, mistakes are refused with a sentence."""

import pytest

from sim.faults import Death, Faults, Orders, read_change


@pytest.mark.parametrize(
    ("current", "posted", "faults", "orders"),
    [
        (Faults(), b"{}", Faults(), Orders()),
        (Faults(slow=3), b'{"freeze": true}', Faults(slow=3, freeze=True), Orders()),
        (Faults(slow=3), b'{"slow": 1}', Faults(), Orders()),
        (Faults(queue_limit=2), b'{"queue_limit": null}', Faults(), Orders()),
        (
            Faults(),
            b'{"die_mid_stream": {"after_tokens": 3, "mode": "enginecore"}}',
            Faults(die_mid_stream=Death(3, "enginecore")),
            Orders(),
        ),
        (Faults(hang=True), b'{"restart": true}', Faults(hang=True), Orders(restart=True)),
        (Faults(), b'{"cold_start_s": 2}', Faults(), Orders(cold_start_s=2.0)),
    ],
)
def test_changes(current: Faults, posted: bytes, faults: Faults, orders: Orders) -> None:
    assert read_change(current, posted) == (faults, orders)


@pytest.mark.parametrize(
    "posted",
    [
        b"",
        b"[]",
        b'{"slwo": 2}',
        b'{"slow": 0}',
        b'{"slow": "fast"}',
        b'{"error_rate": 2}',
        b'{"abort_after": -1}',
        b'{"die_mid_stream": {"mode": "gpu"}}',
        b'{"cold_start_s": -1}',
    ],
)
def test_mistakes(posted: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_change(Faults(), posted)
