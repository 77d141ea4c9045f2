"""Fixtures that several tests use. Whatever boots a VM gets the mark ``vm`` by its fixtures."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests import long, sharing
from tests.kit import disks
from tests.kit.gateway import Gateway
from tests.kit.vm import Vm
from tests.kit.weed import Weed, environment
from tests.sharing import Sharing

# A shell that starts us in the background has SIGINT ignored; what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How hard Hypothesis searches: HYPOTHESIS_PROFILE=soak looks far longer, and elsewhere each time. Its own checks of
# health and deadlines look at times, which a busy machine fails.
_SOUND = tuple(hypothesis.HealthCheck)
hypothesis.settings.register_profile(
    "quick", max_examples=60, stateful_step_count=20, derandomize=True, deadline=None, suppress_health_check=_SOUND
)
hypothesis.settings.register_profile(
    "soak", max_examples=3000, stateful_step_count=40, print_blob=True, deadline=None, suppress_health_check=_SOUND
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

_places = itertools.count()

VM_FIXTURES = {"vm", "module_vm", "new_vm"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if VM_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.vm)
        if long.is_long(item.nodeid):
            item.add_marker(pytest.mark.long)
    items[:] = sharing.in_order(items)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Sharing | None:
    return Sharing(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def weed() -> Iterator[Weed]:
    """A server of S3 for all tests that want one: each takes a bucket or a prefix of its own."""
    with Weed() as server:
        yield server


@pytest.fixture(scope="module")
def bucket(weed: Weed) -> str:
    return weed.new_bucket()


@pytest.fixture(scope="module")
def locking_bucket(weed: Weed) -> str:
    return weed.new_bucket(locks=True)


@pytest.fixture
def gateway(weed: Weed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """The way to the server of S3 that the environment names. It does as it should until something is planned."""
    with Gateway(weed.url) as found:
        for name, value in environment(found.url).items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def place() -> str:
    """A prefix that no other test has used."""
    return f"place{next(_places)}"


@pytest.fixture
def new_vm() -> Iterator[Callable[..., Vm]]:
    """Makes VMs (arguments as ``Vm``), each started and answering, and ended with the test."""
    with contextlib.ExitStack() as stack:

        def make(vm_disks: Sequence[disks.Disk], **options: Any) -> Vm:
            return stack.enter_context(Vm(vm_disks, **options))

        yield make


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[Vm]:
    """A VM of its own for one test, with the disks ``system`` and ``data`` of ``disks.two_disks``."""
    with Vm(disks.two_disks(tmp_path)) as machine:
        yield machine


@pytest.fixture(scope="module")
def module_vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    """A VM as ``vm`` that the tests of a module share: a test leaves it running, and without leftovers."""
    with Vm(disks.two_disks(tmp_path_factory.mktemp("module_vm"))) as machine:
        yield machine
