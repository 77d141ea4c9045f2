"""Routes under /v1. Each module has one ``router``; what they do is in the modules above."""
