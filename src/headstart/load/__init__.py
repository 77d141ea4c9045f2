"""How busy guest and host are, and what follows from it: whether to copy ahead, and how fast."""
