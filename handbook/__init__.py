"""The site of the documentation, and those of its pages that the code writes: ``python -m handbook``."""
