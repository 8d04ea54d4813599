"""`ctl config`: what the fleet is configured to, and another one, while everything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ctl.exits import CtlError, Exit
from ctl.options import Format, Output, Server, target
from ctl.screen import Screen

if TYPE_CHECKING:
    from ctl.configs import Configs

config = typer.Typer(
    name="config",
    help="Check, compare, apply and take back the configuration.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
File = Annotated[str, typer.Argument(metavar="FILE", help="A configuration file.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@config.command()
def validate(path: File, output: Output = Format.TABLE) -> None:
    """Look for mistakes in a file, all at once; exit 1 when there are. Asks nobody."""
    import pathlib  # noqa: PLC0415  here as below: only who needs it pays

    from ctl.render import item, listed  # noqa: PLC0415
    from trimtab.runtime import config as file  # noqa: PLC0415
    from trimtab.runtime import config_check  # noqa: PLC0415
    from trimtab.runtime.service import ConfigError  # noqa: PLC0415

    screen = Screen()
    try:
        value, problems = config_check.check(pathlib.Path(path))
    except ConfigError as error:
        raise CtlError(Exit.FAILED, str(error)) from None
    if not output.is_table:
        names = [f"{path}:{one.line}:{one.column}" for one in problems]
        screen.data(listed("ConfigProblem", [item(one) for one in problems], names, output))
    elif problems:
        screen.data(f"{file.report(problems, path)}\n")
    else:
        screen.data(f"{path}: nothing is wrong with it\n")
    raise typer.Exit(Exit.FAILED if value is None else Exit.OK)


@config.command()
def diff(
    context: typer.Context, path: File, output: Output = Format.TABLE, server: Server = ""
) -> None:
    """Compare a file with what is in effect: exit 0 the same, 1 not, more: it could not be."""
    from ctl import config_diff, configs  # noqa: PLC0415  grpc is slow to import

    base, screen = configs.load(path), Screen()

    async def work(plane: Configs) -> Exit:
        now, found = await configs.compare(plane, base)
        if found or not output.is_table:
            screen.data(config_diff.page(found).text(screen, output))
        screen.talk(f"compared with {configs.source(now.revision)}")
        return Exit.FAILED if found else Exit.OK

    raise typer.Exit(configs.run(target(context, server), work))


@config.command()
def apply(
    context: typer.Context, path: File, reason: Reason = "", yes: Yes = False, server: Server = ""
) -> None:
    """Put a file's pools, engines, keys and limits into effect, without a restart."""
    from ctl import configs  # noqa: PLC0415  grpc is slow to import

    base, order = configs.load(path), configs.Order(Screen(), reason, yes)

    async def work(plane: Configs) -> Exit:
        await configs.apply(plane, base, order)
        return Exit.OK

    raise typer.Exit(configs.run(target(context, server), work))


@config.command()
def show(
    context: typer.Context,
    revision: Annotated[
        int | None,
        typer.Argument(min=0, help="As `history` lists it; by default what is in effect."),
    ] = None,
    origin: Annotated[bool, typer.Option(help="Say where each setting comes from.")] = False,
    output: Output = Format.YAML,
    server: Server = "",
) -> None:
    """Print the configuration in effect, in the file's words; keys are not shown."""
    from ctl import config_diff, configs, render  # noqa: PLC0415  grpc is slow to import
    from trimtab.runtime import live_config  # noqa: PLC0415

    screen = Screen()

    async def work(plane: Configs) -> Exit:
        found = await plane.get(revision)
        if origin:
            outline = live_config.outline(found.config)
            form = Format.TABLE if output is Format.YAML else output
            page = config_diff.origins(found.revision, outline, found.settings)
            screen.data(page.text(screen, form))
        else:
            screen.data(render.plain(live_config.document(found.config), output))
        screen.talk(f"from {configs.source(found.revision)}")
        return Exit.OK

    raise typer.Exit(configs.run(target(context, server), work))


@config.command()
def history(context: typer.Context, output: Output = Format.TABLE, server: Server = "") -> None:
    """List what was applied, by whom and why; the star marks what is in effect."""
    from ctl import configs  # noqa: PLC0415  grpc is slow to import

    screen = Screen()

    async def work(plane: Configs) -> Exit:
        revisions, current = await plane.history()
        if revisions or not output.is_table:
            screen.data(configs.history(revisions, current).text(screen, output))
        else:
            screen.talk("nothing was ever applied: the file of whoever leads counts")
        return Exit.OK

    raise typer.Exit(configs.run(target(context, server), work))


@config.command()
def rollback(
    context: typer.Context,
    revision: Annotated[
        int, typer.Argument(min=0, help="As `history` lists it; 0 is the leader's file.")
    ],
    reason: Reason = "",
    yes: Yes = False,
    server: Server = "",
) -> None:
    """Put an earlier configuration into effect again, as a new revision."""
    from ctl import configs  # noqa: PLC0415  grpc is slow to import

    order = configs.Order(Screen(), reason, yes)

    async def work(plane: Configs) -> Exit:
        await configs.rollback(plane, revision, order)
        return Exit.OK

    raise typer.Exit(configs.run(target(context, server), work))
