"""`trimtab up`: a whole fleet on one machine with one command. Wires, and decides nothing."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import pathlib
import random
import signal
import sys
from typing import Annotated

import msgspec
import typer
from msgspec.structs import replace

from standalone import banner, fleet, ports, state
from standalone.config import Flags, Plan, effective, plan, with_page
from standalone.engines import choose, first_model
from standalone.join import join
from standalone.supervisor import StartError, Supervisor
from trimtab.runtime import service
from trimtab.runtime.clock import now_s
from trimtab.runtime.config import Secret
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


app.command()(join)


@app.callback()
def trimtab(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Hold the options that come before a command; it also keeps `up` a command of its own."""


@app.command()
def up(  # noqa: PLR0913, PLR0917 - a flag each, and typer passes them by name
    engine: Annotated[
        list[str] | None,
        typer.Option(help="A vLLM engine, http://host:port; give it several times for several."),
    ] = None,
    listen: Annotated[str, typer.Option(help="HOST:PORT for clients.")] = "",
    admin: Annotated[str, typer.Option(help="HOST:PORT for the status page and /metrics.")] = "",
    key: Annotated[
        str, typer.Option(help="A key that may call; by default one is made and kept.")
    ] = "",
    config: Annotated[pathlib.Path | None, typer.Option(help="YAML or JSON file.")] = None,
    state_dir: Annotated[
        pathlib.Path | None,
        typer.Option("--state", help="State directory; default ~/.local/state/trimtab."),
    ] = None,
    demo: Annotated[bool, typer.Option(help="Use two simulated engines.")] = False,
) -> None:
    """Run control plane, agent and edge here, for the vLLM engines of this machine.

    Clients connect to 127.0.0.1:4000 unless --listen says otherwise. Without --engine it looks for
    vLLM on 127.0.0.1:8000-8007, and finding none it starts two simulated engines.
    """
    flags = Flags(tuple(engine or ()), listen, admin, key, config, state_dir, demo)
    try:
        todo = plan(flags, os.environ)
        place = state.prepare(todo.state_dir)
        state.lock(place)
        ports.require_free(todo.base.listen, "--listen")
        for address in todo.admins:
            ports.require_free(address, "--admin")
        todo = with_page(todo, lambda first: ports.free_from(first, 1)[0])
        code = service.run(serve(todo, place, banner.Console(sys.stdout)))
    except service.ConfigError as error:
        print(error, file=sys.stderr)
        code = service.EXIT_CONFIG
    except StartError as error:
        print(error, file=sys.stderr)
        code = 1
    raise typer.Exit(code)


async def serve(todo: Plan, place: state.State, console: banner.Console) -> None:
    """Run the fleet until told to stop."""
    started_s = now_s()
    stop, up = asyncio.Event(), asyncio.Event()
    engines = await choose(todo, console)
    key = todo.key or ("" if todo.base.keys else state.kept_key(place))
    config = effective(todo, place.control_target, engines.added, key)
    if todo.upstream_key:  # in a file of ours: an environment is seen by every child
        state.write_private(place.upstream_key, f"{todo.upstream_key}\n")
        config = replace(config, upstream_key=Secret(file=str(place.upstream_key)))
    state.write_private(place.config, msgspec.json.format(msgspec.json.encode(config)).decode())
    specs = [*engines.specs, *fleet.services(place, config)]
    supervisor = Supervisor(specs, place, random.SystemRandom(), console)
    _obey_signals(stop, supervisor, console)

    async def tell() -> None:
        await up.wait()
        url = banner.endpoint(config.listen)
        model = await first_model(url, key, engines.model)
        console.ready(now_s() - started_s, banner.rows(todo, place, url, key, model))
        while True:
            await asyncio.sleep(console.status_period_s)
            console.show_status()

    async with TaskRunner() as tasks:
        tasks.forever("console", tell())
        await supervisor.run(stop, up)
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
