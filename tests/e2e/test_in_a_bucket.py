"""A real VM backed up into an immutable repository in a bucket of S3, by the command line alone."""

from __future__ import annotations

from pathlib import Path

from tests.kit import compare
from tests.kit import weed as weeds
from tests.kit.cli import Cli
from tests.kit.disks import MIB
from tests.kit.gateway import Gateway
from tests.kit.vm import Vm


def test_backed_up_verified_and_restored(
    vm: Vm, tmp_path: Path, gateway: Gateway, locking_bucket: str, place: str
) -> None:
    url = f"s3://{locking_bucket}/{place}"
    cli = Cli(tmp_path / "host", HEADSTART_REPOSITORY=url, **weeds.environment(gateway.url))
    cli.run("init", "--immutable", "1")
    cli.run("vm", "add", "guest", "--qmp", vm.qmp_socket, "--qga", vm.qga_socket)
    cli.run("backup", "guest")
    for number, verb in enumerate((["precopy", "guest", "--transport", "host"], ["backup", "guest"])):
        for disk in vm.disks:
            vm.guest.write(vm.device(disk.name), (4 + 2 * number) * MIB, MIB, seed=f"{disk.name} {number}")
        cli.run(*verb)
    done = cli.run("verify").json
    assert (done["snapshots"], done["findings"]) == (2, [])
    cli.run("restore", "guest@latest", tmp_path / "out")
    vm.quit()
    for disk in vm.disks:
        [image] = (tmp_path / "out").glob(f"*{disk.name}.qcow2")
        compare.assert_identical(image, disk.path, "qcow2", disk.format)
