"""Restoring: from snapshots to images and devices."""
