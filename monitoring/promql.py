"""PromQL that can't name what does not exist: expressions that know which labels they have.

An expression begins at a metric of the catalogue (`of`, `quantile`, ...), which knows its name, its
kind, its labels and their values. Each step keeps count of the labels that are left, so a matcher,
a `by`, an `on`, a legend or an annotation with a label, or a value, that is not there is a
ValueError when the files are generated.
Rules: a counter is read by `rate` and `increase` only; two vectors meet only where their labels are
the same, or where `on` says which ones count. A label that is a word of Python ends in _ here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from trimtab.metric import Kind, Label

SCRAPE = frozenset({"job", "instance"})
"""What Prometheus itself puts on everything that it scrapes."""
_PLACEHOLDER = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")
_SIGN = re.compile(r"=~|!~|!=")
_SETS = frozenset({"and", "or", "unless"})


class Scraped(Protocol):
    """A metric; `name` is without the _total of a counter, the _bucket of a histogram."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def labels(self) -> tuple[Label, ...]: ...
    @property
    def buckets(self) -> tuple[float, ...]: ...


@dataclass(frozen=True, slots=True)
class Expr:
    """An expression, and the labels of what it yields."""

    text: str
    labels: frozenset[str]
    is_counter: bool = False
    is_whole: bool = True
    """False: beside an operator it needs brackets."""

    @property
    def inner(self) -> str:
        """As it stands beside an operator."""
        return self.text if self.is_whole else f"({self.text})"

    def has(self, labels: Iterable[str]) -> frozenset[str]:
        """These labels, if it has them all."""
        wanted = frozenset(labels)
        if missing := wanted - self.labels:
            has = ", ".join(sorted(self.labels)) or "none"
            raise ValueError(f"{self.text}: no label {', '.join(sorted(missing))}; it has {has}")
        return wanted

    def says(self, text: str) -> str:
        """This legend or annotation, if it has all of its {{labels}}."""
        self.has(_PLACEHOLDER.findall(text))
        return text

    def plain(self, text: str) -> str:
        """An annotation for people who read no alert: {{ $labels.model }} is MODEL."""
        return _PLACEHOLDER.sub(lambda found: found[1].upper(), self.says(text))

    def by(self, how: str, *labels: str) -> Expr:
        """`sum`, `max`, ... over everything but these labels."""
        self._level()
        over = f" by ({', '.join(labels)}) " if labels else " "
        return Expr(f"{how}{over}({self.text})", self.has(labels))

    def over(self, how: str, window: str) -> Expr:
        """`max_over_time`, `changes`, ... of what is no counter."""
        self._level()
        return Expr(f"{how}({self.text}[{window}])", self.labels)

    def rate(self, window: str) -> Expr:
        """A counter's growth a second."""
        return self._grown("rate", window)

    def increase(self, window: str) -> Expr:
        """A counter's growth."""
        return self._grown("increase", window)

    def total(self) -> Expr:
        """What a counter says, for rare things: its first one is no growth to Prometheus."""
        if not self.is_counter:
            raise ValueError(f"{self.text}: not a counter")
        return Expr(self.text, self.labels)

    def ago(self, time: str) -> Expr:
        """The same, that long ago."""
        return Expr(f"{self.text} offset {time}", self.labels, self.is_counter)

    def meet(self, sign: str, other: Expr, on: Iterable[str] | None = None) -> Expr:
        """Two vectors, matched by all labels, or by `on`; a set operator keeps the left one's."""
        self._level()
        other._level()
        if on is None and self.labels != other.labels:
            raise ValueError(f"{self.text} {sign} {other.text}: other labels, say which count")
        shared = self.labels if on is None else self.has(on) & other.has(on)
        words = "" if on is None else f"on ({', '.join(on)}) "
        left = self.labels if sign in _SETS else shared
        return Expr(f"{self.inner} {sign} {words}{other.inner}", left, is_whole=False)

    def also(self, other: Expr, on: Iterable[str] | None = None) -> Expr:
        """Where the other one holds too."""
        return self.meet("and", other, on)

    def unless(self, other: Expr, on: Iterable[str] | None = None) -> Expr:
        """Where the other one does not hold."""
        return self.meet("unless", other, on)

    def part_of(self, whole: Expr) -> Expr:
        """What it is of the whole: 0, not nothing, where it never happened."""
        return self.meet("or", whole.number("*", "0")) / whole

    def share_of(self, whole: Expr, *on: str) -> Expr:
        """Many on the left for one on the right: what each is of the whole."""
        self.has(whole.has(on))
        matching = f"on ({', '.join(on)})"
        text = f"{self.inner} / {matching} group_left () {whole.inner}"
        return Expr(text, self.labels, is_whole=False)

    def number(self, sign: str, value: str) -> Expr:
        """With a number, or time()."""
        self._level()
        return Expr(f"{self.inner} {sign} {value}", self.labels, is_whole=False)

    def rest(self) -> Expr:
        """1 without it."""
        self._level()
        return Expr(f"1 - {self.inner}", self.labels, is_whole=False)

    def __gt__(self, value: float) -> Expr:
        return self.number(">", f"{value:.10g}")

    def __ge__(self, value: float) -> Expr:
        return self.number(">=", f"{value:.10g}")

    def __lt__(self, value: float) -> Expr:
        return self.number("<", f"{value:.10g}")

    def __truediv__(self, other: Expr) -> Expr:
        return self.meet("/", other)

    def _grown(self, how: str, window: str) -> Expr:
        if not self.is_counter:
            raise ValueError(f"{how}({self.text}): not a counter")
        return Expr(f"{how}({self.text}[{window}])", self.labels)

    def _level(self) -> None:
        if self.is_counter:
            raise ValueError(f"{self.text}: a counter, read it by rate or increase")


def of(metric: Scraped, **matchers: str) -> Expr:
    """A counter's or a gauge's series; a matcher may begin with =~, !~ or !=, else it means =."""
    if metric.kind is Kind.HISTOGRAM:
        raise ValueError(f"{metric.name}: a histogram, take its quantile, mean, count or share")
    is_counter = metric.kind is Kind.COUNTER
    return _select(metric, "_total" if is_counter else "", matchers, is_counter)


def count(metric: Scraped, **matchers: str) -> Expr:
    """How many a histogram has seen: a counter."""
    return _part(metric, "_count", matchers)


def buckets(metric: Scraped, **matchers: str) -> Expr:
    """How many a histogram has seen up to each bound (le): a counter."""
    return _part(metric, "_bucket", matchers)


def quantile(share: float, metric: Scraped, window: str, *by: str, **matchers: str) -> Expr:
    """`share` of what a histogram saw in the window is below this."""
    seen = buckets(metric, **matchers).rate(window).by("sum", *by, "le")
    return Expr(f"histogram_quantile({share:g}, {seen.text})", frozenset(by))


def share_below(bound: float, metric: Scraped, window: str, *by: str, **matchers: str) -> Expr:
    """The share of what a histogram saw that is at most `bound`, one of its buckets."""
    if bound not in metric.buckets:
        raise ValueError(f"{metric.name}: {bound:g} is no bound of its buckets")
    below = _part(metric, "_bucket", {**matchers, "le": f"{float(bound)}"})
    whole = _part(metric, "_count", matchers)
    return below.rate(window).by("sum", *by) / whole.rate(window).by("sum", *by)


def mean(metric: Scraped, window: str, *by: str, **matchers: str) -> Expr:
    """The mean of what a histogram saw."""
    total, number = _part(metric, "_sum", matchers), _part(metric, "_count", matchers)
    return total.rate(window).by("sum", *by) / number.rate(window).by("sum", *by)


def absent(expr: Expr) -> Expr:
    """1 where there is nothing."""
    return Expr(f"absent({expr.text})", frozenset())


def _part(metric: Scraped, suffix: str, matchers: dict[str, str]) -> Expr:
    if metric.kind is not Kind.HISTOGRAM:
        raise ValueError(f"{metric.name}: no histogram")
    return _select(metric, suffix, matchers, is_counter=True)


def _select(metric: Scraped, suffix: str, matchers: dict[str, str], is_counter: bool) -> Expr:
    known = {label.name: label for label in metric.labels}
    own = frozenset(known) | SCRAPE | ({"le"} if suffix == "_bucket" else frozenset())
    matchers = {name.rstrip("_"): value for name, value in matchers.items()}
    Expr(metric.name, own).has(matchers)
    for name, value in matchers.items():
        if name in known:
            _check(metric, known[name], value)
    inner = ", ".join(_matcher(name, value) for name, value in matchers.items())
    text = f"{metric.name}{suffix}" + (f"{{{inner}}}" if inner else "")
    return Expr(text, own, is_counter)


def _check(metric: Scraped, label: Label, matcher: str) -> None:
    """A value that a label of a fixed set can't have would match nothing, or everything."""
    value = _SIGN.sub("", matcher, count=1)
    if not label.values or value.startswith("$"):
        return
    wanted = value.split("|") if _SIGN.match(matcher) else [value]
    for one in wanted:
        if not any(re.fullmatch(one, can_be) for can_be in label.values):
            raise ValueError(f'{metric.name}: {label.name} is never "{one}"')


def _matcher(label: str, matcher: str) -> str:
    sign = found.group() if (found := _SIGN.match(matcher)) else "="
    return f'{label}{sign}"{_SIGN.sub("", matcher, count=1)}"'
