"""``headstart doctor``: what stands in the way of backups, and what to change. Everything here only looks."""
