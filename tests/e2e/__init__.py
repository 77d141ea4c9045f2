"""The whole chain against real QEMU guests that go on writing: back up, restore, compare every byte."""
