"""The guest from inside: agentd, as far as there is one that answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from headstart import errors
from headstart.guest.agent import Agent


class Inside:
    """Connects when it is needed, once in a run; an agent that was lost stays lost for this run. A context manager."""

    def __init__(self, address: str, connect: Callable[[str], Agent]) -> None:
        """``address`` empty: the VM has no agent."""
        self._address = address
        self._connect = connect
        self._agent: Agent | None = None
        self._failure: errors.HeadstartError | None = None

    @property
    def connected(self) -> Agent | None:
        """The agent, if one answers already."""
        return self._agent

    @property
    def expected(self) -> bool:
        """The VM was added with an agent."""
        return bool(self._address)

    def agent(self) -> Agent:
        """Raises ``Unreachable``, ``Unsupported`` or ``Usage``, with the reason why there is none."""
        if not self._address:
            raise errors.Unreachable("this VM was added without an agent (vm add --agent)")
        if self._failure is not None:
            raise self._failure
        if self._agent is None:
            try:
                self._agent = self._connect(self._address)
            except errors.HeadstartError as error:
                self._failure = error
                raise
        return self._agent

    def lost(self, failure: errors.Unreachable) -> None:
        """It does not answer any longer: nobody asks it again in this run."""
        self._failure = failure
        self.close()

    def close(self) -> None:
        agent, self._agent = self._agent, None
        if agent is not None:
            with contextlib.suppress(OSError):
                agent.close()
