"""What the tests stand on: real QEMU machines, a guest built from distribution packages, disks, faults.

::

    vm           a running QEMU with the test guest: its life, its sockets, a monitor for the tests
    control      calls into the guest: run, write, read, hash, discard, mount, freeze
    workloads    what keeps writing in there: churn (rates, latencies) and the ledger
    disks        images made without loop mounts; compare: two of them, byte by byte
    ledger       proof that restored images are one point in time
    cli, crash   the command line as a process, killed at a named place
    guest        how the guest's image is built (packages: from what; inguest: the programs in it)
    qmp          the tests' own monitor client
"""
