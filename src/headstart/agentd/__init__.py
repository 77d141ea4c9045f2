"""agentd, the program in the guest: it is told addresses, reads those blocks and sends them.

Ships as one file (``headstart agent build``). Everything in this folder runs on Python 3.6 with nothing
but its standard library, and imports nothing from outside the folder. The host side imports ``frames``,
``messages`` and ``segments``, so that both ends speak from one text.
"""
