"""The web interface: pages rendered here, with the same functions as the API's. ``routes`` has the one ``router``."""
