"""What this agentd is."""

#: Grows with every change of this folder that an installed agentd should get.
RELEASE = 1
#: The oldest and the newest protocol that are spoken.
PROTOCOLS = (1, 1)
