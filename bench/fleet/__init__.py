"""A fleet without VMs against real servers: ``python -m bench.fleet``, docs/fleet.md."""
