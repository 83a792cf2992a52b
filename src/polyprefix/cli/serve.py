"""``polyprefix serve``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from polyprefix.config import ConfigError

SERVE_EXAMPLES = """
[bold]Examples[/bold]

  pip install 'polyprefix\\[serve]'

  polyprefix serve runs/sib200-... runs/xnli-... --port 8000

  curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \\
      -d '{"model": "sib200-...", "prompt": "Timu ilishinda mechi.\\nTopic:", "max_tokens": 4}'

  curl http://127.0.0.1:8000/v1/classify -H 'Content-Type: application/json' \\
      -d '{"model": "sib200-...", "input": "Timu ilishinda mechi."}'

  POLYPREFIX_KEY=secret polyprefix serve runs/sib200-... --host 0.0.0.0 \\
      --api-key-variable POLYPREFIX_KEY

Runs have to be of one backbone. Requests name a run by its folder's name, or the backbone by its
own for no adapter; GET /v1/models lists them. Ctrl-C answers what was asked and ends.
"""


def serve(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of finished runs.", metavar="RUN...")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1... (by default: as the first run).")
    ] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Prompts that are answered at once.")] = 16,
    batch_tokens: Annotated[
        int, typer.Option(min=2, help="Tokens of these and their answers, with padding.")
    ] = 16384,
    queue: Annotated[
        int, typer.Option(min=1, help="Prompts that may wait; then there is a 429.")
    ] = 128,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=2, help="Tokens of a prompt and its answer (by default: what the model has)."
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 1024,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request.")] = 1 << 20,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds from a request to the end of its answer.")
    ] = 300,
    api_key_variable: Annotated[
        str | None,
        typer.Option(help="Environment variable with the key that clients have to send."),
    ] = None,
) -> None:
    """Serve finished runs over HTTP, as OpenAI's interface has it: an adapter for each request."""
    key = None
    if api_key_variable is not None:
        key = os.environ.get(api_key_variable, "").strip()
        if not key:
            raise ConfigError(
                f"--api-key-variable {api_key_variable}: the environment variable is not set or "
                "empty"
            )

    from polyprefix.serving.requests import Limits
    from polyprefix.serving.server import serve as execute

    limits = Limits(
        max_rows=max_rows,
        batch_tokens=batch_tokens,
        max_waiting=queue,
        max_tokens=max_tokens,
        max_body=max_body,
        timeout=timeout,
    )
    execute(
        folders,
        host=host,
        port=port,
        limits=limits,
        max_length=max_length,
        device=device,
        key=key,
        say=typer.echo,
    )
