"""What the looks add up to: the first line, what it means, what helps."""

from __future__ import annotations

from controlplane.core.looks import LOOKS
from controlplane.core.placement import EngineSpec
from controlplane.core.subscription import Subscription
from tests.unit.controlplane.core.test_looks import Story, cordoned, stalled
from trimtab.views import Concern


def test_nothing_stands_in_the_way() -> None:
    story = Story()
    story.well()
    found = story.why()
    assert found.headline == "r1 is in rotation, and nothing holds it back"
    assert {finding.concern for finding in found.findings} == {Concern.FINE}
    assert found.advice == ()
    assert found.traffic.startswith("100% of the attempts of m")
    assert found.effect.startswith("m has 40 of 40 healthy slots open on 2 of 2 replicas; 3 ")


def test_all_looks_are_told_and_the_worst_first() -> None:
    story = Story()
    story.well()
    cordoned(story)
    stalled(story)
    found = story.why()
    assert [finding.what for finding in found.findings[:2]] == ["intent", "engine"]
    assert {finding.what for finding in found.findings} == set(LOOKS)
    assert [finding.concern for finding in found.findings] == sorted(
        finding.concern for finding in found.findings
    )
    assert found.advice[0] == "ctl uncordon r1"


def test_an_engine_that_nobody_has_reported() -> None:
    story = Story(EngineSpec("r1", "http://h:9", "m"))
    found = story.why()
    assert "no new requests: engine no report of it yet" in found.headline
    assert any("trimtab-agent" in hint for hint in found.advice)


def test_an_edge_that_refuses_its_routing_is_named() -> None:
    story = Story()
    story.well()
    subscription = Subscription()
    subscription.last_error = "routes: bad URL"
    assert "edges not all have the newest routing: e1 refused it: routes: bad URL" in (
        story.why(subscription).headline
    )
