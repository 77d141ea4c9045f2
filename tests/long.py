"""The tests that ``make soak`` runs and ``make test`` does not: further variants, matrices and fault points of what a
shorter one in ``make test`` shows already. Each with what stands for it there.

A test is long if its file is named here, and one of the words is in the rest of its id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Long(NamedTuple):
    words: Sequence[str]
    #: Why it need not run each time.
    why: str


ALL = ("",)

LONG: Mapping[str, Long] = {
    # the hypervisor, by its drivers
    "tests/hypervisor/test_contract.py": Long(
        ("[guest]", "[qemu-push]", "[libvirt-overlays]", "[qemu-overlays"),
        "the second way of each driver; a backup by each of them is in tests/e2e",
    ),
    "tests/hypervisor/qemu/test_recovery.py": Long(
        ("[push-", "pull-view", "pull-live", "pull-removing", "pull-removed", "pull-preparing"),
        "moments between those that are kept",
    ),
    "tests/hypervisor/qemu/test_obstacles.py": Long(("[push]",), "the same by jobs"),
    # exactness, through libvirt as well
    "tests/e2e/test_exact.py": Long(
        ("[libvirt]",),
        "the same of plain QEMU; a domain's rounds and backups are in tests/e2e/test_daemon_libvirt.py",
    ),
    "tests/e2e/test_libvirt.py": Long(
        (
            "transient_domain",
            "defined_anew",
            "fills_the_scratch",
            "qemu_is_killed",
            "while_the_domain_is_off",
            "while_its_images_are_read",
            "renamed",
            "gone_can_be_removed",
            "a_run_and_its_watch",
            "[15]",
            "raw_disk",
            "snapshot_and_its_commit",
            "LibvirtPoint._offer",
            "is_off_is_backed_up",
            "agents_channel",
            "slice_that",
            "iothread_is_refused",
            "saved_memory",
            "a_block_job",
            "where_there_is_no_qga",
        ),
        "what is rare in a domain's life; the same is in make test for plain QEMU",
    ),
    "tests/e2e/test_boot_libvirt.py": Long(ALL, "tests/e2e/test_boot.py for plain QEMU, and domains that are defined"),
    "tests/e2e/test_libvirt_appliance.py": Long(ALL, "tests/e2e/test_appliance.py for plain QEMU"),
    "tests/e2e/test_define.py": Long(("test_a_domain",), "plain QEMU's definition is kept"),
    "tests/e2e/test_doctor_libvirt.py": Long(ALL, "tests/cli/test_doctor.py"),
    "tests/e2e/test_overlays_libvirt.py": Long(
        (
            "test_the_tool_is_killed",
            "[False]",
            "commit_of_the_owners",
            "snapshot_of_the_owners",
            "defined_anew",
            "wish",
            "leaves_no_trace",
            "a_restart_keeps",
            "host_dies",
        ),
        "rounds under constant writes are kept",
    ),
    "tests/e2e/test_volumes_libvirt.py": Long(ALL, "tests/e2e/test_volumes.py for plain QEMU"),
    "tests/e2e/test_volumes.py": Long(
        (
            "[raw]",
            "[iothread]",
            "left_out[False]",
            "over_two_disks",
            "policy_of_a_daemon",
            "where_changes",
        ),
        "partitions that are left out, with qcow2, are kept",
    ),
    "tests/e2e/test_proxmox.py": Long(("[drive]", "[blockdev"), "one with an iothread, which is harder, is kept"),
    # fault points: one of each kind is kept
    "tests/e2e/test_overlays.py": Long(
        (
            "Place.",
            "Overlaying",
            "jobs:wait",
            "PullPoint",
            "an_old_state",
            "that_is_off",
            "killed_qemu",
            "migration_comes",
        ),
        "fault points; rounds and a restart are kept",
    ),
    "tests/e2e/test_overlays_bare.py": Long(
        ("-True]", "Anchor", "begin_rollback", "killed_in_the_middle"), "fault points"
    ),
    "tests/e2e/test_kill.py": Long(
        (
            "rotate",
            "exports:remove",
            "comparison:compare",
            "draft:drop",
            "_tell",
            "_learn",
            "jobs:end",
            "[filters]",
            "before_every_commit",
        ),
        "fault points; one of each kind is kept",
    ),
    "tests/e2e/test_daemon_kill.py": Long(
        (
            "before-identification",
            "after-identification",
            "copied]",
            "auditing",
            "spooled",
            "after-the-manifest",
            "published",
            "[copying]",
            "spooling",
            "before-the-manifest",
        ),
        "fault points",
    ),
    "tests/e2e/test_rollback.py": Long(
        (
            "begin_rollback",
            "[True]",
            "test_a_domain",
            "that_shuts_down",
            "Client.write:4",
        ),
        "fault points",
    ),
    "tests/e2e/test_images.py": Long(
        (
            "1048576",
            "16776704",
            "[1]",
            "[2]",
            "shrunk_and_grown",
            "old_copy",
            "to_after_a_failed",
            "again_and_again",
            "dash_snapshot",
            "before_the_last_backup",
            "came_and_went",
        ),
        "variants; a restart, a kill, what was rolled back, moved, unplugged or exchanged are kept",
    ),
    "tests/e2e/test_trouble.py": Long(
        (
            "[deaf]",
            "[strange]",
            "[scratch]",
            "[residue]",
            "[tree]",
            "[after-thaw]",
            "vanishes",
            "damaged_object",
            "before-freeze-",
            "after-thaw-INT",
            "before-release-TERM",
            "hooks_that_fail",
            "while_it_is_copied",
            "after_the_window",
            "spool_of_an_unfinished",
            "whose_pack_is_lost",
        ),
        "fault points; what stops a run and a store that fails are kept",
    ),
    "tests/e2e/test_felt.py": Long(
        ("slow", "fills_up", "[precopy]", "full", "loses_a_pack", "disk_fails", "mebibyte", "spool_that_hangs"),
        "a scratch and a store that hang are the worst of them",
    ),
    "tests/e2e/test_migration.py": Long(
        ("[plain]", "plain-", "-failed]", "comes_to_nothing", "middle_of_a_draft"),
        "with the bitmaps, and arriving, it is harder; while a round reads, and while the point stands, are kept",
    ),
    "tests/e2e/test_audit.py": Long(("[jobs]",), "the same by jobs"),
    "tests/e2e/test_enemy.py": Long(("[jobs]",), "the same by jobs"),
    "tests/e2e/test_offline.py": Long(
        ("[check]", "put_back", "came_and_went", "guest_that_shut_down"),
        "tests/e2e/test_images.py puts back, and a clean end and a kill are kept",
    ),
    "tests/e2e/test_appliance.py": Long(
        ("host_that_is_killed", "without_the_host", "transports_are_compared", "daemon_has_its_rounds"),
        "rounds through two of them, lies and a kill are kept",
    ),
    "tests/e2e/test_guest_appliance.py": Long(ALL, "rounds through appliances that are no guests are kept"),
    "tests/e2e/test_iothread.py": Long(
        ("[qcow2]",), "with bitmaps; tests/e2e/test_proxmox.py has an iothread and those"
    ),
    "tests/e2e/test_guest_only.py": Long(
        (
            "logical_volume",
            "power_cut",
            "initramfs",
            "discards",
            "too_little_room",
            "beside_a_filter",
            "does_not_stand",
            "file_systems_are_frozen",
            "a_reboot",
            "an_agent_that_is_killed",
            "the_verbs_tell",
        ),
        "rounds and backups under constant writes, and a host that is gone, are kept",
    ),
    "tests/e2e/test_trim.py": Long(("[qga]",), "the same by the agent"),
    "tests/e2e/test_lvm.py": Long(
        ("[joined]", "cycles_of_writes"), "where a logical volume lies is kept; tests/agentd/test_segments.py"
    ),
    "tests/e2e/test_load.py": Long(("[slow-",), "the same fast"),
    "tests/guest/test_renewal.py": Long(
        (
            "while_a_read_was_interrupted",
            "older_protocol",
            "newer_host",
            "[short]",
            "[long]",
            "[disorder]",
            "[nothing]",
            "[def]",
            "[print",
            "any_moment",
            "without_waiting",
            "cannot_be_written",
            "same_number",
            "killed_in_the_middle",
            "newer_one_stays",
            "newer_protocol",
        ),
        "fault points of one way",
    ),
    "tests/guest/test_freezing.py": Long(("[admin]", "[both]", "[keeper]", "unguarded"), "fault points"),
    "tests/guest/test_mapping.py": Long(("[1]", "[2]", "[3]"), "other layouts"),
    "tests/e2e/test_start.py": Long(ALL, "its commands are parsed, and its errors brought about, by tests/cli"),
    "tests/guest/test_install.py": Long(
        ("through_qga", "through_ssh", "read_over_tcp", "lacks_modules"),
        "each boots a Debian with systemd; one with OpenRC is kept",
    ),
    "tests/tracking/test_tracker.py": Long(
        ("[qemu-overlays",), "the same over memory; rounds and backups are in tests/e2e/test_overlays.py"
    ),
    "tests/e2e/test_agent.py": Long(
        (
            "stopped_agent",
            "two_guests",
            "guest_that_is_reset",
            "in_an_iothread",
            "channel_of_another",
            "takes_little",
            "agent_that_vanishes",
        ),
        "cycles of rounds and an agent that is slow are kept; the others break it",
    ),
    "tests/e2e/test_daemon.py": Long(
        (
            "reset_and_a_qemu",
            "agent_that_vanishes",
            "other_commands",
            "clock_that_jumps",
            "policy_changed",
        ),
        "tests/host has the same in simulated days",
    ),
    "tests/e2e/test_boot.py": Long(
        (
            "[<domain/>",
            "moved_by",
            "is_kept_where",
            "interrupted",
            "is_away",
            "[9]",
        ),
        "booted, written to, moved and backed up again is kept",
    ),
    "tests/e2e/test_rehearsal.py": Long(("a_debian",), "guests that are up in seconds are rehearsed"),
    "tests/agentd/test_freezer.py": Long(
        (
            "longest_is_not",
            "again_and_again",
            "read_only_or_twice",
            "covered",
            "new_session",
            "cancelled",
            "another_boot",
            "kernel_does_not_end",
            "writing_back",
            "script_that",
            "while_a_script",
            "scripts_of_a_killed",
            "armed_and_agentd",
            "disarmed",
            "keeper_are_killed",
        ),
        "a freeze that ends, by itself and whoever dies, is kept",
    ),
    "tests/hypervisor/qemu/test_freeze.py": Long(
        ("in_time_whatever_hangs",), "the guard's orders are in tests/hypervisor/test_guard.py"
    ),
    "tests/test_kit.py": Long(("lives_on_through",), "tests/e2e resets and restarts guests all the time"),
    "tests/e2e/test_daemon_server.py": Long(
        ("rehearsed_and_booted", "while_the_server_is_away"),
        "tests/server/test_liaison.py, and orders in tests/server; a repository at the server is kept",
    ),
    "tests/e2e/test_at_a_server.py": Long(ALL, "tests/server kills and breaks servers; a repository at one is kept"),
    "tests/e2e/test_daemon_pair.py": Long(ALL, "tests/host has the same in simulated days"),
    "tests/e2e/test_daemon_load.py": Long(
        (
            "from_outside",
            "can_be_stopped",
            "during_load",
        ),
        "bursts and pauses by the agent's record, and a store that hangs, are kept",
    ),
    "tests/cli/test_doctor.py": Long(("several_broken",), "each of them alone is in tests/host/test_doctor.py"),
    "tests/e2e/test_life.py": Long(("reset_in_the_middle",), "other people's jobs and exports are kept"),
    "tests/e2e/test_ledger.py": Long(("[jobs]",), "the same with filters"),
    # without a VM
    "tests/agentd/test_sockets.py": Long(("then_does",), "it waits for a minute"),
    "tests/soak/test_simulated.py": Long(
        (
            *(f"breaks[{seed}]" for seed in range(5, 17)),
            "base-removed",
            "draft-kept",
            "stale-answer",
            "undurable",
            "sleeping-draft",
            "claims",
            "lost-copies",
            "bitmap-below",
            "audit-after",
        ),
        "four lives and two planted bugs are kept; make soak goes on with ten thousand cycles",
    ),
    "tests/backup/test_planted_bugs.py": Long(("[checkpoints-",), "the same with bitmaps"),
    "tests/backup/test_excluding.py": Long(
        ("is_made[checkpoints]", "is_made[iothread]", "is_made[untracked]"), "the same with plain bitmaps"
    ),
    "tests/simulation/test_replay.py": Long(("[seed 2", "[seed 3"), "other weeks of the same kind"),
    "tests/server/test_notices.py": Long(
        (
            "in_the_way_of_another",
            "keep_a_distance",
            "claim_of_a_process",
            "quiet_hours",
            "nobody_ever_takes",
            "restored_goes_on",
            "the_thread_looks",
            "not_told_so",
        ),
        "each message is a process of its own; what is told to whom, once, and to no network of ours is kept",
    ),
    "tests/server/test_jobs.py": Long(
        ("second_site_is_another", "copy_that_differs", "not_mounted", "too_many_loses", "one_of_a_lane"),
        "fault points of jobs",
    ),
    "tests/server/test_jobs_pair.py": Long(
        ("worker_that_is_ended", "many_jobs_are_each", "database_is_restarted"), "a worker that is killed is kept"
    ),
    "tests/server/test_stream.py": Long(
        ("many_hosts_at_once", "those_at_the_other_see"), "who sees what, and the end of a server, are kept"
    ),
    "tests/server/test_faults.py": Long(
        ("database_is_killed", "together[postgresql]", "in_good_order"), "a server killed under load is kept"
    ),
    "tests/server/test_catalogue.py": Long(("as_it_was[postgresql]",), "the same into SQLite"),
    "tests/server/test_approvals.py": Long(("on_two_processes",), "the same at one"),
    "tests/server/test_pages.py": Long(("two_processes_on_postgresql",), "the same at one"),
    "tests/repository/test_repair.py": Long(("without_help",), "the same damages with a copy to heal from are kept"),
    "tests/repository/test_thousand_damages.py": Long(
        ("named[2]", "named[3]", "named[1]"), "other damages of the same kind"
    ),
    "tests/backup/test_forecast.py": Long(("four_in_five",), "a figure of docs/planning-figures.md"),
    "tests/server/test_schema.py": Long(
        ("whatever_is_asked",),
        "every route is asked by tests/server/test_isolation.py, test_audit.py and test_tokens.py",
    ),
    "tests/soak/test_machine.py": Long(
        (
            *(f"[{seed}]" for seed in range(5, 21)),
            "enough_of_what_can_break",
            "[3]",
            "[4]",
        ),
        "make soak goes on with a hundred",
    ),
}


def is_long(nodeid: str) -> bool:
    file, _, rest = nodeid.partition("::")
    found = LONG.get(file)
    return found is not None and any(word in rest for word in found.words)
