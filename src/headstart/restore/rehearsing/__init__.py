"""A snapshot is started apart from everything, and proves that it lives."""
