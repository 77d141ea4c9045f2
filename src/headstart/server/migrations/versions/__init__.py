"""Named by their number and what they bring."""
