# SPDX-License-Identifier: MIT OR Apache-2.0
"""What QEMU asks of KVM, as count-ioctls.c counts it."""

import mmap
import struct

FIELDS = ("table_writes", "table_ns", "binds", "unbinds", "irqfd_ns", "signals", "lines")


class Calls:
    def __init__(self, path):
        with open(path, "w+b") as file:
            file.truncate(mmap.PAGESIZE)
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def sample(self):
        return dict(zip(FIELDS, struct.unpack_from(f"={len(FIELDS)}Q", self._map)))

    def close(self):
        self._map.close()


def difference(after, before):
    return {field: after[field] - before[field] for field in FIELDS}
