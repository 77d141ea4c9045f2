"""What lies on disks: partitions, volumes of LVM, file systems; parsed in a process of its own."""
