"""Keys by which a host and an appliance know each other: each shows a certificate, and takes the other's alone.

::

    DIR/appliance/appliance.pem   its key and certificate       onto the appliance
                  hosts.pem       the host's certificate
    DIR/host/     host.pem        its key and certificate       onto the hosts
                  appliance.pem   the appliance's certificate
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from headstart import errors
from headstart.appliance import relay_process
from headstart.guest import keys

APPLIANCE, HOST = relay_process.APPLIANCE, relay_process.HOST
_OWN = {APPLIANCE: "appliance.pem", HOST: "host.pem"}
_PEERS = {APPLIANCE: "hosts.pem", HOST: "appliance.pem"}
_MADE_BY = "'headstart appliance keys DIR' makes them."


def make(folder: Path) -> None:
    """Into a folder that has none. Raises ``TargetRefused``."""
    try:
        for side in (APPLIANCE, HOST):
            if os.path.lexists(folder / side):
                raise errors.TargetRefused(
                    f"{folder} holds {side} already: keys are not overwritten. Name another folder.", target=str(folder)
                )
        pairs = {side: keys.pair(f"headstart {side}") for side in (APPLIANCE, HOST)}
        for side, other in ((APPLIANCE, HOST), (HOST, APPLIANCE)):
            (folder / side).mkdir(mode=0o700, parents=True)
            keys.write(folder / side / _OWN[side], b"".join(pairs[side]))
            keys.write(folder / side / _PEERS[side], pairs[other][1])
    except OSError as error:
        raise errors.TargetRefused(
            f"Keys cannot be written to {folder}: {error.strerror}. Name another folder.", target=str(folder)
        ) from error


def files(folder: Path, side: str) -> tuple[Path, Path]:
    """Its key and certificate, and the other's certificate."""
    return folder / _OWN[side], folder / _PEERS[side]


def context(folder: Path, side: str) -> ssl.SSLContext:
    """For ``APPLIANCE`` or ``HOST``: the other's one certificate is the only authority. Raises ``Usage``."""
    try:
        return relay_process.context(*files(folder, side), serves=side == APPLIANCE)
    except (OSError, ValueError) as error:
        raise errors.Usage(f"The keys in {folder} cannot be read: {error}. {_MADE_BY}") from error
