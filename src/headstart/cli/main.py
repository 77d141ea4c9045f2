"""The entry. The program takes tenths of a second to load, and may be interrupted in them."""

from __future__ import annotations

import sys

from headstart.cli import flags, signals, streams


def main() -> int:
    streams.open_closed()
    given = sys.argv[1:]
    with signals.as_exits(flags.has(given, "--json")):
        # Not at the top: this is what takes the time.
        from headstart.cli import program

        return program.run(given)


if __name__ == "__main__":
    sys.exit(main())
