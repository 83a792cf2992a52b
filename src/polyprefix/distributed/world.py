"""The processes that a launcher (``accelerate launch``, ``torchrun``) started for one run.

All of them run the same program. Where they differ is what they compute: each has a part of the
examples. Files are process 0's: it reads and writes, and tells the others. A program that was
started plainly is a world of one, in which nothing is sent.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from polyprefix.config import ConfigError, PolyprefixError, RunError

PATIENCE = timedelta(minutes=60)
"""How long a process waits for another. One that has ended is noticed at once; this is for one
that hangs."""

CPU = torch.device("cpu")

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Which of how many processes this one is.

    Methods are called by all processes, in the same order.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
        device: where this process computes, unless the run says ``cpu``.
        shards: the backbone is to be divided among them (FSDP2).
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU
    shards: bool = False

    @property
    def main(self) -> bool:
        """Whether this is the process that has the files."""
        return self.rank == 0

    def first(self, work: Callable[[], T]) -> T:
        """What process 0 makes of ``work``, its result or its error, for all of them."""
        if self.size == 1:
            return work()
        said: list[Any] = [None, None]
        if self.main:
            try:
                said[0] = work()
            except Exception as error:
                said[1] = error
        with _told():
            dist.broadcast_object_list(said, src=0)
        if said[1] is not None:
            raise said[1]
        result: T = said[0]
        return result

    def each(self, work: Callable[[], T]) -> T:
        """This process's own result; if ``work`` is a :class:`PolyprefixError` in any process, that
        error in all. With any other error a process ends, and its launcher ends the others."""
        if self.size == 1:
            return work()
        failed: PolyprefixError | None = None
        results: list[T] = []
        try:
            results.append(work())
        except PolyprefixError as error:
            failed = error
        for rank, told in enumerate(self.gather(failed)):
            if told is not None:
                raise told if rank == 0 else type(told)(f"process {rank}: {told}")
        return results[0]

    def gather(self, value: T) -> list[T]:
        """The value of every process, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with _told():
            dist.all_gather_object(found, value)
        return found

    def total(self, number: int) -> int:
        """The sum of all processes' numbers."""
        return self._reduced(number, dist.ReduceOp.SUM)

    def most(self, number: int) -> int:
        """The largest of all processes' numbers."""
        return self._reduced(number, dist.ReduceOp.MAX)

    def any(self, value: bool) -> bool:
        """Whether it is true in any process."""
        return self.most(int(value)) > 0

    def _reduced(self, number: int, how: Any) -> int:
        if self.size == 1:
            return number
        # On the CPU: it waits for nothing that the device is doing.
        value = torch.tensor([number])
        with _told():
            dist.all_reduce(value, how)
        return int(value)

    def sum_(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by the sum of all processes' tensors."""
        if self.size > 1:
            with _told():
                dist.all_reduce(tensor)

    def hand_out_(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by process 0's."""
        if self.size > 1:
            with _told():
                dist.broadcast(tensor, src=0)

    def give_up(self, error: PolyprefixError) -> None:
        """Say nothing to the others any more: they wait for something else from this process, in
        vain, until it has ended. Every method raises ``error`` from here on."""
        global _given_up
        if self.size > 1:
            _given_up = error

    def described(self) -> dict[str, Any]:
        """For the record: nothing of a world of one."""
        if self.size == 1:
            return {}
        return {
            "processes": self.size,
            "hosts": len(set(self.gather(socket.gethostname()))),
            "communication": str(dist.get_backend_config()),
            "sharded_backbone": self.shards,
        }


ALONE = World()

_here = ALONE
_connected: World | None = None
_given_up: PolyprefixError | None = None


def world() -> World:
    """The world that this process works in: alone, but within :func:`joined`."""
    return _here


@contextmanager
def joined() -> Iterator[World]:
    """Within, the processes that were started together with this one work on the same thing.

    Without a launcher, and inside another ``joined``, nothing changes.

    Raises:
        ConfigError: what the launcher was asked for is not what can be done.
        RunError: the others cannot be reached.
    """
    global _connected, _here
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if _here.size > 1 or size == 1 or "RANK" not in os.environ:
        yield _here
        return
    if _connected is None:
        _connected = _connect(size)
        # accelerate, which computes in the right precision for us, would shard the model itself
        os.environ.pop("ACCELERATE_USE_FSDP", None)
    _here = found = _connected
    try:
        yield found
    finally:
        _here = ALONE


def _connect(size: int) -> World:
    shards = _asked_to_shard()
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no":
        raise ConfigError(
            f"accelerate's --mixed_precision {precision} has no effect: give the run "
            f"--set train.mixed_precision={precision}, which is part of what the run is"
        )
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1")
    device = torch.device("cpu")
    if torch.cuda.is_available() and not on_cpu:
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"{local + 1} processes or more on this host, and it has "
                f"{torch.cuda.device_count()} CUDA devices: start one process a device"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        try:
            # Numbers and objects go by the CPU, gradients by the device that they are on.
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise RunError(f"cannot reach the other processes of this run: {error}") from error
    return World(rank, size, device, shards)


def _asked_to_shard() -> bool:
    """What ``accelerate launch --use_fsdp`` asks for, which it says in the environment."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() not in ("true", "1"):
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError("accelerate's --use_fsdp: give --fsdp_version 2; version 1 is not there")
    if os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true":
        raise ConfigError("accelerate's --fsdp_offload_params is not supported")
    if os.environ.get("FSDP_ACTIVATION_CHECKPOINTING", "false").lower() == "true":
        raise ConfigError(
            "accelerate's --fsdp_activation_checkpointing: give the run "
            "--set runtime.gradient_checkpointing=true instead"
        )
    return True


def connected() -> bool:
    """Whether this process has met those that were started together with it."""
    return _connected is not None


def leave() -> None:
    """Take leave of the other processes, at the end of the program."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _told() -> Iterator[None]:
    """Say in plain words that another process is gone."""
    if _given_up is not None:
        raise _given_up
    try:
        yield
    except RuntimeError as error:
        raise _gone(error) from error


@contextmanager
def in_plain_words() -> Iterator[None]:
    """Within, torch itself talks to the other processes (FSDP2): say so where one is gone.

    Raises:
        RunError: it is.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error).lower()):
            raise
        raise _gone(error) from error


def _gone(error: RuntimeError) -> RunError:
    global _given_up
    [first, *_] = str(error).splitlines() or [""]
    _given_up = RunError(
        "another process of this run has ended or does not answer; what it said, if anything, "
        f"is among the lines of this output. The same command goes on from here. ({first})"
    )
    return _given_up
