"""What the tests stand on: real QEMU machines, a guest built from distribution packages, disks, faults."""
