"""VMs, or machines, of which there is only the guest: its agent is all that Headstart has of them."""
