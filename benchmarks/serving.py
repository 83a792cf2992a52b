"""The server: answers a second with 1, 4 and 16 requests at once, against one after another.

    python -m benchmarks.serving RUN [RUN ...]

Starts ``polyprefix serve`` with the runs in a process of its own, and sends it the same requests,
the runs in turn, with OpenAI's client: so many at a time. Times are what a client sees, HTTP
included; server and client share the machine. On a machine that others use too, look at the tokens
for each second of the server's own processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import psutil

PROMPTS = (
    "The team that won the final match of the season was",
    "Der Arzt hat dem Kind ein Medikament gegeben und",
    "Wanasayansi waligundua sayari mpya mwaka jana na",
    "La ministre a présenté la nouvelle loi au parlement et",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; print a line for each number of requests at once."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", help="folders of finished runs of one backbone")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    command = [sys.executable, "-m", "polyprefix", "serve", *options.runs, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().partition(" ")[0]
            if not url.startswith("http"):
                return 1
            asyncio.run(measure(url, psutil.Process(server.pid), options))
        finally:
            server.terminate()
            server.communicate()
    return 0


async def measure(url: str, server: psutil.Process, options: argparse.Namespace) -> None:
    """Send the requests, and print."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        models = [model.id async for model in client.models.list()]
        names = models[: len(options.runs)]  # behind them the backbone

        async def one(number: int, gate: asyncio.Semaphore) -> tuple[float, int]:
            async with gate:
                started = time.perf_counter()
                found = await client.completions.create(
                    model=names[number % len(names)],
                    prompt=PROMPTS[number // len(names) % len(PROMPTS)],
                    max_tokens=options.max_tokens,
                    temperature=options.temperature,
                    seed=number,
                )
                tokens = found.usage.completion_tokens if found.usage else 0
                return time.perf_counter() - started, tokens

        async def round_of(at_once: int) -> tuple[float, float, int, list[float]]:
            gate = asyncio.Semaphore(at_once)
            before = sum(server.cpu_times()[:2])
            started = time.perf_counter()
            found = await asyncio.gather(*(one(n, gate) for n in range(options.requests)))
            seconds = time.perf_counter() - started
            busy = sum(server.cpu_times()[:2]) - before
            return seconds, busy, sum(tokens for _, tokens in found), [s for s, _ in found]

        await round_of(max(options.at_once))  # warm
        base = None
        for at_once in options.at_once:
            rounds = [await round_of(at_once) for _ in range(options.repeats)]
            seconds, busy, tokens, latencies = min(rounds)
            base = base or seconds
            print(
                f"{at_once:3} at once: {options.requests / seconds:6.2f} answers/s, "
                f"{tokens / seconds:7.1f} tokens/s, {base / seconds:5.2f} times; "
                f"median answer after {statistics.median(latencies):.2f} s; "
                f"{tokens / busy:7.1f} tokens per processor second"
            )


if __name__ == "__main__":
    raise SystemExit(main())
