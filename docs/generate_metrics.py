"""Writes docs/metrics.md: `./run docs` (write) or `./run docs --check`.

Rule: all that the tables say comes from trimtab/catalogue.py; what is said around them is below.
"""

from __future__ import annotations

from collections import defaultdict

from docs import generated
from trimtab.catalogue import CODE, METRICS, OTHER
from trimtab.metric import Label, Metric, Part

PAGE = generated.ROOT / "docs/metrics.md"
SECTIONS = {
    Part.EDGE: "What an edge exports",
    Part.LEADER: "What the leading control plane exports",
    Part.CONTROLPLANE: "What every control plane exports",
    Part.BOTH: "What both export",
}
HEAD = f"""# Metrics

<!-- Generated from trimtab/catalogue.py by `./run docs`: change it there. -->

`/metrics` is on the operators' address of each process, not on the clients': `admin` of an edge
(127.0.0.1:4001 by default), `controlplane_metrics` of a control plane (nowhere by default), see
[configuration](configuration.md).

```yaml
scrape_configs:
  - job_name: trimtab-edge           # one target for each worker: with edge.workers: 2,
    static_configs:                  # admin and the port after it
      - targets: ["10.0.0.1:4001", "10.0.0.1:4002"]
  - job_name: trimtab-controlplane   # all of them; the one that leads tells of the fleet
    static_configs:
      - targets: ["10.0.0.1:4002", "10.0.0.2:4002", "10.0.0.3:4002"]
```

- Each worker of an edge counts its own requests, and no request is counted at two of them: `sum`
  adds them up, histograms too (`sum by (le, model)`).
- Seconds, bytes, ratios of 1. Latencies have vLLM's own buckets, so that a percentile here and one
  of `vllm:...` are cut at the same places.
- A label has a fixed set of values, or so many at most; what is beyond is counted under
  `{OTHER}`, so that nothing is lost from a sum. No label ever has a key, a user, an id or a word of
  a prompt. An edge has at most 10,000 series of a metric.
- What belongs to a request is counted once, at its end, from its record; no chunk of a stream is
  looked at for it. So `inter_token_latency` is the mean of a stream, weighted by its tokens: its
  mean and its sum are exact, a pause in the middle of a stream does not show. The engines' own
  `vllm:inter_token_latency_seconds` has those.
- All of it costs a plain request 2.2 us and a stream 3.0; a scrape with 100 replicas, 20 tenants
  and 4 models takes 9 ms at an edge and 17 ms at the leader, 2 of them on its loop (`./run bench
  metrics`, on a slow core).
- Counts of the leading control plane begin anew with its term. `rate` and `increase` take that as
  any restart; another one leads under another `instance`.
"""
TAIL = """
## What is not there

| | why |
|---|---|
| spend, budgets, rate limits | Trimtab has none of them (see the README's limits) |
| canary and rollout | there are no rollouts |
| GPUs | DCGM's exporter has all; what we make of them is in `trimtab_replica_engine_healthy` |
| what engines say (`vllm:...`) | scrape the engines: no copy is as fresh |
| agents | they have no page: the leader says how old their reports are |
"""


def page() -> str:
    """All of it."""
    sections = (_section(part, title) for part, title in SECTIONS.items())
    return "\n".join([HEAD, _labels(), *sections, _buckets(), TAIL])


def _labels() -> str:
    known = {label.name: label for metric in METRICS for label in metric.labels if label.means}
    rows = [f"| `{one.name}` | {one.means} | {one.most:,} |" for one in known.values()]
    rows.append(f"| `code` | {', '.join(CODE.values)} | {len(CODE.values)} |")
    return "\n".join(["## Labels\n", "| label | what | at most |", "|---|---|--:|", *rows, ""])


def _buckets() -> str:
    groups: defaultdict[tuple[float, ...], list[str]] = defaultdict(list)
    for metric in METRICS:
        if metric.buckets:
            groups[metric.buckets].append(f"`{metric.name}`")
    rows = [
        f"| {', '.join(names)} | {' '.join(f'{bound:g}' for bound in bounds)} |"
        for bounds, names in groups.items()
    ]
    return "\n".join(["## Buckets\n", "| of | up to, seconds |", "|---|---|", *rows])


def _section(part: Part, title: str) -> str:
    rows = [_row(metric) for metric in METRICS if metric.part is part]
    return "\n".join([f"## {title}\n", "| metric | labels | what |", "|---|---|---|", *rows, ""])


def _row(metric: Metric) -> str:
    labels = "<br>".join(_label(label) for label in metric.labels)
    kind = f"{metric.kind.value}{f', {metric.unit}' if metric.unit else ''}"
    return f"| `{metric.exported}`<br>{kind} | {labels} | {metric.text} |"


def _label(label: Label) -> str:
    listed = label.values and label is not CODE
    values = f": {', '.join(label.values)}" if listed else ""
    return f"`{label.name}`{values}"


if __name__ == "__main__":
    raise SystemExit(generated.main(lambda: {PAGE: page()}))
