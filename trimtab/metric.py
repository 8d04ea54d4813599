"""What a metric is: the shape of the entries in `trimtab.catalogue`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a metric is to Prometheus; STATES are gauges of which exactly one is 1."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    STATES = "state set"


class Part(Enum):
    """Who exports it."""

    EDGE = "edge"
    CONTROLPLANE = "control plane"
    LEADER = "leading control plane"
    BOTH = "edge and control plane"


@dataclass(frozen=True, slots=True)
class Label:
    """A label: its values, or how many there may be."""

    name: str
    values: tuple[str, ...] = ()
    most: int = 0
    means: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `name` is without the `_total` of a counter."""

    name: str
    kind: Kind
    part: Part
    text: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exported(self) -> str:
        """The name that queries use, of a histogram without its suffixes."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name

    @property
    def series(self) -> tuple[str, ...]:
        """Everything that a query may name."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{end}" for end in ("bucket", "count", "sum"))
        return (self.exported,)

    @property
    def label_names(self) -> tuple[str, ...]:
        """In their order."""
        return tuple(label.name for label in self.labels)

    @property
    def unit(self) -> str:
        """By its name; empty for what is counted."""
        units = {"timestamp_seconds": "s since 1970", "seconds": "s", "bytes": "bytes"}
        units["ratio"] = "0 to 1"
        return next((unit for end, unit in units.items() if self.name.endswith(f"_{end}")), "")
