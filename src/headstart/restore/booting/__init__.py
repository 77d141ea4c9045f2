"""A VM from a backup, at once; and from there to real storage."""
