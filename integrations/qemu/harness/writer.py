# SPDX-License-Identifier: MIT OR Apache-2.0
"""Writes ivshmem's eventfds as the guest asks, and counts what became of each write."""

import time

PATIENCE = 2.0  # seconds until an interrupt counts as lost


class Writer:
    def __init__(self, mailbox, server):
        self._mailbox = mailbox
        self._signal = server.signal
        self._storm = {}  # vector: interrupts that are to have arrived
        self._storm_sent = self._storm_doubled = 0
        self.sent = 0

    def send(self, first, count):
        for vector in range(first, first + count):
            self._signal(vector)
        self.sent += count

    def lockstep(self, first, count, times):
        """Each when the one before has arrived, where it should and nowhere else: sent, lost, doubled."""
        arrived, everything = self._mailbox.arrived_at_target, self._mailbox.arrived_all
        before_all, lost = everything(), 0
        for vector in list(range(first, first + count)) * times:
            before = arrived(vector)
            self._signal(vector)
            self.sent += 1
            deadline = time.monotonic() + PATIENCE
            while arrived(vector) == before:
                if time.monotonic() > deadline:
                    lost += 1
                    break
        time.sleep(0.005)
        return count * times, lost, max(0, everything() - before_all - (count * times - lost))

    def storm_begins(self, first, count):
        arrived = self._mailbox.arrived_anywhere
        self._storm = {vector: arrived(vector) for vector in range(first, first + count)}
        self._storm_sent = self._storm_doubled = 0

    def storm_goes_on(self):
        """Signals whose last interrupt has arrived are given again; whether there is a storm."""
        for vector, count in self._storm.items():
            arrived = self._mailbox.arrived_anywhere(vector)
            if arrived >= count:
                self._storm_doubled += arrived - count
                self._storm[vector] = arrived + 1
                self._signal(vector)
                self._storm_sent += 1
                self.sent += 1
        return bool(self._storm)

    def storm_ends(self):
        """All that was sent has time to arrive: sent, lost, doubled."""
        arrived, storm = self._mailbox.arrived_anywhere, self._storm
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and any(arrived(v) < count for v, count in storm.items()):
            time.sleep(0.001)
        time.sleep(0.005)
        missing = [count - arrived(v) for v, count in storm.items()]
        self._storm = {}
        return (self._storm_sent, sum(n for n in missing if n > 0),
                self._storm_doubled - sum(n for n in missing if n < 0))
