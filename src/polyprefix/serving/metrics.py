"""What Prometheus reads of a server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The figures of one server; a :class:`polyprefix.serving.engine.Watcher`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "polyprefix_requests",
            "Requests by status, 499 where the client went away.",
            ["endpoint", "model", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "polyprefix_request_seconds",
            "From a request to its last byte.",
            ["endpoint"],
            buckets=SECONDS,
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "polyprefix_prompt_tokens",
            "Tokens of prompts that were accepted.",
            ["model"],
            registry=registry,
        )
        self.completion_tokens = Counter(
            "polyprefix_completion_tokens", "Tokens that were written.", registry=registry
        )
        self.waiting = Gauge(
            "polyprefix_waiting_prompts", "Prompts in the queue.", registry=registry
        )
        self.running = Gauge("polyprefix_running_rows", "Rows of the batch.", registry=registry)
        self.batch_rows = Histogram(
            "polyprefix_batch_rows", "Rows at each step.", buckets=ROWS, registry=registry
        )

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)

    def stepped(self, rows: int, left: int, waiting: int, tokens: int) -> None:
        self.running.set(left)
        self.waiting.set(waiting)
        self.completion_tokens.inc(tokens)
        self.batch_rows.observe(rows)

    def idle(self) -> None:  # after rows were cancelled no step says so
        self.running.set(0)
        self.waiting.set(0)
