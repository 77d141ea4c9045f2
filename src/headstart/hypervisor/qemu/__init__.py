"""The driver for plain QEMU, over a QMP monitor."""
