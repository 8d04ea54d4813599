"""A simulated vLLM engine as a process: `python -m sim.engine_http --port 8000`.

Flags that vLLM has are spelled as in vLLM. One JSON line on stdout says which ports were bound.
SIGTERM and SIGINT end it within a second; a killed one is as dead as a killed vLLM.
"""

import argparse
import asyncio
import hashlib
import json
import random
import signal
import sys
from dataclasses import replace

import uvloop
from aiohttp import web

from sim.driver import Driver
from sim.engine import EngineSpec
from sim.http_api import HttpApi, Identity
from sim.lifecycle import Control, Lifecycle
from trimtab.runtime.notify import notify
from trimtab.runtime.tasks import TaskRunner

_HEADER_LIMIT_BYTES = 256 * 1024
_SHUTDOWN_S = 0.3
_CONTROL_HOST = "127.0.0.1"  # whoever can break the engine is on this machine
_PRESETS = {"demo": EngineSpec.demo, "h200": EngineSpec.h200}


def main() -> None:
    """Run until told to stop."""
    args = _parser().parse_args()
    try:
        spec = _spec(args)
    except ValueError as error:
        sys.exit(f"error: {error}")
    uvloop.run(_serve(args, spec))


async def _serve(args: argparse.Namespace, spec: EngineSpec) -> None:
    models = args.served_model_name or [args.model]
    seed = f"{args.model}{args.vllm_version}{args.seed}".encode()
    identity = Identity(
        models=models,
        root=args.model,
        version=args.vllm_version,
        fingerprint=f"vllm-{args.vllm_version}-{hashlib.sha256(seed).hexdigest()[:8]}",
        api_keys=tuple(args.api_key),
        adapters=dict(module.split("=", 1) for module in args.lora_modules),
        keeps_responses=args.keep_responses,
    )
    driver = Driver(spec, models[0], args.busy_status)
    api = HttpApi(driver, identity, random.Random(args.seed))
    runner = web.AppRunner(
        api.app(),
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=args.keep_alive_s,
        max_field_size=_HEADER_LIMIT_BYTES,
        shutdown_timeout=_SHUTDOWN_S,
    )
    await runner.setup()
    lifecycle = Lifecycle(driver, runner, args.host, args.port)
    lifecycle.restart(args.cold_start_s)
    await lifecycle.settle()
    control = web.AppRunner(Control(lifecycle, driver).app(), access_log=None)
    await control.setup()
    site = web.TCPSite(control, _CONTROL_HOST, args.control_port)
    await site.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with TaskRunner() as tasks:
        tasks.forever("engine", driver.run())
        tasks.forever("port", lifecycle.run())
        ports = {"port": lifecycle.port, "control_port": control.addresses[0][1]}
        print(json.dumps(ports), flush=True)  # noqa: T201 - the caller reads it
        notify(ready=True)
        await stop.wait()
        await asyncio.gather(runner.cleanup(), control.cleanup())


def _spec(args: argparse.Namespace) -> EngineSpec:
    """The preset, changed by the flags that were given."""
    given = {
        "max_num_seqs": args.max_num_seqs,
        "max_num_batched_tokens": args.max_num_batched_tokens,
        "max_model_len": args.max_model_len,
        "num_gpu_blocks": args.num_gpu_blocks_override,
        "block_size": args.block_size,
        "max_num_queued_reqs": args.max_num_queued_reqs,
        "max_num_queued_tokens": args.max_num_queued_tokens,
    }
    spec = replace(_PRESETS[args.preset](), **{k: v for k, v in given.items() if v is not None})
    return spec.faster(args.speed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sim.engine_http", description=__doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8000, help="0 takes any free one")
    add("--control-port", type=int, default=0, help="for /sim/faults; 0 takes any free one")
    add("--model", default="sim-8b", help="also shown as the model's root")
    add("--served-model-name", nargs="+")
    add("--lora-modules", nargs="+", default=[], metavar="NAME=PATH")
    add("--api-key", nargs="+", default=[])
    add("--max-num-seqs", type=int)
    add("--max-num-batched-tokens", type=int)
    add("--max-model-len", type=int)
    add("--num-gpu-blocks-override", type=int)
    add("--block-size", type=int)
    add("--max-num-queued-reqs", type=int)
    add("--max-num-queued-tokens", type=int)
    add("--busy-status", type=int, choices=(503, 429), default=503, help="of a full queue")
    add("--keep-alive-s", type=float, default=5.0, help="vLLM's VLLM_HTTP_TIMEOUT_KEEP_ALIVE")
    add("--preset", choices=sorted(_PRESETS), default="demo")
    add("--speed", type=float, default=1.0, help="every step this many times as fast")
    add("--cold-start-s", type=float, default=0.0, help="refuse this long, then run slowly as long")
    add("--keep-responses", action="store_true", help="VLLM_ENABLE_RESPONSES_API_STORE")
    add("--seed", type=int, default=0, help="of the error_rate fault's dice")
    add("--vllm-version", default="0.32.0")
    return parser


if __name__ == "__main__":
    main()
