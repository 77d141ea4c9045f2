"""Policies of copying ahead, tried on a recorded trace of writes in virtual time."""
