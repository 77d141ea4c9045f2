"""Hooks, run by the real shell."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart import errors
from headstart.backup import hooks
from headstart.backup.hooks import Hook


def run(command: str, **facts: str) -> None:
    hooks.run([Hook(hooks.AFTER_THAW, command)], hooks.AFTER_THAW, facts)


@pytest.mark.parametrize("event", hooks.EVENTS)
def test_a_hook_is_an_event_and_a_command(event: str) -> None:
    assert hooks.parse(f"{event}=A=1 echo $A") == Hook(event, "A=1 echo $A")


@pytest.mark.parametrize("text", ["", "before-freeze", "before-freeze=", "before-freeze= ", "sometime=true", "=true"])
def test_what_is_no_hook_is_refused(text: str) -> None:
    with pytest.raises(errors.Usage, match="EVENT=COMMAND with EVENT one of before-freeze"):
        hooks.parse(text)


def test_the_hooks_of_an_event_run_in_order(tmp_path: Path) -> None:
    told = tmp_path / "told"
    wanted = [
        Hook(hooks.AFTER_THAW, f"echo one >> {told}"),
        Hook(hooks.AFTER_PUBLISH, f"echo other >> {told}"),
        Hook(hooks.AFTER_THAW, f"echo two >> {told}"),
    ]
    hooks.run(wanted, hooks.AFTER_THAW, {})
    assert told.read_text() == "one\ntwo\n"
    hooks.run(wanted, hooks.BEFORE_FREEZE, {})
    assert told.read_text() == "one\ntwo\n"


def test_the_first_that_fails_is_the_last(tmp_path: Path) -> None:
    told = tmp_path / "told"
    wanted = [Hook(hooks.AFTER_THAW, "false"), Hook(hooks.AFTER_THAW, f"touch {told}")]
    with pytest.raises(errors.HookFailed):
        hooks.run(wanted, hooks.AFTER_THAW, {})
    assert not told.exists()


def test_the_facts_are_in_the_environment(tmp_path: Path) -> None:
    told = tmp_path / "told"
    run(f'echo "$HEADSTART_EVENT $HEADSTART_VM $PATH" > {told}', HEADSTART_VM="größe 'web'; $(false)")
    assert told.read_text() == f"{hooks.AFTER_THAW} größe 'web'; $(false) {os.environ['PATH']}\n"


def test_the_password_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HEADSTART_PASSWORD",
        "HEADSTART_PASSWORD_FILE",
        "HEADSTART_PASSWORD_COMMAND",
        "HEADSTART_TO_PASSWORD",
        "HEADSTART_TOKEN",
    ):
        monkeypatch.setenv(name, "correct horse")
    told = tmp_path / "told"
    run(f"env > {told}")
    assert "PASSWORD" not in told.read_text() and "TOKEN" not in told.read_text()
    assert "correct horse" not in told.read_text()


def test_names_of_disks_become_names_of_variables() -> None:
    assert hooks.variable("dev-sys.1 größe") == "DEV_SYS_1_GR__E"


def test_a_hook_has_no_input() -> None:
    run('test -z "$(cat)"')


def test_a_failing_hook_is_told_with_its_status_and_output() -> None:
    with pytest.raises(errors.HookFailed) as caught:
        run("echo said; echo complained >&2; exit 7")
    message = str(caught.value)
    assert "after-thaw hook failed with status 7" in message
    assert "echo said" in message
    assert message.endswith("\nsaid\ncomplained")


def test_a_hook_that_stops_the_backup_says_so() -> None:
    with pytest.raises(errors.HookFailed, match="status 1, so nothing was backed up: false"):
        hooks.run([Hook(hooks.BEFORE_FREEZE, "false")], hooks.BEFORE_FREEZE, {})


def test_of_much_output_the_end_is_told() -> None:
    with pytest.raises(errors.HookFailed) as caught:
        run("i=0; while [ $i -lt 40000 ]; do echo line $i; i=$((i+1)); done; echo the reason; exit 1")
    assert str(caught.value).endswith("line 39999\nthe reason")
    assert len(str(caught.value)) < 3000


def test_output_that_is_no_text_is_told_all_the_same() -> None:
    with pytest.raises(errors.HookFailed, match="status 1"):
        run(r"printf '\377\376'; exit 1")


def test_a_hook_that_is_killed_is_told() -> None:
    with pytest.raises(errors.HookFailed, match="status -9"):
        run("kill -9 $$")


def test_a_command_that_is_not_there_is_told() -> None:
    with pytest.raises(errors.HookFailed, match="status 127"):
        run("no-such-command-anywhere")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hooks.LIMITS, hooks.AFTER_THAW, 0.5)


def assert_all_ended(pipe: int) -> None:
    """Whoever lives still has the other end of the pipe open: reading would not come to an end."""
    with open(pipe, "rb") as end:
        end.read()


@pytest.fixture
def held(tmp_path: Path) -> Callable[[], int]:
    """Opens a named pipe for reading that hooks open for writing, as ``held`` in the folder of the test."""
    os.mkfifo(tmp_path / "held")
    return lambda: os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)


def blocking(descriptor: int) -> int:
    os.set_blocking(descriptor, True)
    return descriptor


COMMANDS = {
    "itself": "exec 9> {held}; exec sleep 1000",
    "its children": "exec 9> {held}; sleep 1000 & sleep 1000 & wait",
    "who ignores a request to end": "exec 9> {held}; trap '' TERM INT HUP; sleep 1000; sleep 1000",
    "a child that it leaves behind": "exec 9> {held}; sleep 1000 & true",
}


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("who", COMMANDS)
def test_a_hook_that_takes_too_long_is_ended(tmp_path: Path, held: Callable[[], int], who: str) -> None:
    pipe = held()
    command = COMMANDS[who].format(held=tmp_path / "held")
    with pytest.raises(errors.HookFailed, match=r"took longer than .* and was ended"):
        run(command)
    assert_all_ended(blocking(pipe))


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    "last", ["sleep 1000", "sleep 1000 &", "exec > /dev/null 2>&1; sleep 1000", "exec setsid sleep 2"]
)
def test_what_a_hook_said_before_it_took_too_long_is_told(last: str) -> None:
    with pytest.raises(errors.HookFailed) as caught:
        run(f"echo waiting for the lock; echo complained >&2; {last}")
    assert str(caught.value).endswith("\nwaiting for the lock\ncomplained")


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A named pipe from which a hook can read once somebody waits for the hook. SIGINT raises."""
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    communicate = subprocess.Popen.communicate

    def tell(process: subprocess.Popen[bytes], *arguments: Any, **options: Any) -> Any:
        begun.write_text("go")
        return communicate(process, *arguments, **options)

    monkeypatch.setattr(subprocess.Popen, "communicate", tell)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield begun
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("then", ["sleep 1000 & wait", "true", "false"])
def test_a_user_who_interrupts_ends_the_hook(tmp_path: Path, begun: Path, held: Callable[[], int], then: str) -> None:
    """Also one that comes to its end just then."""
    pipe = held()
    with pytest.raises(KeyboardInterrupt):
        run(f"exec 9> {tmp_path / 'held'}; read line < {begun}; kill -INT {os.getpid()}; {then}")
    assert_all_ended(blocking(pipe))


def test_a_child_without_output_may_stay(tmp_path: Path, held: Callable[[], int]) -> None:
    """A hook may start a service: what holds nothing of ours is not waited for."""
    pipe, ended = held(), tmp_path / "ended"
    os.mkfifo(ended)
    run(f"(exec 9> {tmp_path / 'held'}; read line < {ended}; echo $line >&9) > /dev/null 2>&1 &")
    ended.write_text("bye\n")
    with open(blocking(pipe), "rb") as end:
        assert end.read() == b"bye\n"
