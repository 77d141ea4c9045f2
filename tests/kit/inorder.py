"""The program with one thread and no chance in it: what a simulated run does depends on its script alone."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any
from unittest import mock

from headstart.backup import audit
from headstart.repository import layout
from headstart.repository.writer import Writer
from headstart.transfer import pipeline


class _AtOnce:
    """An executor that has done everything before it says that it will."""

    def __init__(self, _workers: int, **_names: str) -> None:
        """No threads."""

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(call(*arguments))
        except BaseException as error:
            done.set_exception(error)
        return done

    def shutdown(self, **_how: bool) -> None:
        """Nothing is under way."""


def _queue_at_once(writer: Writer[Any], job: Any) -> None:
    """What the writer's own thread does with a job."""
    try:
        if writer._failure is None:
            writer._do(job)
    except BaseException as error:
        writer._fail(error)


@contextlib.contextmanager
def in_order(seed: int, block_size: int) -> Iterator[None]:
    """Ids are drawn from ``seed``, too. Packs are small: there are several of each kind in a run of few blocks."""
    drawn = random.Random(seed)
    fixed = SimpleNamespace(SystemRandom=lambda: random.Random(1))
    with (
        mock.patch.object(audit, "random", fixed),
        mock.patch.object(pipeline, "ThreadPoolExecutor", _AtOnce),
        mock.patch.object(Writer, "_queue", _queue_at_once),
        mock.patch.object(layout, "PACK_SIZE", 8 * block_size),
        mock.patch.object(os, "urandom", drawn.randbytes),
        mock.patch.object(random, "_urandom", drawn.randbytes),
    ):
        yield
