"""The server of a fleet: API, tenants, catalogue, jobs, web pages. ``docs/server.md`` tells what it is for."""
