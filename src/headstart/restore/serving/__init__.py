"""Any bytes of a stored disk, at any time, and over NBD."""
