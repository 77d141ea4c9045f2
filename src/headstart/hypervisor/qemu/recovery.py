"""Putting right what a dead run of ours left in a running QEMU.

Order matters: first what the guest can feel (filters, jobs, a stop), then what nobody feels.
Recording bitmaps stay: they are believed or removed by the tracking layer, which knows their names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from headstart import errors
from headstart.hypervisor import names
from headstart.hypervisor.qemu import exports, graph, jobs, pull
from headstart.hypervisor.qemu.push import scratch_files
from headstart.hypervisor.qemu.site import Site
from headstart.wire.qga import Qga
from headstart.wire.qmp import CommandFailed


def recover(site: Site) -> tuple[str, ...]:
    """Returns a sentence for each thing done or found. Raises ``Busy`` where something cannot be put right."""
    known = bool(_our_exports(site))
    done = [*_stopped(site), *let_go(site)]
    if site.exports.leftover_server(known=known):
        done.append("the NBD server of a dead run was stopped")
    files = scratch_files(site.scratch, site.label)
    if done or files:
        done += _frozen(site)
    for path in files:
        path.unlink(missing_ok=True)
        done.append(f"the file {path} of a dead run was removed")
    _require_free(site)
    return (*done, *_foreign(site))


def let_go(site: Site) -> list[str]:
    """Take out what stands on the disks and beside them, whoever of ours works with it."""
    # Filters come out when nothing reads through them any longer.
    return [*_jobs(site), *_exports(site), *_nodes(site), *_filters(site), *_nodes(site)]


def _filters(site: Site) -> Iterator[str]:
    seen = graph.look(site.qmp)
    for drive in seen.drives:
        if not names.is_node_of(site.installation, drive.root):
            continue
        pull.put_back(site, drive.qdev, seen.filtered(drive.root))
        yield f"a filter of a dead run was taken out of {drive.qdev}"


def _jobs(site: Site) -> Iterator[str]:
    for job in site.qmp.execute("query-jobs"):
        if names.is_node_of(site.installation, job["id"]):
            jobs.end(site.qmp, job["id"])
            yield f"the job {job['id']} of a dead run was ended"


def _stopped(site: Site) -> Iterator[str]:
    """The guard would have continued the VM and removed the note, had it lived."""
    if site.stopped.exists() and site.qmp.execute("query-status")["status"] == "paused":
        site.qmp.execute("cont")
        yield "the VM, stopped by a dead run, was continued"
    site.stopped.unlink(missing_ok=True)


def _our_exports(site: Site) -> list[str]:
    found = [export["id"] for export in site.qmp.execute("query-block-exports")]
    return [name for name in found if names.is_node_of(site.installation, name)]


def _exports(site: Site) -> Iterator[str]:
    for name in _our_exports(site):
        exports.remove(site.qmp, name)
        yield f"the export {name} of a dead run was removed"


def _nodes(site: Site) -> Iterator[str]:
    """Our nodes, those first that nothing of ours stands on."""
    while True:
        ours = {
            node["node-name"]
            for node in site.qmp.execute("query-named-block-nodes", flat=True)
            if names.is_node_of(site.installation, node["node-name"])
        }
        removed = [node for node in sorted(ours) if _deleted(site, node)]
        yield from (f"the node {node} of a dead run was removed" for node in removed)
        if not removed:
            return


def _deleted(site: Site, node: str) -> bool:
    try:
        site.qmp.execute("blockdev-del", node_name=node)
    except CommandFailed:
        return False
    return True


def _frozen(site: Site) -> Iterator[str]:
    if site.qga is None:
        return
    with contextlib.suppress(errors.Unreachable), Qga(site.qga) as qga:
        if qga.execute("guest-fsfreeze-status", 3.0) == "frozen":
            qga.execute("guest-fsfreeze-thaw", 5.0)
            yield "the guest, frozen by a dead run, was thawed"


def _require_free(site: Site) -> None:
    """No filter of ours is left below a node of somebody else's. A snapshot that is taken of a *device* while a point
    stands is put on what the device stands on then."""
    seen = graph.look(site.qmp)
    for above, children in seen.children.items():
        for filter_ in children.values():
            ours = names.is_node_of(site.installation, filter_) and not names.is_node_of(site.installation, above)
            if ours and seen.nodes[filter_].driver == "copy-before-write":
                raise errors.Busy(_snapshot_on(seen.nodes[above], filter_, seen.nodes[seen.filtered(filter_)]))


def _snapshot_on(snapshot: graph.Node, filter_: str, image: graph.Node) -> str:
    return (
        f"A snapshot ({snapshot.file}) was taken of a device while it was being backed up, and stands on a filter of"
        f" ours ({filter_}) that cannot be taken out below it. Free the snapshot with QEMU's block-stream (device"
        f" {snapshot.name}), which copies the whole disk into it; or shut the VM down and, before it can be started"
        f" again, 'qemu-img rebase -u -F {image.driver} -b {image.file} {snapshot.file}'. Snapshots that name a node"
        " (blockdev-snapshot-sync with node-name) do no harm."
    )


def _foreign(site: Site) -> Iterator[str]:
    for node in site.qmp.execute("query-named-block-nodes", flat=True):
        name = node["node-name"]
        if names.is_any_node(name) and not names.is_node_of(site.installation, name):
            yield f"the node {name} belongs to another installation of Headstart and was left alone"
