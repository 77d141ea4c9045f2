"""The command line: one module per verb. docs/cli.md is its contract."""
