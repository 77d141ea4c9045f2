"""Backups of running virtual machines with almost no backup window."""

__version__ = "0.1.0"
