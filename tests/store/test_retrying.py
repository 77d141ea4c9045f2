"""Trying again: what may pass, for how long, and what a repeated creation finds. Time is made up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headstart import errors
from headstart.store import retrying
from headstart.store.contract import Exists, Missing, Refused
from headstart.store.memory import MemoryStore
from headstart.store.retrying import RetryingStore
from tests.kit import stores
from tests.kit.stores import FaultyStore

TROUBLE = errors.StoreFailed("503")


class Trial:
    """``inner`` fails as planned; ``pauses`` are the waits between attempts."""

    def __init__(self, request_seconds: float = 0.0) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self.request_seconds = request_seconds
        self.inner = FaultyStore(MemoryStore())
        self.store = RetryingStore(self.inner, clock=lambda: self.now, sleep=self._sleep, chance=lambda: 1.0)

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def fail(self, method: str, times: int, error: Exception = TROUBLE) -> None:
        def fault(_: object) -> object:
            self.now += self.request_seconds
            raise error

        for number in range(1, times + 1):
            self.inner.plan(method, fault, number=number)


def _with_one() -> Trial:
    made = Trial()
    made.store.create("packs/one", b"content")
    return made


@pytest.fixture
def trial() -> Trial:
    return _with_one()


REQUESTS: dict[str, Callable[[RetryingStore], object]] = {
    "read": lambda store: store.read("packs/one"),
    "read_range": lambda store: store.read_range("packs/one", 0, 7),
    "list": lambda store: list(store.list("")),
    "modified": lambda store: [key for key, _, _ in store.modified("")],
    "clock": lambda store: store.clock() > 0,
    "delete": lambda store: store.delete("packs/one"),
    "create": lambda store: store.create("packs/two", b"content"),
}


@pytest.mark.parametrize("method", REQUESTS)
def test_what_may_pass_is_tried_again(trial: Trial, method: str) -> None:
    expected = REQUESTS[method](_with_one().store)
    trial.fail(method, 3)
    assert REQUESTS[method](trial.store) == expected
    assert trial.pauses == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("method", REQUESTS)
@pytest.mark.parametrize("error", [Refused("no"), errors.NoSpace("full"), errors.Unsupported("no"), Missing("none")])
def test_what_cannot_pass_is_not(trial: Trial, method: str, error: Exception) -> None:
    trial.fail(method, 1, error)
    with pytest.raises(type(error)):
        REQUESTS[method](trial.store)
    assert trial.pauses == []


def test_a_name_that_is_taken(trial: Trial) -> None:
    with pytest.raises(Exists):
        trial.store.create("packs/one", b"content")
    assert trial.pauses == []


def test_trying_again_ends_when_patience_does(trial: Trial) -> None:
    trial.fail("read", 1000)
    begun = trial.now
    with pytest.raises(errors.StoreFailed, match="503"):
        trial.store.read("packs/one")
    assert retrying.PATIENCE / 2 < trial.now - begun <= retrying.PATIENCE
    assert max(trial.pauses) == retrying.LONGEST_PAUSE


def test_it_ends_also_when_each_request_takes_long() -> None:
    trial = Trial(request_seconds=50.0)
    trial.store.create("packs/one", b"content")
    trial.fail("read", 1000)
    with pytest.raises(errors.StoreFailed):
        trial.store.read("packs/one")
    assert trial.inner.count("read") == 3


def test_a_store_that_never_answered_is_given_up_soon() -> None:
    trial = Trial()
    trial.fail("read", 1000)
    with pytest.raises(errors.StoreFailed):
        trial.store.read("packs/one")
    assert trial.now - 1000.0 <= retrying.FIRST_PATIENCE


def test_an_answer_that_something_is_missing_is_one() -> None:
    trial = Trial()
    with pytest.raises(Missing):
        trial.store.read("packs/one")
    trial.fail("list", 1000)
    with pytest.raises(errors.StoreFailed):
        list(trial.store.list(""))
    assert trial.now - 1000.0 > retrying.FIRST_PATIENCE


def test_pauses_are_spread(trial: Trial) -> None:
    store = RetryingStore(trial.inner, clock=lambda: trial.now, sleep=trial._sleep, chance=iter([0.5, 0.0]).__next__)
    trial.fail("read", 2)
    assert store.read("packs/one") == b"content"
    assert trial.pauses == [0.25, 0.0]


def test_a_creation_whose_answer_was_lost(trial: Trial) -> None:
    trial.inner.plan("create", stores.lose(TROUBLE))
    trial.store.create("packs/two", b"content")
    assert trial.inner.count("create", "packs/two") == 2


def test_a_creation_that_another_one_overtook(trial: Trial) -> None:
    """Ours did not arrive; what is there is not ours."""

    def overtake(_: object) -> object:
        trial.inner.store.create("packs/two", b"theirs")
        raise TROUBLE

    trial.inner.plan("create", overtake)
    with pytest.raises(Exists):
        trial.store.create("packs/two", b"ours")
    assert trial.inner.store.read("packs/two") == b"theirs"


def test_looking_at_what_was_created_may_fail_too(trial: Trial) -> None:
    trial.inner.plan("create", stores.lose(TROUBLE))
    trial.fail("read", 2)
    trial.store.create("packs/two", b"content")
    assert trial.inner.count("create", "packs/two") == 2


def test_a_listing_that_breaks_off_is_begun_anew(trial: Trial) -> None:
    def half(act: Callable[[], object]) -> object:
        def listing() -> object:
            yield "packs/one", 7
            raise TROUBLE

        return listing()

    trial.inner.plan("list", half)
    assert list(trial.store.list("")) == [("packs/one", 7)]
    assert trial.pauses == [0.5]
