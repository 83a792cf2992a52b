"""The process: a socket, the application on it, and how it ends."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from polyprefix.config import ConfigError
from polyprefix.serving.app import make_app
from polyprefix.serving.requests import Limits
from polyprefix.serving.runs import load_runs


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes one that is free.

    Raises:
        ConfigError: the address cannot be had.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error}; --host and --port choose others"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Server(uvicorn.Server):
    """uvicorn's, which says what it does when it is told to stop.

    Args:
        app: what it serves.
        timeout: seconds that requests have to be answered in after that.
        say: prints a line.
    """

    def __init__(self, app: ASGIApp, timeout: float, say: Callable[[str], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="on",
                timeout_graceful_shutdown=math.ceil(timeout),
            )
        )
        self._say = say

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            with contextlib.suppress(OSError):  # whoever read it may have gone
                self._say("stopping when what was asked is answered; Ctrl-C again stops at once")
        super().handle_exit(sig, frame)


def serve(
    folders: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    max_length: int | None = None,
    device: str | None = None,
    key: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve finished runs of one backbone until a signal comes.

    Args:
        folders: the runs'.
        host: address to listen on.
        port: 0 takes a free one.
        limits: what is taken on.
        max_length: tokens of a prompt and its answer, by default what the model has room for.
        device: where to compute, by default where the first run's configuration says.
        key: what clients have to send.
        say: prints a line.

    Raises:
        PolyprefixError: a run cannot be served, or the address cannot be had.
    """
    limits = limits or Limits()
    with listen(host, port) as listening:
        model, served = load_runs(folders, device)
        context = model.backbone.context_length
        if max_length is not None and context is not None and max_length > context:
            raise ConfigError(f"--max-length {max_length}: the model has {context} tokens")
        chosen = max_length or context or limits.max_length
        if max_length is not None and max_length > limits.batch_tokens:
            raise ConfigError(
                f"--max-length {max_length} has to fit in a batch: raise --batch-tokens "
                f"{limits.batch_tokens}"
            )
        limits = replace(limits, max_length=chosen)
        name = f"[{host}]" if ":" in host else host
        say(f"http://{name}:{listening.getsockname()[1]}/v1 serves")
        for entry in served.values():
            say(f"  {entry.name}" + ("" if entry.record else "  (no adapter)"))
        if key is None and not is_loopback(host):
            say(
                "note: whoever can reach this address can use it; --api-key-variable asks for a key"
            )
        server = Server(make_app(model, served, limits, key=key), limits.timeout, say)
        # uvicorn raises the signal again when all is done.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    say("stopped")
