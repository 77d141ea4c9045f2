"""This program is replaced by another release of it, and goes on as that.

::

    ask renew {release, size, digest}     a file beside our own; then FILE, FILE ... in order
    ask install                           whole? does it run? it takes our file's name: NOTE {installed},
                                          and this process executes it

Our file is whole at every moment, the old one or the new one. Neither ask ever changes: see ``release``.
"""

import errno
import hashlib
import os
import signal
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from headstart.agentd import messages, release
from headstart.agentd.session import Session
from headstart.agentd.work import Refused, Work

#: Bytes; many times what there is.
LONGEST = 4 << 20
#: What is on its way to being our file. One that a killed agentd left is written over.
SUFFIX = ".new"
#: How long a new file may take to say that it runs; at the lowest priority in a busy guest.
CHECK_SECONDS = 60.0
#: How long the host may take to hear of it.
TOLD_SECONDS = 5.0
_OUTPUT = 4096


def checked(sources: str) -> str:
    """What a file prints that is told to ``--check``: it has been read and loaded, and nothing else happened."""
    return "headstart-agentd %d %s" % (release.RELEASE, sources)


class Program:
    """How this process was started, so that it can be started again."""

    def __init__(self) -> None:
        with open("/proc/self/cmdline", "rb") as file:
            self.words = [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
        #: Our own file; none if modules in a folder were started.
        self.file: Optional[str] = None
        if sys.argv[0] in self.words and os.path.abspath(__file__).startswith(os.path.abspath(sys.argv[0]) + os.sep):
            self.file = os.path.realpath(sys.argv[0])

    def words_for(self, file: str) -> List[str]:
        """The same command for another file."""
        place = self.words.index(sys.argv[0])
        return [*self.words[:place], file, *self.words[place + 1 :]]

    def again(self) -> None:
        """Does not return. Raises ``OSError``."""
        os.execv(_python(), self.words)


def _python() -> str:
    return sys.executable or "/proc/self/exe"


class Renewal:
    """The handlers. At most one file is on its way."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._arriving: Optional[_Arriving] = None

    def handlers(self) -> Dict[str, Callable[[Session, int, Dict[str, Any]], Any]]:
        return {"renew": self.begin, "install": self.install}

    def begin(self, session: Session, request: int, told: Dict[str, Any]) -> Dict[str, Any]:
        """``renew``."""
        size, digest = int(told["size"]), str(told["digest"])
        if not 0 < size <= LONGEST:
            raise Refused(messages.WRONG, "an agent of %d bytes" % size)
        _require_idle(session)
        self._drop()
        if self._program.file is None:
            raise Refused(messages.FAILED, "it was not started from a file of its own, which could be replaced")
        try:
            self._arriving = _Arriving(self._program.file, size, digest)
        except OSError as error:
            raise Refused(messages.FAILED, _unwritable(self._program.file, error)) from None
        return {}

    def take(self, position: int, data: bytes) -> None:
        """A FILE frame. What is wrong with it is told by ``install``: nothing answers a FILE."""
        if self._arriving is not None:
            self._arriving.take(position, data)

    def install(self, session: Session, request: int, told: Dict[str, Any]) -> Work:
        _require_idle(session)
        arriving, self._arriving = self._arriving, None
        if arriving is None:
            raise Refused(messages.WRONG, "there is nothing to install")
        try:
            arriving.finish()
            words = [*self._program.words_for(arriving.path), "--check"]
            return _Installation(self._program, arriving, words, lambda note: _tell(session, request, note))
        except OSError as error:
            arriving.remove()
            raise Refused(messages.FAILED, _unwritable(arriving.path, error)) from None
        except Refused:
            arriving.remove()
            raise

    def _drop(self) -> None:
        if self._arriving is not None:
            self._arriving.remove()
            self._arriving = None


def _require_idle(session: Session) -> None:
    # Among others: what is frozen can neither be written to nor left alone.
    if session.works:
        raise Refused(messages.FAILED, "it has other work to do, and cannot be replaced meanwhile")


def _tell(session: Session, request: int, note: Dict[str, Any]) -> None:
    session.send(request, messages.NOTE, messages.pack_json(note))


def _unwritable(path: str, error: OSError) -> str:
    return "%s cannot be replaced: %s" % (path, error.strerror or error)


def _allocate(descriptor: int, size: int) -> None:
    """A full disk is told of now, where the file system can tell."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise


class _Arriving:
    """A file that comes in pieces."""

    def __init__(self, own: str, size: int, digest: str) -> None:
        """Raises ``OSError``."""
        self.own = own
        self.path = own + SUFFIX
        self._size = size
        self._digest = digest
        self._wrong = ""
        self._taken = 0
        found = os.stat(own)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor: Optional[int] = os.open(self.path, flags, 0o600)
        try:
            os.fchown(self._descriptor, found.st_uid, found.st_gid)
            os.fchmod(self._descriptor, found.st_mode & 0o777)
            _allocate(self._descriptor, size)
        except OSError:
            self.remove()
            raise

    def take(self, position: int, data: bytes) -> None:
        if self._wrong or self._descriptor is None:
            return
        if position != self._taken or position + len(data) > self._size:
            self._wrong = "it did not arrive in order"
            return
        try:
            while data:
                count = os.write(self._descriptor, data)
                self._taken += count
                data = data[count:]
        except OSError as error:
            self._wrong = str(error)

    def finish(self) -> None:
        """It is on the disk, and is what was promised. Raises ``Refused``, ``OSError``."""
        assert self._descriptor is not None
        if not self._wrong and self._taken != self._size:
            self._wrong = "%d of %d bytes have arrived" % (self._taken, self._size)
        if self._wrong:
            raise Refused(messages.FAILED, self._wrong)
        os.fsync(self._descriptor)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        content = os.read(self._descriptor, self._size)
        if hashlib.blake2b(content, digest_size=16).hexdigest() != self._digest:
            raise Refused(messages.FAILED, "the file was damaged on its way")
        self._close()

    def install(self) -> None:
        """Raises ``OSError``."""
        os.rename(self.path, self.own)
        folder = os.open(os.path.dirname(self.own), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove(self) -> None:
        self._close()
        try:
            os.unlink(self.path)
        except OSError:
            pass

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Installation(Work):
    """A child runs the new file; if it can, that is installed, and once the host has been told, we become it."""

    def __init__(
        self, program: Program, arriving: _Arriving, words: List[str], tell: Callable[[Dict[str, Any]], None]
    ) -> None:
        """Raises ``OSError``."""
        self._program = program
        self._arriving = arriving
        self._tell = tell
        self._said = b""
        self._installed = False
        self._child: Optional[int] = None
        self._child, self.descriptor = _start(words)
        self.due = time.monotonic() + CHECK_SECONDS

    def hungry(self, credit: int) -> bool:
        # Asked only when everything has been sent.
        return self._installed

    def step(self, now: float) -> None:
        if self._installed:
            self._become()
        elif now >= (self.due or 0):
            raise Refused(messages.FAILED, "the new agent has not started within %.0f s" % CHECK_SECONDS)
        elif self._listen():
            self._install()

    def _listen(self) -> bool:
        """Whether the child has said all that it had to say."""
        assert self.descriptor is not None
        data = os.read(self.descriptor, _OUTPUT)
        self._said = (self._said + data)[-_OUTPUT:]
        return not data

    def _install(self) -> None:
        status = self._reap()
        said = self._said.decode("utf-8", "replace").strip()
        if status != 0 or not said.startswith("headstart-agentd "):
            raise Refused(messages.FAILED, "the new agent does not run here: %s" % (said[-300:] or "it ended at once"))
        try:
            self._arriving.install()
        except OSError as error:
            raise Refused(messages.FAILED, _unwritable(self._arriving.own, error)) from None
        self._installed = True
        self._tell({"installed": said})
        self.due = time.monotonic() + TOLD_SECONDS

    def _become(self) -> None:
        try:
            self._program.again()
        except OSError as error:
            self._installed = False
            raise Refused(messages.FAILED, "the new agent is installed and does not start: %s" % error) from None

    def _reap(self) -> int:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
        if self._child is None:
            return -1
        child, self._child = self._child, None
        return os.waitpid(child, 0)[1]

    def cancel(self) -> None:
        if self._child is not None:
            os.kill(self._child, signal.SIGKILL)
        self._reap()
        if not self._installed:
            self._arriving.remove()
            return
        # The host has gone without waiting for the NOTE: it will see who is here.
        try:
            self._become()
        except Refused:
            pass


def _start(words: List[str]) -> Tuple[int, int]:
    """A child whose output comes out of the descriptor."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            os.execv(_python(), words)
        finally:
            os._exit(127)
    os.close(writing)
    return child, reading
