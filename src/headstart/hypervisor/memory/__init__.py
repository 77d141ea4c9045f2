"""A hypervisor without a hypervisor, with QEMU's semantics: for simulations and for tests of what stands above.

``vm`` is the machine itself, its disks, its guest and its owner; ``machine`` is a connection to it.
"""

from headstart.hypervisor.memory.machine import MemoryMachine
from headstart.hypervisor.memory.offline import MemoryImages
from headstart.hypervisor.memory.process import Write
from headstart.hypervisor.memory.vm import MemoryVm

__all__ = ["MemoryImages", "MemoryMachine", "MemoryVm", "Write"]
