"""The host's end of agentd: talking to it, and knowing which of the guest's devices is which disk."""
