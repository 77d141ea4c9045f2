"""Machines that read, hash, compress, seal and store what hypervisors offer them. See docs/appliance.md."""
