"""One VM under protection: a thread that looks at its load, copies ahead, and completes, one after the other.

::

    ordered, due?  ->  backup              what failed is tried again, later and later
    a backup waits in the spool?  ->  publish
    else: look at the load  ->  time for a round, and quiet enough?  ->  round
    sleep until the next of these
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace

from headstart import errors
from headstart.backup import cycle, trim
from headstart.backup.complete import Options
from headstart.backup.context import Beat, Context
from headstart.backup.report import BackupReport
from headstart.guest import trimming
from headstart.host import calendar, log
from headstart.host.activity import Activity
from headstart.host.calendar import Due
from headstart.host.course import Course
from headstart.host.house import House
from headstart.host.policy import Consistency, FalseAudit, LeftOut, Policy
from headstart.host.retry import Retry
from headstart.host.steering import Steering
from headstart.hypervisor.contract import Machine
from headstart.load.governor import State
from headstart.load.throttle import Halted
from headstart.state.noted import Noted
from headstart.state.runs import Runs
from headstart.state.values import Completion, Vm

_log = logging.getLogger("headstart.host")

#: Seconds between two looks at a VM of which nothing is copied.
LOOK_SECONDS = 10.0
#: Nothing is begun ahead of a backup that is due so soon, and what is under way is ended.
MARGIN_SECONDS = 1.0
#: A guest is not asked to trim for less than this.
TRIM_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Order:
    """A backup that somebody asked for."""

    options: Options
    done: Future[BackupReport]


class Ward:
    """``start`` it, ``stop`` it and ``join`` it. Everything but these is for any thread."""

    def __init__(self, house: House, name: str, policy: Policy) -> None:
        self.name = name
        self._house = house
        self._policy = policy
        self.activity = Activity(house.clock)
        self.course = Course(house, name)
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._stopped = False
        self._rounds, self._backups = Retry(), Retry()
        self._began = self._seen = time.monotonic()
        self._served = 0.0
        self._settle = False
        #: Failures of what could not begin, as they were noted: of which backup, and what kind of error.
        self._noted: set[tuple[float | str, str]] = set()
        #: A backup is being made, and does not only wait for its turn.
        self.completes = False
        self._machine: Machine | None = None
        self._thread = threading.Thread(target=self._run, name=f"ward {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, why: str) -> None:
        """What is under way ends at its next beat."""
        self._stopped = True
        self.activity.stop(why)
        self._wake.set()

    def finish(self) -> None:
        """What is under way goes on; nothing comes after it."""
        self._stopped = True
        self._wake.set()

    def join(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def quiet(self) -> float:
        """Seconds since it was last heard of, whatever it does."""
        doing = self.activity.now()
        return doing.quiet if doing is not None else time.monotonic() - self._seen

    @property
    def policy(self) -> Policy:
        return self._policy

    def renew(self, policy: Policy) -> None:
        """The policy holds from now on, also for a round that is under way."""
        if policy != self._policy:
            self._policy = policy
            self.course.renew(policy)
            log.decision(self.name, event="policy", policy=policy.name)
            self._wake.set()

    def order(self, options: Options | None) -> Future[BackupReport]:
        """A backup as soon as what is under way is done. A round is ended for it. None: as the policy has it."""
        order = Order(_options(self._policy) if options is None else options, Future())
        self._orders.put(order)
        self._wake.set()
        if self._stopped and not self._thread.is_alive():
            self._refuse_orders()
        return order.done

    def break_off(self) -> None:
        """It does not get on: its connection to the VM is cut."""
        machine = self._machine
        if machine is not None:
            with contextlib.suppress(Exception):
                machine.close()

    def wake(self) -> None:
        self._wake.set()

    # -- the thread

    def _run(self) -> None:
        while not self._stopped:
            self._seen = time.monotonic()
            try:
                pause = self._turn()
            except errors.HeadstartError as error:
                self.course.say("waiting", str(error))
                pause = LOOK_SECONDS
            except Exception as error:
                # A bug must not leave a VM without protection, nor be hidden.
                log.warning(self.name, event="bug", error=f"{type(error).__name__}: {error}")
                _log.error("A bug: it is tried again.", exc_info=error)
                self.course.say("failed", f"{type(error).__name__}: {error}")
                pause = LOOK_SECONDS
            if pause > 0:
                self._wake.wait(pause)
            self._wake.clear()
        try:
            self.course.end()
        finally:
            self._refuse_orders()

    def _refuse_orders(self) -> None:
        """Nobody is there to make them."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._orders.get_nowait().done.set_exception(errors.Interrupted("Headstart is being stopped."))

    def _turn(self) -> float:
        """One thing, the most urgent; returns how long to rest."""
        vm = self._house.journal.vm(self.name)
        with contextlib.suppress(queue.Empty):
            self._ordered(self._orders.get_nowait())
            return 0.0
        now = self._house.clock()
        due = self.due(now)
        self.course.expect(due, self._policy, self._owed(due, now))
        if self._house.series.paused(self.name):
            self.course.say("paused", "by its owner: 'headstart resume' goes on")
            return LOOK_SECONDS
        waiting = self._house.journal.completion(self.name)
        if waiting is not None:
            return self._publish(now, waiting)
        if due.at <= now and not self._backups.waits(now):
            return self._complete(due)
        return self._ahead(vm, now, due)

    def due(self, now: float) -> Due:
        return calendar.due(self._policy.schedule, self.name, self._last(), now, time.monotonic() - self._began)

    def _owed(self, due: Due, now: float) -> float:
        watched = time.monotonic() - self._began
        return calendar.owed(due, self._policy.schedule, self.name, self._last(), now, watched)

    def _last(self) -> float:
        point = self._house.journal.point(self.name)
        last = point.created if point is not None else self._house.journal.vm(self.name).added
        # A clock that is put back while a backup is made: it is for its moment all the same.
        return max(last, self._served)

    # -- copying ahead

    def _ahead(self, vm: Vm, now: float, due: Due) -> float:
        if due.at <= now:
            # It failed and is tried again: what changes until then is copied ahead all the same.
            due = replace(due, at=self._backups.at)
            self.course.plan_for(due)
        self._look(vm)
        if not self._policy.head_start.transports or not self.course.reachable or self._rounds.waits(now):
            return self._rest(now, due, now + LOOK_SECONDS)
        at, why = self.course.next_round(now, self._policy)
        if at > now:
            self.course.say("waiting", why)
            return self._rest(now, due, at)
        if due.at <= now + MARGIN_SECONDS or self.course.governor.state is State.HALTED:
            self.course.say("halted", self.course.governor.reason)
            return self._rest(now, due, now + LOOK_SECONDS)
        if self._trim(now, due):
            self._round(due)
        return 0.0

    def _trim(self, now: float, due: Due) -> bool:
        """What the guest gives back is recorded before the round looks; whether that may follow. One that cannot is
        asked again as late as one that can."""
        policy, left = self._policy, due.at - now - MARGIN_SECONDS
        every = policy.trim
        if every is None or 0 <= now - Noted(self._house.journal).trimmed(self.name) < every or left < TRIM_SECONDS:
            return True
        Noted(self._house.journal).put_trimmed(self.name, now)
        with self.activity.doing("trim"):
            self.course.say("waiting", "the guest gives its free blocks back")
            try:
                # libvirt goes on waiting for qga where we do not.
                with self._context(lambda: self._go_on(due, policy)) as context:
                    by, found = trim.trim(context, self.name, min(left, trimming.SECONDS))
            except Halted as error:
                log.decision(self.name, event="trim", reason=str(error))
                self.course.say("waiting", str(error))
                if self.activity.cancelled:
                    # Its owner wants to have peace for a while.
                    self._rounds.failed(self._house.clock())
                return False
            except errors.HeadstartError as error:
                log.warning(self.name, event="trim", reason=str(error))
            else:
                log.decision(self.name, event="trim", by=by, trimmed=log.size(sum(each.trimmed or 0 for each in found)))
        return True

    def _rest(self, now: float, due: Due, until: float) -> float:
        soonest = min(until, due.at if due.at > now else until, now + LOOK_SECONDS)
        return max(0.1, soonest - now)

    def _look(self, vm: Vm) -> None:
        try:
            with self._house.journal.lock(self.name, "look"):
                counters = self._house.look(vm)
        except errors.Locked:
            return
        except (errors.Unreachable, errors.NotFound) as error:
            self.course.unreachable(str(error))
            return
        self.course.look(counters)

    def _round(self, due: Due) -> None:
        course, policy = self.course, self._policy

        def go_on() -> None:
            self._go_on(due, policy)

        with self.activity.doing("precopy"), self._trying("precopy", self._rounds):
            try:
                with self._house.rounds.taking(go_on), self._context(self._beat_ahead) as context:
                    steering = Steering(self._house, course, go_on)
                    done = cycle.precopy_round(context, self.name, policy.head_start.transports, steering)
            except Halted as error:
                course.say("waiting", str(error))
            except BaseException:
                course.broken()
                raise
            else:
                course.rounded(done)
            if self.activity.cancelled:
                # Its owner wants to have peace for a while.
                raise errors.Interrupted(self.activity.cancelled)

    def _beat_ahead(self) -> None:
        """What a round has copied counts, also when it is cancelled: it is halted, and settles."""
        try:
            self.activity.beat()
        except errors.Interrupted as error:
            raise Halted(str(error)) from None

    def _go_on(self, due: Due, policy: Policy) -> None:
        """Called all the time while copying ahead under a policy. Raises ``Halted`` when something else comes first."""
        self._beat_ahead()
        if due.at <= self._house.clock() + MARGIN_SECONDS:
            raise Halted("the backup is due")
        if not self._orders.empty():
            raise Halted("a backup was ordered")
        if _course_of(self._policy) != _course_of(policy):
            raise Halted("the policy was changed")
        if self._house.series.paused(self.name):
            raise Halted("paused by its owner")

    # -- completing

    def _complete(self, due: Due) -> float:
        now = self._house.clock()
        late = None if due.at > now - 60 else log.seconds(now - due.at)
        log.decision(self.name, event="due", missed=due.missed or None, late=late)
        options = replace(_options(self._policy), settle=self._settle)
        # Where scratch or spool are too small for what is left, it is copied before the point in time at the next try.
        self._settle = False
        with self._trying("backup", self._backups), self._noting("backup", due.moment):
            try:
                self._back_up(options, "it is due")
            except errors.NoSpace:
                self._settle = True
                raise
            self._served = due.moment
        return 0.0

    def _ordered(self, order: Order) -> None:
        try:
            options = replace(order.options, distrust=_distrusts(self._policy))
            order.done.set_result(self._back_up(options, "it was ordered"))
        except BaseException as error:
            order.done.set_exception(error)
            if not isinstance(error, errors.HeadstartError):
                raise

    def _back_up(self, options: Options, why: str) -> BackupReport:
        waiting = self._house.journal.completion(self.name)
        with self.activity.doing("backup"):
            self.course.say("backup", why)
            with self._house.backups.taking(self.activity.beat), self._context(self.activity.beat) as context:
                self.completes = True
                try:
                    done = cycle.backup(context, self.name, options)
                finally:
                    self.completes = False
                self._house.vault.locksmith.backed_up(context.repository)
        if waiting is not None:
            self.course.published(waiting, done.notes)
        self.course.completed(done)
        return done

    def _publish(self, now: float, waiting: Completion) -> float:
        if self._backups.waits(now):
            return LOOK_SECONDS
        trying = self._trying("publish", self._backups)
        with self.activity.doing("publish"), trying, self._noting("publish", waiting.id):
            self.course.say("publish", "a complete backup waits in the spool")
            with self._context(self.activity.beat) as context:
                notes = cycle.finish(context, self.name)
                self._house.vault.locksmith.backed_up(context.repository)
            self.course.published(waiting, notes)
        return 0.0

    # -- both

    @contextlib.contextmanager
    def _trying(self, verb: str, retry: Retry) -> Iterator[None]:
        """What fails is tried again later; a bug as well, which is told by who runs us."""
        try:
            yield
        except errors.HeadstartError as error:
            self._failed(verb, error, retry)
        except BaseException:
            retry.failed(self._house.clock())
            raise
        else:
            retry.succeeded()

    @contextlib.contextmanager
    def _noting(self, verb: str, which: float | str) -> Iterator[None]:
        """What fails before its run began, as where the repository cannot be opened, is noted as one that failed, so
        that it is told: once of each backup and kind of error, as it is tried again and again."""
        journal = self._house.journal
        before = Runs(journal).backups(self.name, 0, 1)
        try:
            yield
        except errors.Interrupted:
            raise
        except Exception as error:
            kind = errors.kind(error) if isinstance(error, errors.HeadstartError) else type(error).__name__
            with contextlib.suppress(errors.HeadstartError):
                if (which, kind) not in self._noted and Runs(journal).backups(self.name, 0, 1) == before:
                    cycle.note_failed(journal, self.name, verb, error)
                    self._noted = {*(each for each in self._noted if each[0] == which), (which, kind)}
            raise

    @contextlib.contextmanager
    def _context(self, beat: Beat) -> Iterator[Context]:
        try:
            house = self._house
            yield Context(
                house.journal,
                house.vault.repository(),
                house.scratch,
                self.activity.progress,
                beat,
                connect=self._connect,
                images=self._images,
                clock=house.clock,
                volumes=self._policy.volumes,
                appliances=house.appliances,
            )
        except errors.HeadstartError as error:
            self._house.vault.failed(error)
            raise
        finally:
            self._machine = None

    def _connect(self, context: Context, vm: Vm) -> Machine:
        self._machine = self._house.connect(context, vm, LeftOut(self._policy.volumes))
        return self._machine

    def _images(self, context: Context, vm: Vm) -> Machine | None:
        self._machine = self._house.images(context, vm, LeftOut(self._policy.volumes))
        return self._machine

    def _failed(self, verb: str, error: errors.HeadstartError, retry: Retry) -> None:
        message = " ".join((str(error), *getattr(error, "__notes__", ())))
        if isinstance(error, errors.Interrupted):
            log.decision(self.name, event="cancelled", verb=verb, reason=message)
        else:
            log.warning(self.name, event="failed", verb=verb, kind=errors.kind(error), reason=message)
        # From its end on: what took longer than the pause would be begun again at once.
        retry.failed(self._house.clock())
        self.course.say("failed", f"{verb}: {message}")


def _course_of(policy: Policy) -> tuple[object, ...]:
    """What of a policy a round has to be begun with. Marks and limits are asked for all the time."""
    return policy.schedule, policy.head_start, policy.volumes


def _options(policy: Policy) -> Options:
    return Options(
        plain=False,
        audit=policy.audit,
        freeze=policy.consistency is not Consistency.CRASH,
        hooks=policy.hooks,
        settle=False,
        frozen=policy.consistency is Consistency.FILESYSTEM,
        distrust=_distrusts(policy),
    )


def _distrusts(policy: Policy) -> bool:
    return policy.head_start.after_false_audit is FalseAudit.DISTRUST
