"""The options of `trimtab up`, as typer reads them."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

Engine = Annotated[
    list[str] | None,
    typer.Option(help="A vLLM engine, http://host:port; give it several times for several."),
]
Listen = Annotated[str, typer.Option(help="HOST:PORT for clients.")]
Admin = Annotated[str, typer.Option(help="HOST:PORT for the status page and /metrics.")]
Key = Annotated[str, typer.Option(help="A key that may call; by default one is made and kept.")]
Config = Annotated[pathlib.Path | None, typer.Option("--config", "-f", help="YAML or JSON file.")]
State = Annotated[
    pathlib.Path | None,
    typer.Option("--state", help="State directory; default ~/.local/state/trimtab."),
]
Demo = Annotated[bool, typer.Option(help="Use two simulated engines.")]
Serve = Annotated[
    str,
    typer.Option(
        metavar="MODEL", help="Start vLLM for this model (a name or folder), on each GPU."
    ),
]
Gpus = Annotated[str, typer.Option(help="With --serve: these GPUs, like 0,1; by default all.")]
Engines = Annotated[int, typer.Option(help="With --serve: so many engines on the CPU.")]
Vllm = Annotated[str, typer.Option(help="With --serve: the vllm program.", metavar="PATH")]
VllmFlags = Annotated[
    list[str] | None,
    typer.Argument(help="With --serve, after --: flags for vLLM.", metavar="-- VLLM-FLAGS"),
]
