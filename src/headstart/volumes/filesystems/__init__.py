"""Drivers of file systems. They run in the parser process."""
