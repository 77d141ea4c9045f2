"""Programs that run inside the test guest. Standard library only: they are copied into its initramfs."""

#: A word of the kernel's command line: disks come later, see ``tests/kit/booted.py``.
WITHOUT_DISKS = "headstart.disks=later"
