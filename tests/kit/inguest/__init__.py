"""Programs that run inside the test guest. Standard library only: they are copied into its initramfs."""
