"""`trimtab up`: a whole fleet on one machine with one command. Wires, and decides nothing."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import random
import signal
import sys
from typing import Annotated

import typer

from standalone import banner, commands, fleet, options, ports, state
from standalone.config import Flags, Plan, effective, plan, with_page
from standalone.engines import choose, first_model
from standalone.serving import Wish
from standalone.supervisor import StartError, Supervisor
from trimtab.runtime import service
from trimtab.runtime.clock import now_s
from trimtab.runtime.tasks import TaskRunner

app = typer.Typer(
    help="One OpenAI-compatible endpoint for self-hosted vLLM engines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"trimtab {importlib.metadata.version('trimtab')}")
        raise typer.Exit


commands.add(app)


@app.callback()
def trimtab(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Hold the options that come before a command; it also keeps `up` a command of its own."""


@app.command()
def up(  # noqa: PLR0913, PLR0917 - a flag each, and typer passes them by name
    engine: options.Engine = None,
    serve: options.Serve = "",
    gpus: options.Gpus = "",
    engines: options.Engines = 0,
    vllm: options.Vllm = "",
    listen: options.Listen = "",
    admin: options.Admin = "",
    key: options.Key = "",
    config: options.Config = None,
    state_dir: options.State = None,
    demo: options.Demo = False,
    vllm_flags: options.VllmFlags = None,
) -> None:
    """Run control plane, agent and edge here, for the vLLM engines of this machine.

    Clients connect to 127.0.0.1:4000 unless --listen says otherwise. Without --engine it looks for
    vLLM on 127.0.0.1:8000-8007, and finding none it starts two simulated engines. With --serve it
    starts vLLM itself: trimtab up --serve MODEL --gpus 0,1 -- --max-model-len 128000
    """
    wish = Wish(serve, gpus, engines, vllm, tuple(vllm_flags or ()))
    flags = Flags(tuple(engine or ()), listen, admin, key, config, state_dir, demo, wish)
    try:
        todo = plan(flags, os.environ)
        place = state.prepare(todo.state_dir)
        state.lock(place)
        ports.require_free(todo.base.listen, "--listen")
        for address in todo.admins:
            ports.require_free(address, "--admin")
        todo = with_page(todo, lambda first: ports.free_from(first, 1)[0])
        code = service.run(run(todo, place, banner.Console(sys.stdout)))
    except service.ConfigError as error:
        print(error, file=sys.stderr)
        code = service.EXIT_CONFIG
    except StartError as error:
        print(error, file=sys.stderr)
        code = 1
    raise typer.Exit(code)


async def run(todo: Plan, place: state.State, console: banner.Console) -> None:
    """Run the fleet until told to stop."""
    started_s = now_s()
    stop, up = asyncio.Event(), asyncio.Event()
    engines = await choose(todo, place, console)
    key = todo.key or ("" if todo.base.keys else state.kept_key(place))
    config = effective(todo, place.control_target, engines.added, key)
    state.hand_on(place, config, todo.upstream_key)
    specs = [*engines.specs, *fleet.services(place, config)]
    supervisor = Supervisor(specs, place, random.SystemRandom(), console)
    _obey_signals(stop, supervisor, console)

    async def tell() -> None:
        await up.wait()
        url = banner.endpoint(config.listen)
        if todo.serve.model:
            console.say(banner.loading(todo.base.controlplane_metrics))
            await console.has_engine.wait()
        model = await first_model(url, key, engines.model, engines.wait_s)
        console.ready(now_s() - started_s, banner.rows(todo, place, url, key, model))

    async with TaskRunner() as tasks:
        telling = tasks.once("console", tell())
        tasks.forever("status", console.keep_showing(up))
        await supervisor.run(stop, up)
        telling.cancel()
    console.say("stopped")


def _obey_signals(stop: asyncio.Event, supervisor: Supervisor, console: banner.Console) -> None:
    """The first signal ends in order, the second at once."""

    def obey() -> None:
        if stop.is_set():
            supervisor.kill()
            return
        console.say("stopping in order; again: at once")
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup wants us to stay
            loop.add_signal_handler(number, obey)


def main() -> int:
    """Entry point; exit status."""
    try:
        app(prog_name="trimtab")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
