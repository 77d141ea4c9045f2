"""The Debian packages in a Debian with systemd that is a hypervisor: installed by apt, run by their units, removed.

``make test-package`` makes the packages first. One guest goes through all of it, so the order of the tests counts.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart import __version__
from tests.kit import debianhost
from tests.kit.debianhost import DebianHost
from tests.kit.server import SITE, SITE_PASSWORD

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"
PACKAGES = ("headstart", "headstart-server", "headstart-xfs")
UNITS = ("headstart", "headstart-server")
#: Exposure that ``systemd-analyze security`` of Debian 12 tells, 10.0 at most; docs/install.md has the figures.
MOST_EXPOSED = {"headstart": 4.2, "headstart-server": 1.2, "headstart-server-worker": 1.2}

CONFIGURATION = """\
[host]
repository = "/srv/backups"
password_file = "/etc/headstart/password"

[policy.nightly]
schedule = { calendar = "02:30" }

[policy.proven]
schedule = { calendar = "02:30" }
rehearsal = { calendar = "*:*", wait_for = "pattern", pattern = "alive", timeout = "4min", memory = "64M" }

[default]
policy = "nightly"

[vm.web]
policy = "proven"
"""
#: Says "alive" on the first serial port, from the first sector of the disk, again and again.
BOOT = (
    b"\x31\xc0\x8e\xd8"  # xor ax,ax; mov ds,ax
    b"\xba\xf8\x03"  # mov dx,0x3f8
    b"\xbe\x12\x7c"  # again: mov si,text
    b"\xac"  # next: lodsb
    b"\x84\xc0"  # test al,al
    b"\x74\xf8"  # jz again
    b"\xee"  # out dx,al
    b"\xeb\xf8"  # jmp next
    b"alive\r\n\0"  # text
).ljust(510, b"\0") + b"\x55\xaa"

DOMAIN = """\
<domain type='qemu'><name>dom</name><memory unit='MiB'>64</memory><os><type arch='x86_64'>hvm</type></os>
<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
<source file='/var/lib/libvirt/images/dom.qcow2'/><target dev='vda' bus='virtio'/></disk></devices></domain>
"""

pytestmark = [pytest.mark.package, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianHost]:
    if debianhost.missing():
        pytest.skip(debianhost.missing())
    folder, brought = tmp_path_factory.mktemp("host"), tmp_path_factory.mktemp("brought")
    made = sorted(DIST.glob("*.deb"))
    assert made, "there are no packages in dist/: make package"
    (brought / "headstart.toml").write_text(CONFIGURATION)
    (brought / "web.raw").write_bytes(BOOT.ljust(32 << 20, b"\0"))
    (brought / "dom.xml").write_text(DOMAIN)
    for package in made:
        shutil.copy(package, brought / f"{package.name.partition('_')[0]}.deb")
        newer(package, brought / "newer")
    with DebianHost(folder, brought) as vm:
        yield vm


def newer(package: Path, folder: Path) -> None:
    """The same as a release that comes after it. Before its files are there it notes which units run."""
    name, version, _ = package.stem.split("_")
    tree = folder / name
    tree.mkdir(parents=True)
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN/control"
    told = control.read_text()
    for each in (f"Version: {version}\n", f"headstart (= {version})"):
        told = told.replace(each, each.replace(version, f"{version}+newer"))
    control.write_text(told)
    script = tree / "DEBIAN/preinst"
    before = script.read_text() if script.exists() else "#!/bin/sh\n"
    script.write_text(f"{before}systemctl is-active {' '.join(UNITS)} > /run/before-{name} || true\n")
    script.chmod(0o755)
    subprocess.run(["dpkg-deb", "-Znone", "-b", tree, folder / f"{name}.deb"], check=True, capture_output=True)
    shutil.rmtree(tree)


def told(host: DebianHost, command: str) -> Any:
    return json.loads(host.run(command))


def test_apt_installs_it_with_all_that_it_needs(host: DebianHost) -> None:
    host.run("apt-get -qy install /mnt/headstart.deb")
    assert host.run("headstart --version") == f"headstart {__version__}\n"
    assert "EXIT STATUS" in host.run("man -P cat headstart")
    there = host.attempt("[ -e /usr/share/doc/headstart/CHANGELOG.md ]").returncode == 0
    assert there == (ROOT / "CHANGELOG.md").exists()
    # Nothing starts before somebody has said what is to be backed up.
    assert host.attempt("systemctl is-enabled headstart").stdout == "disabled\n"
    assert host.attempt("systemctl is-active headstart").stdout == "inactive\n"


def test_the_daemon_starts_and_answers(host: DebianHost) -> None:
    host.run(
        "mkdir -p /srv/backups /srv/vm && cp /mnt/headstart.toml /etc/headstart/\n"
        "(umask 077; echo secret > /etc/headstart/password)\n"
        "qemu-img convert -O qcow2 /mnt/web.raw /srv/vm/web.qcow2\n"
        "systemd-run --unit=web qemu-system-x86_64 -nodefaults -display none -machine pc -m 64 "
        "-qmp unix:/run/web-qmp.sock,server=on,wait=off -chardev file,id=console,path=/run/web-console.log "
        "-serial chardev:console -drive file=/srv/vm/web.qcow2,format=qcow2,if=none,id=disk,node-name=image "
        "-device virtio-blk-pci,drive=disk,id=vda\n"
        "while ! [ -S /run/web-qmp.sock ]; do sleep 0.2; done"
    )
    host.run(
        "export HEADSTART_REPOSITORY=/srv/backups HEADSTART_PASSWORD=secret\n"
        "headstart init && headstart vm add web --qmp /run/web-qmp.sock"
    )
    host.run(
        "set -e; qemu-img convert -O qcow2 /mnt/web.raw /var/lib/libvirt/images/dom.qcow2\n"
        # In a container cgroups are not libvirt's to change.
        "echo 'cgroup_controllers = []' >> /etc/libvirt/qemu.conf; systemctl restart libvirtd\n"
        "virsh define /mnt/dom.xml && virsh start dom\n"
        "headstart vm add dom --libvirt qemu:///system dom"
    )
    host.run("systemctl enable --now headstart")
    assert host.run("systemctl is-active headstart") == "active\n"
    assert [each["vm"] for each in told(host, "headstart status --json")["vms"]] == ["dom", "web"]
    found = told(host, "headstart doctor --json || true")
    assert not [each for each in found["findings"] if each["level"] == "problem"], found


@pytest.mark.parametrize("name", ["web", "dom"])
def test_the_daemon_backs_up_within_its_unit(host: DebianHost, name: str) -> None:
    secrets = "export HEADSTART_REPOSITORY=/srv/backups HEADSTART_PASSWORD=secret\n"
    made = told(host, f"headstart backup {name} --json")
    assert made["vm"] == name
    host.run(f"{secrets}headstart restore {name}@latest /srv/back-{name}")
    host.run(f"qemu-img compare /mnt/web.raw /srv/back-{name}/*.qcow2")


def test_the_daemon_rehearses_within_its_unit(host: DebianHost) -> None:
    secrets = "export HEADSTART_REPOSITORY=/srv/backups HEADSTART_PASSWORD=secret\n"
    asked = "for try in $(seq 120); do headstart proof web --json 2>/dev/null && exit; sleep 2; done"
    shown = host.run(f"{secrets}{asked}; journalctl -u headstart")
    assert json.loads(shown)["passed"] is True, shown


@pytest.mark.parametrize("unit", ["headstart"])
def test_how_exposed_the_daemon_is(host: DebianHost, unit: str) -> None:
    assert exposure(host, unit) <= MOST_EXPOSED[unit]


def exposure(host: DebianHost, unit: str) -> float:
    said = host.run(f"systemd-analyze security --no-pager {unit}.service")
    found = re.search(r"exposure level for \S+: ([0-9.]+)", said)
    assert found, said
    print(found[0])
    return float(found[1])


def test_restarted_it_goes_on(host: DebianHost) -> None:
    pid = "systemctl show --value --property MainPID headstart"
    first = host.run(pid)
    # A hook of a backup that is under way comes to its end first.
    hook = "after-thaw=touch /run/hook-began; sleep 5; touch /run/hook-ended"
    host.run(f"systemd-run --quiet --unit=ordered headstart backup web --hook '{hook}'")
    host.run(
        "for try in $(seq 600); do [ -e /run/hook-began ] && exit; sleep 0.2; done; journalctl -u headstart; exit 1"
    )
    host.run("systemctl restart headstart; [ -e /run/hook-ended ]")
    second = host.run(pid)
    host.run("systemctl reload headstart")
    assert host.run(pid) == second
    assert first != second


def test_the_server_is_installed_and_lets_somebody_log_in(host: DebianHost) -> None:
    host.run("apt-get -qy install /mnt/headstart-server.deb")
    assert host.attempt("systemctl is-active headstart-server").stdout == "inactive\n"
    host.run(
        f"HEADSTART_NEW_PASSWORD='{SITE_PASSWORD}' runuser -u headstart-server -- headstart server admin {SITE}\n"
        "systemctl enable --now headstart-server"
    )
    asked = json.dumps({"name": SITE, "password": SITE_PASSWORD, "code": ""})
    program = f"""
import json, ssl, sys, time, urllib.request as u
context = ssl._create_unverified_context()
request = u.Request("https://127.0.0.1:8443/v1/session", {asked!r}.encode(), {{"Content-Type": "application/json"}})
for attempt in range(300):
    try:
        print(u.urlopen(request, context=context, timeout=60).status)
        sys.exit()
    except ConnectionError:
        time.sleep(1)
    except u.URLError as error:
        if not isinstance(error.reason, ConnectionError):
            raise
        time.sleep(1)
"""
    host.run(f"cat > /tmp/login.py <<'END'\n{program}END")
    assert host.run("python3 /tmp/login.py || { journalctl -u headstart-server >&2; false; }") == "201\n"
    assert "headstart-server" in host.run("stat -c %U /var/lib/headstart-server/server.db")
    for unit in ("headstart-server", "headstart-server-worker"):
        assert exposure(host, unit) <= MOST_EXPOSED[unit]


def test_what_reads_xfs_comes_apart(host: DebianHost) -> None:
    assert host.attempt("/usr/lib/headstart/bin/python3 -c 'import dissect.xfs'").returncode != 0
    host.run("apt-get -qy install /mnt/headstart-xfs.deb")
    host.run("/usr/lib/headstart/bin/python3 -I -c 'import dissect.xfs.xfs'")


def test_an_upgrade_takes_all_of_them_at_once(host: DebianHost) -> None:
    pids = f"systemctl show --value --property MainPID {' '.join(UNITS)}"
    installed = f"dpkg-query -W -f '${{db:Status-Status}} ${{Version}}\\n' {' '.join(PACKAGES)}"
    before, running = host.run(installed), host.run(pids)
    # One alone would have apt remove what depends on it: nothing is done then.
    refused = host.attempt("apt-get -qy --no-remove install /mnt/newer/headstart.deb")
    assert refused.returncode != 0 and "remove is disabled" in refused.stderr
    assert (host.run(installed), host.run(pids)) == (before, running)
    named = " ".join(f"/mnt/newer/{package}.deb" for package in PACKAGES)
    host.run(f"apt-get -qy --no-remove install {named}")
    assert host.run(installed) == "".join(f"{line}+newer\n" for line in before.splitlines())
    # Nothing of the old release runs upon files of the new one.
    for number, unit in enumerate(UNITS):
        assert host.run(f"cat /run/before-{unit}").splitlines()[number] in ("inactive", "failed")
    assert host.run(f"systemctl is-active {' '.join(UNITS)}") == "active\n" * len(UNITS)
    assert not set(host.run(pids).split()) & set(running.split())
    assert len(told(host, "headstart status --json")["vms"]) == 2
    host.run("/usr/lib/headstart/bin/python3 -I -c 'import dissect.xfs.xfs'")


def test_after_an_upgrade_of_python_the_daemon_is_started_anew(host: DebianHost) -> None:
    pid = "systemctl show --value --property MainPID headstart"
    before = host.run(pid)
    # As python3's own postinst does it.
    host.run("/usr/share/python3/runtime.d/headstart.rtupdate rtupdate python3.10 python3.11")
    assert host.run(pid) == before
    host.run("/usr/share/python3/runtime.d/headstart.rtupdate post-rtupdate python3.10 python3.11")
    assert host.run(pid) != before
    assert host.run("systemctl is-active headstart") == "active\n"


def test_removed_it_leaves_what_is_the_operators(host: DebianHost) -> None:
    host.run("apt-get -qy remove headstart headstart-server headstart-xfs")
    assert host.attempt("systemctl is-active headstart headstart-server").returncode != 0
    host.run("! [ -e /usr/lib/headstart ] && ! [ -e /usr/bin/headstart ] && [ -e /etc/headstart/headstart.toml ]")
    said = host.run("apt-get -qy purge headstart headstart-server 2>&1")
    assert "Kept: /var/lib/headstart." in said and "Kept: /var/lib/headstart-server" in said
    for kept in ("/var/lib/headstart/state.sqlite3", "/var/lib/headstart-server/server.key", "/srv/backups/snapshots"):
        host.run(f"[ -e {kept} ]")
    host.run("! [ -e /etc/headstart/headstart.toml ] && [ -e /etc/headstart/password ]")
