"""A fixed fleet with something of everything: open, lost and cordoned; absent values; two pools."""

from __future__ import annotations

from dataclasses import replace

from trimtab.facts import EngineSetup, FleetFacts, PeerFacts, ProcessFacts
from trimtab.model import (
    BreakerState,
    EngineState,
    GpuSample,
    GpuState,
    Intent,
    LimitSource,
    Route,
    Serving,
    XidEvent,
)
from trimtab.views import (
    AgentView,
    Concern,
    Detail,
    EdgeView,
    Explanation,
    Finding,
    Fleet,
    FleetEvent,
    PoolView,
    ReplicaView,
)

BIG = "gpt-oss-120b"

GPU0 = ReplicaView(
    route=Route(
        replica="gpu0",
        pool=BIG,
        node="h200a",
        url="http://10.0.0.7:8000",
        served_as=BIG,
        serving=Serving.OPEN,
        max_model_len_tokens=131_072,
        breaker=BreakerState.HEALTHY,
    ),
    state=EngineState.READY,
    state_age_ms=525_600_000,
    limit_slots=128,
    full_slots=132,
    max_num_seqs=128,
    max_num_seqs_source=LimitSource.COMMAND_LINE,
    weight=1.0,
    inflight=98,
    running=98,
    waiting=0,
    kv_cache_usage_ratio=0.41,
    ttft_p50_s=4.9,
    ttft_p99_s=21.7,
    generation_tokens_per_s=3120.5,
    share_ratio=0.58,
    failures_1m=0,
    overloads_1m=3,
    report_age_ms=230,
    vllm_version="0.32.0",
    uptime_ms=525_600_000,
    gpus=(
        GpuSample(
            index=0,
            uuid="GPU-1",
            name="NVIDIA H200",
            memory_total_bytes=150_754_820_096,
            memory_used_bytes=141_000_000_000,
            utilization_ratio=0.98,
            temperature_celsius=61,
            power_watts=640.0,
            throttle_reasons=0,
        ),
    ),
)

GPU1 = ReplicaView(
    route=Route(
        replica="gpu1",
        pool=BIG,
        node="h200a",
        url="http://10.0.0.7:8001",
        served_as="gpt-oss-120b_2",
        serving=Serving.LOST,
        reason="ejected: its agent says that it does no useful work; "
        "engine STALLED: no token for 12.4 s with 7 running",
        breaker=BreakerState.EJECTED,
    ),
    state=EngineState.STALLED,
    state_reason="no token for 12.4 s with 7 running",
    state_age_ms=12_400,
    limit_slots=128,
    max_num_seqs=128,
    inflight=0,
    running=7,
    waiting=12,
    kv_cache_usage_ratio=0.33,
    failures_1m=7,
    report_age_ms=410,
    vllm_version="0.32.0",
    uptime_ms=3_725_000,
    full_slots=132,
    breaker_reason="its agent says that it does no useful work",
    breaker_age_ms=2_400,
    ejected_for_ms=17_100,
    ejections=3,
    gpus=(
        GpuSample(index=1, temperature_celsius=88, throttle_reasons=0x40, utilization_ratio=1.0),
        GpuSample(index=2, state=GpuState.LOST, detail="GPU is lost", xids=(XidEvent(79, 11_000),)),
    ),
)

GPU2 = ReplicaView(
    route=Route(
        replica="gpu2",
        pool="qwen3-8b",
        node="h200b",
        url="http://10.0.0.8:8000",
        served_as="qwen3-8b",
        serving=Serving.CLOSED,
        reason="cordoned by op@box: fan; no report yet",
    ),
    intent=Intent.CORDONED,
    max_num_seqs=256,
    limit_slots=256,
)

GPU3 = ReplicaView(
    route=Route(
        replica="gpu3",
        pool="qwen3-8b",
        node="h200b",
        url="http://10.0.0.8:8001",
        served_as="qwen3-8b",
        serving=Serving.OPEN,
        reason="ramping: 3 probes in a row answered; engine WARMING",
        breaker=BreakerState.RAMPING,
    ),
    state=EngineState.WARMING,
    weight=1.0,
    limit_slots=43,
    full_slots=260,
    breaker_reason="3 probes in a row answered",
    breaker_age_ms=4_100,
    max_num_seqs=256,
    running=0,
    waiting=0,
    kv_cache_usage_ratio=0.0,
    ttft_p50_s=0.084,
    report_age_ms=95,
    uptime_ms=48_000,
)

FLEET = Fleet(
    name="lab-a",
    leader="cp1",
    term=3,
    version=412,
    controlplane_version="0.1.0",
    replicas=(GPU0, GPU1, GPU2, GPU3),
    edges=(
        EdgeView(
            edge="edge-a",
            edge_version="0.1.0",
            listen_url="http://10.0.0.2:4000",
            acked_version=412,
            sent_version=412,
            inflight=98,
            queued=29,
            requests_1m=1200,
            shed_1m=4,
            connected_ms=7_500_000,
            report_age_ms=640,
        ),
        EdgeView(
            edge="edge-b",
            edge_version="0.1.0",
            acked_version=398,
            sent_version=412,
            last_error='Snapshot.routes: "http:/x" is not a URL',
            connected_ms=9_000,
        ),
    ),
    agents=(
        AgentView("h200a", "0.1.0", connected=True, report_age_ms=230),
        AgentView("h200b", "0.1.0", gpu_detail="no driver: libnvidia-ml.so.1 not found"),
    ),
    pools=(
        PoolView(BIG, 2, 1, 128, 128, inflight=98, queued=29, shed_1m=4, requests_1m=1200),
        PoolView("qwen3-8b", 2, 1, 256, 512),
    ),
)

WELL = Fleet(
    name="lab-a",
    leader="cp1",
    term=3,
    version=413,
    controlplane_version="0.1.0",
    replicas=(GPU0,),
    edges=FLEET.edges[:1],
    agents=FLEET.agents[:1],
    pools=(PoolView(BIG, 1, 1, 128, 128, inflight=98, requests_1m=1200),),
)

_PROCESS = ProcessFacts(open_files=60, open_files_limit=262_144)
_STARTED = EngineSetup("gpu0", True, ("127.0.0.1",), 0, True, 300.0, 128, "", True, False)
FACTS = FleetFacts(
    leader=_PROCESS,
    store="embedded",
    store_read_s=0.001,
    store_write_s=0.3,
    agents=(
        PeerFacts(
            "h200a",
            0.1,
            _PROCESS,
            (_STARTED, replace(_STARTED, replica="gpu1", listens=("::",), dev_mode=True)),
        ),
    ),
    edges=(PeerFacts("edge-a", 2.5, _PROCESS), PeerFacts("edge-b", error="no answer in 2 s")),
    queue_limit=256,
)

EVENTS = [
    FleetEvent(1, 1_700_000_000_000, "", "leads", "term 3"),
    FleetEvent(2, 1_700_000_001_500, "h200a", "agent connected", details=(Detail("n", "1"),)),
    FleetEvent(
        number=3,
        at_ms=1_700_000_060_000,
        about="gpu1",
        what="breaker moved",
        text="HEALTHY -> EJECTED: its agent says that it does no useful work",
        details=(Detail("dispatched", "10"), Detail("failed", "5")),
    ),
]

WHY_GPU1 = Explanation(
    replica="gpu1",
    headline="gpu1 gets no new requests: engine STALLED for 12.4 s: no token\x1b[2J for 12.4 s",
    in_rotation=False,
    traffic="0% of the attempts of gpt-oss-120b in the last minute",
    findings=(
        Finding(Concern.BLOCKS, "engine", "STALLED for 12.4 s: no token for 12.4 s"),
        Finding(Concern.BLOCKS, "breaker", "ejected for 3.0 s; probed in 2.0 s"),
        Finding(Concern.LIMITS, "demand", "no requests for gpt-oss-120b in the last minute"),
        Finding(Concern.FINE, "intent", "nobody holds it back"),
    ),
    effect="gpt-oss-120b has 128 of 128 healthy slots open on 1 of 2 replicas",
    advice=("look at the engine's own log on h200a",),
    events=(EVENTS[2],),
)
WHY_GPU0 = Explanation(
    replica="gpu0",
    headline="gpu0 is in rotation, and nothing holds it back",
    in_rotation=True,
    traffic="58% of the attempts of gpt-oss-120b in the last minute",
    findings=(Finding(Concern.FINE, "intent", "nobody holds it back"),),
    effect="gpt-oss-120b has 128 of 128 healthy slots open on 1 of 2 replicas",
)
