# SPDX-License-Identifier: MIT OR Apache-2.0
"""Guest memory, and the mailbox in it: guest/mailbox.h."""

import mmap
import struct

MEMORY_SIZE = 64 << 20
MAILBOX = 0x400000
NR_CPUS, MAX_VECTORS = 2, 2048
TICK, SPURIOUS = 0x30, 0xFF

BEGIN, END, LOCKSTEP, SEND, STORM, CALM, SKIP, DONE = range(1, 9)

_COUNTS = MAILBOX
_TARGETS = _COUNTS + NR_CPUS * 256 * 4
_WORDS = _TARGETS + MAX_VECTORS * 2  # boots, asked, answered, request
_TSC = _WORDS + 16
_ARGUMENT = _TSC + 8
_ANSWER = _ARGUMENT + 6 * 8
_NAME = _ANSWER + 3 * 8
_ASKED, _ANSWERED, _REQUEST = 1, 2, 3


class Mailbox:
    def __init__(self, path):
        with open(path, "w+b") as file:
            file.truncate(MEMORY_SIZE)
            self._map = mmap.mmap(file.fileno(), MEMORY_SIZE)
        view = memoryview(self._map)
        self._counts = view[_COUNTS:_TARGETS].cast("I")
        self._targets = view[_TARGETS:_WORDS].cast("H")
        self._words = view[_WORDS:_TSC].cast("I")
        view.release()

    def asked(self):
        """The request that waits for an answer, or None."""
        words = self._words
        return words[_REQUEST] if words[_ASKED] != words[_ANSWERED] else None

    def answer(self, *values):
        struct.pack_into("<3Q", self._map, _ANSWER, *values, *[0] * (3 - len(values)))
        self._words[_ANSWERED] = self._words[_ASKED]

    def arguments(self):
        return struct.unpack_from("<6Q", self._map, _ARGUMENT)

    def tsc(self):
        return struct.unpack_from("<Q", self._map, _TSC)[0]

    def name(self):
        return bytes(self._map[_NAME : _NAME + 64]).split(b"\0")[0].decode()

    def arrived_at_target(self, vector):
        """Interrupts at the CPU and with the x86 vector that ivshmem's vector has."""
        return self._counts[self._targets[vector]]

    def arrived_anywhere(self, vector):
        x86_vector = self._targets[vector] & 0xFF
        return self._counts[x86_vector] + self._counts[256 + x86_vector]

    def arrived_all(self):
        return sum(sum(self._counts[256 * cpu + TICK + 1 : 256 * cpu + SPURIOUS]) for cpu in range(NR_CPUS))

    def close(self):
        for view in (self._counts, self._targets, self._words):
            view.release()
        self._map.close()
