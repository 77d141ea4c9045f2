"""Everything that can break, breaks, for as long as one likes: ``make soak``."""
