"""The daemon of one hypervisor: its policies, when it works, and what it does."""
