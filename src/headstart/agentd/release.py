"""What this agentd is.

So that any host can renew any agent, these never change, in no release and no protocol: the layout of frames; the kinds
HELLO, WELCOME, ASK, FILE, NOTE, ANSWER and REFUSAL; the keys ``protocols``, ``release`` and ``sources`` of a WELCOME;
the asks ``renew`` and ``install`` (see ``renewal``); and what ``--check`` prints.
"""

#: Grows with every change of this folder that an installed agentd should get.
RELEASE = 1
#: Digest of the other modules at this release; a test tells what it has to be.
SOURCES = "76d22c37cb0198fc06888f3eb8047de6"
#: The oldest and the newest protocol that are spoken.
PROTOCOLS = (1, 1)
