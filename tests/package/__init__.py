"""What is published: wheel, manual pages, completion, Debian packages."""
