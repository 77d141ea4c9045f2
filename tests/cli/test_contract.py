"""What every command keeps: one result, one error, the exit status, silence otherwise."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import mock

import pytest

from headstart import errors
from headstart.backup import trim
from headstart.cli import arguments, program
from headstart.guest.trimming import Trimmed
from headstart.host import control
from headstart.repository import proof
from headstart.restore import rollback
from headstart.restore.rehearsing import rehearsal
from headstart.state.journal import Journal
from tests.cli import console
from tests.cli.shelf import Shelf
from tests.kit.cli import ROOT, Cli
from tests.restore import stored


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Begun from nothing each time, as users do."""
    return Cli(tmp_path)


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


# -- one result


def test_a_result_is_one_object(cli: Cli) -> None:
    outcome = cli.run("init")
    assert outcome.json["encrypted"] is True
    assert outcome.stdout.count("\n") == 1
    assert outcome.stderr == ""


@pytest.mark.parametrize("place", [0, 1, 2])
def test_options_stand_before_or_after_the_verb(shelf: Shelf, place: int) -> None:
    words: list[str | Path] = ["snapshots", "web"]
    words[place:place] = ["--json", "--repository", shelf.cli.repository]
    outcome = console.inside(shelf.cli, *words, environment={"HEADSTART_REPOSITORY": ""})
    assert outcome.status == 0, outcome.stderr
    assert outcome.json["snapshots"] == []


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_options_stand_anywhere_among_nested_verbs(cli: Cli, place: int) -> None:
    words: list[str | Path] = ["vm", "show", "web"]
    words[place:place] = ["--state", cli.state, "--json"]
    outcome = console.inside(cli, *words, environment={"HEADSTART_STATE": ""})
    assert outcome.status == 15
    assert outcome.error["error"]["facts"] == {"vm": "web"}


def test_a_later_option_wins_over_the_environment(cli: Cli, tmp_path: Path) -> None:
    cli.run("--repository", f"file://{tmp_path}/other", "init")
    assert (tmp_path / "other" / "config").exists()
    assert not cli.repository.exists()


def test_text_is_for_people(shelf: Shelf) -> None:
    made = shelf.add()
    outcome = console.run(shelf.cli, "snapshots")
    assert outcome.stderr == ""
    assert outcome.stdout.splitlines()[1].startswith(made.id[:12])


# -- one error

USAGE: list[Sequence[str]] = [
    (),
    ("frobnicate",),
    ("vm",),
    ("init", "extra"),
    ("snapshots", "--jso"),
    ("restore",),
    ("restore", "web@latest", "out", "--format", "vdi"),
    ("restore", "web@latest", "out", "--disk", "=x"),
    ("vm", "add", "web"),
    ("backup", "web", "--audit", "-1"),
    ("backup", "web", "--audit", "some"),
    ("backup", "web", "--hook", "sometime=true"),
    ("backup", "web", "--hook", "after-thaw="),
    ("--repository", "ftp://host/path", "snapshots"),
]


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_wrong_words_are_a_usage_error(cli: Cli, words: Sequence[str]) -> None:
    outcome = console.inside(cli, "--json", *words)
    assert (outcome.status, outcome.stdout) == (2, "")
    assert set(outcome.error["error"]) == {"kind", "message", "exit_code", "facts"}
    assert (outcome.error["error"]["kind"], outcome.error["error"]["exit_code"]) == ("Usage", 2)


def test_an_error_in_text_is_a_sentence(cli: Cli) -> None:
    outcome = console.run(cli, "snapshots")
    assert outcome.status == 10
    assert outcome.stdout == ""
    assert re.fullmatch(r"headstart: There is no repository in .*headstart init\n", outcome.stderr)


def test_no_repository_named(cli: Cli) -> None:
    outcome = console.run(cli, "snapshots", environment={"HEADSTART_REPOSITORY": ""})
    assert outcome.status == 2
    assert "HEADSTART_REPOSITORY" in outcome.stderr


def test_where_there_is_no_repository_it_is_told(cli: Cli, tmp_path: Path) -> None:
    for words in (("snapshots",), ("verify",), ("restore", "web@latest", str(tmp_path / "out"))):
        outcome = console.inside(cli, "--json", *words)
        assert (outcome.status, outcome.error["error"]["kind"]) == (10, "NoRepository")


def test_a_repository_is_not_made_twice(shelf: Shelf) -> None:
    assert "empty" in shelf.cli.run("init", expect=24).error["error"]["message"]


def test_a_newer_repository(shelf: Shelf) -> None:
    config = shelf.cli.repository / "config"
    data = bytearray(config.read_bytes())
    data[7] += 1
    config.chmod(0o600)
    config.write_bytes(data)
    assert "newer version" in shelf.cli.run("snapshots", expect=14).error["error"]["message"]


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_newer_repository_is_left_as_it_is(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    shelf.add_vm("web", tmp_path / "nowhere")
    for name in ("config", "twins/config"):
        config = shelf.cli.repository / name
        config.chmod(0o600)
        config.write_bytes(config.read_bytes()[:7] + b"\x09" + config.read_bytes()[8:])
    before = _content(shelf.cli.repository)
    for words in (
        *(("snapshots",), ("verify",), ("restore", "web@latest", str(tmp_path / "out"))),
        *(("backup", "web"), ("precopy", "web")),
    ):
        outcome = console.inside(shelf.cli, "--json", *words)
        assert (outcome.status, outcome.error["error"]["kind"]) == (14, "Unsupported"), words
        assert "newer version of headstart. Update" in outcome.error["error"]["message"]
    assert console.inside(shelf.cli, "init").status == 24
    assert _content(shelf.cli.repository) == before


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_newer_state_is_left_as_it_is(shelf: Shelf, tmp_path: Path, mode: str) -> None:
    shelf.add_vm("web", tmp_path / "nowhere")
    path = shelf.cli.state / "state.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA journal_mode = {mode}")
        database.execute("PRAGMA user_version = 99")
        database.commit()
    before = path.read_bytes()
    (tmp_path / "headstart.toml").write_text('[policy.default.schedule]\ncalendar = "daily"\n')
    for words in (
        *(("vm", "list"), ("vm", "add", "app", "--qmp", "/nowhere"), ("vm", "remove", "web")),
        *(("status",), ("backup", "web"), ("run", "--config", str(tmp_path / "headstart.toml"))),
    ):
        outcome = console.inside(shelf.cli, "--json", *words)
        assert (outcome.status, outcome.error["error"]["kind"]) == (14, "Unsupported"), words
        assert "newer Headstart (version 99" in outcome.error["error"]["message"]
    assert path.read_bytes() == before


def test_what_is_not_there_is_not_found(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    for words in (
        ("restore", "ffff", str(tmp_path / "out")),
        ("restore", "db@latest", str(tmp_path / "out")),
        ("restore", "web@latest", str(tmp_path / "out"), "--disk", "sda"),
        ("verify", "ffff"),
        ("vm", "show", "web"),
        ("vm", "remove", "web"),
        ("vm", "release", "web"),
        ("status", "web"),
        ("precopy", "web"),
        ("backup", "web"),
    ):
        outcome = console.inside(shelf.cli, "--json", *words)
        assert (outcome.status, outcome.error["error"]["kind"]) == (15, "NotFound"), words
    assert not (tmp_path / "out").exists()


def test_a_vm_that_is_gone(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add_vm("gone", tmp_path / "nowhere")
    outcome = console.inside(shelf.cli, "backup", "gone")
    assert outcome.status == 20
    assert "nowhere" in outcome.stderr


@pytest.mark.parametrize("name", ["", "-x", ".x", "a b", "web@latest", "a/b", "x" * 65, "ä"])
def test_names_that_cannot_be(cli: Cli, name: str) -> None:
    outcome = console.inside(cli, "vm", "add", "--qmp", "/nowhere", "--", name)
    assert outcome.status == 2
    assert "cannot be the name" in outcome.stderr


@pytest.mark.parametrize(
    "words", [("vm", "show"), ("status",), ("history",), ("precopy",), ("backup",), ("vm", "remove")]
)
def test_a_name_that_is_no_text(shelf: Shelf, words: Sequence[str]) -> None:
    outcome = console.inside(shelf.cli, *words, os.fsdecode(b"web\xff"))
    assert outcome.status == 2 and "is not text in UTF-8" in outcome.stderr


def test_a_vm_that_somebody_else_works_on(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add_vm("web", tmp_path / "nowhere")
    with Journal.open(shelf.cli.state) as journal, journal.lock("web"):
        for words in (("precopy", "web"), ("backup", "web"), ("vm", "show", "web"), ("vm", "remove", "web")):
            outcome = console.inside(shelf.cli, *words)
            assert outcome.status == 11
            assert f"process {os.getpid()}" in outcome.stderr


def test_a_state_directory_that_cannot_be(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "--state" in cli.run("vm", "list", "--state", tmp_path / "file", expect=2).error["error"]["message"]


def test_a_daemon_is_told_which_repository_was_named(cli: Cli) -> None:
    """So that it can refuse: it has one of its own open."""
    told: list[Mapping[str, object]] = []

    def answer(request: Mapping[str, object], tell: control.Tell) -> object:
        told.append(request)
        if request["do"] == "status":
            return {"vms": {"web": {}}}
        raise errors.Usage("not there")

    cli.state.mkdir()
    with control.Server(control.address(cli.state), answer):
        assert console.inside(cli, "--repository", "usb/", "backup", "web").status == 2
        environment = {"HEADSTART_REPOSITORY": ""}
        assert console.inside(cli, "backup", "web", environment=environment).status == 2
    assert [each["repository"] for each in told if each["do"] == "backup"] == [str(Path("usb").absolute()), None]


# -- what nobody thought of

BROKEN = console.patched("""
    from headstart.repository import snapshot
    def broken(repo):
        raise ZeroDivisionError("in the middle")
    snapshot.all_manifests = broken
""")


def test_a_bug_is_one_sentence(shelf: Shelf) -> None:
    outcome = console.run(shelf.cli, "snapshots", program=BROKEN)
    assert outcome.status == 1
    assert outcome.stderr.count("\n") == 1
    assert "ZeroDivisionError: in the middle" in outcome.stderr
    assert "-v" in outcome.stderr


@pytest.mark.parametrize("flag", ["-v", "--verbose"])
def test_a_bug_shows_its_traceback_when_asked(shelf: Shelf, flag: str) -> None:
    outcome = console.run(shelf.cli, "snapshots", flag, program=BROKEN)
    assert outcome.status == 1
    assert "Traceback" in outcome.stderr
    outcome = console.run(shelf.cli, "snapshots", flag, "--json", program=BROKEN)
    assert "Traceback" in outcome.error["error"]["facts"]["traceback"]


def test_more_is_told_when_asked(shelf: Shelf) -> None:
    outcome = console.run(shelf.cli, "snapshots", "-v", "--json")
    [line] = lines(outcome.stderr)
    assert str(shelf.cli.repository) in str(line["log"])
    assert "correct horse" not in outcome.stderr
    assert " headstart: version" in console.run(shelf.cli, "-v", "snapshots").stderr


# -- pipes and signals


def test_a_closed_pipe_is_quiet(shelf: Shelf) -> None:
    shelf.add()
    for words in (["snapshots"], ["--help"]):
        with shelf.cli.start(*words) as process:
            assert process.stdout is not None and process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == ""
            assert process.wait() == 0


@pytest.mark.parametrize(
    ("closed", "words", "status"),
    [
        (">&-", ["snapshots"], 0),
        (">&- 2>&-", ["snapshots"], 0),
        ("2>&-", ["snapshots", "--repository", "/nowhere"], 10),
        ("2>&-", ["restore", "web@latest", "out"], 0),
        ("<&-", ["snapshots"], 2),
        ("<&- >&- 2>&-", ["snapshots"], 2),
    ],
)
def test_what_the_caller_has_closed(
    shelf: Shelf, tmp_path: Path, closed: str, words: Sequence[str], status: int
) -> None:
    """Nothing that is meant for the user gets into a file that is opened next."""
    shelf.add()
    environment = dict(shelf.cli.environment)
    if "<" in closed:
        del environment["HEADSTART_PASSWORD"]
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "headstart", "-v", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    assert ("headstart: version" in done.stderr) is ("2>" not in closed)
    assert (status == 2 and "2>" not in closed) is ("A password is needed" in done.stderr)
    assert bool(done.stdout) is (">&-" not in closed.replace("2>&-", "") and status == 0)


def test_nobody_is_told_what_nobody_reads(cli: Cli) -> None:
    with cli.start("status", "--watch") as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["vms"] == []
        process.stdout.close()
        assert process.wait(console.SECONDS) == 0
        assert process.stderr.read() == ""


def test_a_result_that_cannot_be_written_is_an_error(shelf: Shelf) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "headstart", "snapshots"],
            cwd=ROOT,
            env=shelf.cli.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert "The work is done, and need not be repeated" in done.stderr
    assert done.stderr.endswith("its result could not be written: No space left on device.\n")


def test_nobody_has_to_read_stderr(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    with shelf.cli.start("restore", "web@latest", tmp_path / "out") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stderr.close()
        assert json.loads(process.stdout.read())["vm"] == "web"
        assert process.wait() == 0
    (tmp_path / "out" / "system.qcow2").write_bytes(b"precious")
    with shelf.cli.start("restore", "web@latest", tmp_path / "out") as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait() == 24


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupted_restore_keeps_what_it_has(
    shelf: Shelf, tmp_path: Path, number: signal.Signals, as_json: bool
) -> None:
    shelf.add(disks={"big": stored.content(*range(1, 600))})
    command = ["restore", "web@latest", str(tmp_path / "out"), "--format", "raw", *(["--json"] if as_json else [])]
    process = subprocess.Popen(
        [sys.executable, *console.SLOW_RESTORE, *command],
        cwd=ROOT,
        env=shelf.cli.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        part = tmp_path / "out" / "big.raw.part"
        # Before that there is nothing to keep.
        while not part.exists() or part.stat().st_blocks < 100:
            assert process.poll() is None
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=console.SECONDS)
    assert process.returncode == 130
    assert stdout == ""
    message = f"Interrupted. What was restored is kept in {part}: give the same command again to go on, or remove it."
    if as_json:
        assert lines(stderr)[-1] == {
            "error": {"kind": "Interrupted", "exit_code": 130, "message": message, "facts": {}}
        }
    else:
        assert stderr == f"headstart: {message}\n"
    assert list((tmp_path / "out").iterdir()) == [part]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_a_killed_restore_may_be_repeated(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add(disks={"big": stored.content(*range(1, 600))}, files={"definition": b"as it was"})
    command = ["restore", "web@latest", str(tmp_path / "out"), "--format", "raw"]
    part = tmp_path / "out" / "big.raw.part"
    with subprocess.Popen(
        [sys.executable, *console.SLOW_RESTORE, *command], cwd=ROOT, env=shelf.cli.environment
    ) as process:
        try:
            while names(part.parent) != {"big.raw.part", "definition.txt"} or part.stat().st_blocks < 100:
                assert process.poll() is None
            process.send_signal(signal.SIGSTOP)  # it is not to get to its end meanwhile
            refused = shelf.cli.run(*command, expect=24).error["error"]["message"]
            assert f"{part} exists, and another restore is writing it" in refused
        finally:
            process.kill()
    assert names(part.parent) == {"big.raw.part", "definition.txt"}
    done = console.run(shelf.cli, *command)
    assert done.status == 0
    assert done.stderr.count("headstart: note: ") == 4
    assert f"{part}, which an interrupted restore had left behind, was gone on with" in done.stderr
    assert (tmp_path / "out" / "big.raw").read_bytes() == stored.content(*range(1, 600))
    assert {path.name for path in part.parent.iterdir()} == {"big.raw", "definition.txt"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("as_json", [False, True])
def test_it_may_be_interrupted_while_it_is_loaded(cli: Cli, number: signal.Signals, as_json: bool) -> None:
    with subprocess.Popen(
        [sys.executable, *console.SLOW_START, "snapshots", *(["--json"] if as_json else [])],
        cwd=ROOT,
        env=cli.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=console.SECONDS)
    assert process.returncode == 130
    told = {"error": {"kind": "Interrupted", "exit_code": 130, "message": "Interrupted.", "facts": {}}}
    assert stderr == (f"{json.dumps(told)}\n" if as_json else "headstart: Interrupted.\n")


def test_what_the_caller_ignores_stays_ignored(shelf: Shelf, tmp_path: Path) -> None:
    """As under nohup."""
    shelf.add(disks={"big": stored.content(*range(1, 300))})
    command = [sys.executable, *console.SLOW_RESTORE, "restore", "web@latest", str(tmp_path / "out")]
    with subprocess.Popen(
        ["/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command],
        cwd=ROOT,
        env=shelf.cli.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (tmp_path / "out" / "big.qcow2.part").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        _, stderr = process.communicate(timeout=console.SECONDS)
    assert (process.returncode, stderr) == (0, "")


# -- progress


def test_progress_is_lines_of_json(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    outcome = shelf.cli.run("restore", "web@latest", tmp_path / "out")
    steps = [line["progress"] for line in lines(outcome.stderr)]
    assert {"what": "data", "done": stored.BLOCK, "total": stored.BLOCK, "seconds_left": None} in steps
    assert all(set(step) == {"what", "done", "total", "seconds_left"} for step in steps if isinstance(step, dict))


def test_there_is_none_without_a_terminal(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    assert console.run(shelf.cli, "restore", "web@latest", tmp_path / "out").stderr == ""


def test_there_are_bars_on_a_terminal(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    status, shown = console.on_a_terminal(shelf.cli, "restore", "web@latest", tmp_path / "out")
    assert status == 0
    assert "system" in shown
    assert "━" in shown
    assert shown.rstrip().splitlines()[-1].startswith("Restored snapshot")


# -- what else there is to know


@pytest.mark.parametrize(("passed", "status"), [(True, 3), (False, 28)])
def test_a_rehearsal_that_was_not_noted(shelf: Shelf, passed: bool, status: int) -> None:
    shelf.add()
    seen = proof.Proof(1.0, "host", passed, 2.0, "agent", "" if passed else "It is silent.")
    shown = rehearsal.Shown(seen, proof.Evidence(), ("it has less memory",))
    with (
        mock.patch.object(rehearsal, "rehearse", return_value=shown),
        mock.patch.object(proof, "record", side_effect=errors.StoreFailed("The store is full.")),
    ):
        done = console.inside(shelf.cli, "--json", "rehearse", "web@latest")
        assert (done.status, done.json["passed"]) == (status, passed)
        note, error = lines(done.stderr)
        assert note == {"note": "it has less memory"}
        assert "not noted with" in str(error) and "The store is full." in str(error)
        assert "headstart: note: it has less memory\n" in console.inside(shelf.cli, "rehearse", "web@latest").stderr


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        ([Trimmed("/", 4096), Trimmed("/srv", 0)], 0, ""),
        ([Trimmed("/", 4096), Trimmed("/srv", None, "no")], 3, "but for what is mounted at /srv"),
        ([], 3, "no file system"),
        ([Trimmed("/", None, "no")], 14, "discard=unmap"),
    ],
)
def test_what_could_not_be_trimmed(cli: Cli, found: list[Trimmed], status: int, said: str) -> None:
    with mock.patch.object(trim, "trim", return_value=("agent", found)):
        done = console.inside(cli, "--json", "trim", "web")
    assert done.status == status and said in done.stderr
    assert len(done.json["filesystems"]) == len(found)


# -- the parser itself


def test_help_and_version(cli: Cli) -> None:
    assert "snapshots" in console.run(cli, "--help").stdout
    assert console.run(cli, "backup", "--help").stdout.startswith("usage: headstart backup")
    assert re.fullmatch(r"headstart \d+\.\d+.*\n", console.run(cli, "--version").stdout)


def test_a_password_is_never_an_argument(cli: Cli) -> None:
    for verb in ("init", "backup", "restore", "snapshots", "verify"):
        assert "--password" not in console.run(cli, verb, "--help").stdout


def test_every_exit_status_is_documented() -> None:
    """The table in docs/cli.md is that of errors.EXIT_CODES."""
    documented = re.findall(r"^\| (\d+) \| `?([A-Za-z]*)`? *\|", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE)
    expected = [("0", "")] + [(str(status), kind.__name__) for kind, status in errors.EXIT_CODES.items()]
    assert documented == expected


# -- a yes


@pytest.mark.parametrize("answer", ["no", "y", ""])
def test_a_rollback_wants_a_yes(shelf: Shelf, tmp_path: Path, answer: str) -> None:
    shelf.add()
    shelf.add_vm("web", tmp_path / "nobody")
    status, shown = console.on_a_terminal(shelf.cli, "rollback", "web", "web@latest", answers=(answer,))
    assert status == 2
    assert (
        "web is shut down (120 s at most; if it does not, nothing is changed)" in shown and "Nothing was done." in shown
    )


def test_a_rollback_with_a_yes_goes_on(shelf: Shelf, tmp_path: Path) -> None:
    """And finds that nobody is there."""
    shelf.add()
    shelf.add_vm("web", tmp_path / "nobody")
    assert console.on_a_terminal(shelf.cli, "rollback", "web", "web@latest", answers=("yes",))[0] == 20
    assert shelf.cli.run("rollback", "web", "web@latest", "--yes", expect=20)


@pytest.mark.parametrize(("reason", "status"), [("", 0), ("QEMU did not start: no memory", 3)])
def test_a_rollback_after_which_the_vm_is_off(shelf: Shelf, tmp_path: Path, reason: str, status: int) -> None:
    made = shelf.add()
    shelf.add_vm("web", tmp_path / "nobody")
    report = rollback.Report("web", made.id, None, (), running=not reason, seconds=1.0, notes=(), not_started=reason)
    with mock.patch.object(rollback, "rollback", return_value=report):
        done = console.inside(shelf.cli, "--json", "rollback", "web", "web@latest", "--yes")
    assert (done.status, done.json["running"], done.json["not_started"]) == (status, not reason, reason)
    if reason:
        assert done.error["error"]["message"] == f"web is rolled back, and does not run again: {reason}."


def test_a_rollback_does_not_ask_nobody(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    shelf.add_vm("web", tmp_path / "nobody")
    refused = console.run(shelf.cli, "rollback", "web", "web@latest")
    assert refused.status == 2 and "use --yes" in refused.stderr


@pytest.mark.parametrize("module", sorted(set(program.VERBS.values())))
def test_each_verb_is_made_by_the_module_that_the_table_names(module: str) -> None:
    _, verbs = arguments.new_parser()
    importlib.import_module(f"headstart.cli.{module}").add(verbs)
    assert sorted(verbs.choices) == sorted(verb for verb, made_by in program.VERBS.items() if made_by == module)


def test_a_verb_loads_no_other() -> None:
    """Nor what only others need: it would take as long again as what the verb does."""
    checked = """
import sys
from headstart.cli import program
try:
    program.run(["tag", "--help"])
except SystemExit:
    print([name for name in sys.modules if name in ("headstart.cli.backup", "libvirt", "qemu.qmp")])
"""
    done = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
