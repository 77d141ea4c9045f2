"""Volumes, file systems and files in a snapshot."""
