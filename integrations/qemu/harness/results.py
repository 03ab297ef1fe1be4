# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the runs came to, as numbers."""

import dataclasses
import statistics

from plan import MESSAGES, MESSAGES_HIDDEN, TIMES, TIMES_HIDDEN, TIMES_REMAPPED
from vm import Scenario

# Accesses to devices without any effect: what the guest's exits cost. Each run has one of these phases.
IDLE = ("ivshmem: as many writes that change nothing", "messages: the loop alone")


@dataclasses.dataclass(frozen=True)
class Row:
    """What is timed: these phases, together, of a scenario's runs."""

    words: str
    scenario: Scenario
    phases: list


ENABLE = Row("enable 2048 vectors", TIMES, ["ivshmem: enable"])
UNMASK = Row("unmask 2048 vectors", TIMES, ["ivshmem: unmask"])
BOTH = Row("enable and unmask", TIMES, ENABLE.phases + UNMASK.phases)
RETARGET = Row("200 live vectors retargeted", TIMES, ["ivshmem: 200 live vectors retargeted"])
ALL_2048 = Row("enable, write, unmask, 200 retargets", TIMES, BOTH.phases + ["ivshmem: messages written"] + RETARGET.phases)
CHANGES = Row("1000 affinity changes", TIMES, ["ivshmem: 1000 affinity changes"])
ARRIVALS = Row("2048 interrupts one by one", TIMES, ["ivshmem: one by one"])
BUSY = Row("3000 interrupts on one vector", TIMES, ["ivshmem: one vector, again and again"])
BOTH_HIDDEN = Row("enable and unmask, no KVM_SIGNAL_MSI", TIMES_HIDDEN, BOTH.phases)
CHANGES_HIDDEN = Row("1000 affinity changes, no KVM_SIGNAL_MSI", TIMES_HIDDEN, CHANGES.phases)
ARRIVALS_HIDDEN = Row("2048 one by one, no KVM_SIGNAL_MSI", TIMES_HIDDEN, ARRIVALS.phases)
REMAPPED = Row("1000 affinity changes, remapped", TIMES_REMAPPED, CHANGES.phases)
DIRECT = Row("5000 messages", MESSAGES, ["messages: 5000 in turn"])
HIDDEN = Row("5000 messages, no KVM_SIGNAL_MSI", MESSAGES_HIDDEN, DIRECT.phases)
AGAIN = Row("the same 5000 again", MESSAGES_HIDDEN, ["messages: 5000 in turn, again"])
TWICE = Row("both together", MESSAGES_HIDDEN, HIDDEN.phases + AGAIN.phases)
TIMED_ROWS = [ENABLE, UNMASK, BOTH, RETARGET, ALL_2048, CHANGES, ARRIVALS, BUSY, REMAPPED,
              BOTH_HIDDEN, CHANGES_HIDDEN, ARRIVALS_HIDDEN, DIRECT, HIDDEN, AGAIN, TWICE]


class Results:
    def __init__(self):
        self.runs = []  # (scenario, binary, phases, skipped, error)
        self.refusals = {}  # of QEMU as it is: scenario: words

    def refused(self, scenario):
        return scenario in self.refusals

    def add(self, scenario, binary, phases, skipped, error):
        self.runs.append((scenario, binary, phases, skipped, error))

    def of(self, scenario, binary):
        return [phases for s, b, phases, _, error in self.runs if (s, b) == (scenario, binary) and not error]

    def has(self, scenario, binary):
        return any((s, b) == (scenario, binary) for s, b, *_ in self.runs)

    def errors(self):
        return [(s, b, error) for s, b, _, _, error in self.runs if error]

    def skips(self):
        return [(s, b, name) for s, b, _, skipped, _ in self.runs for name in skipped]

    def total(self, scenario, binary, count):
        """Of all phases of all runs, or None where none was."""
        runs = self.of(scenario, binary)
        return sum(count(phase) for phases in runs for phase in phases) if runs else None

    def median(self, row, binary, measure):
        """Over the runs, of what the row's phases sum up to; or None."""
        sums = [sum(measure(phase) for phase in phases if phase.name in row.phases) for phases in self.of(row.scenario, binary)]
        return statistics.median(sums) if sums else None

    def seconds(self, row, binary):
        return self.median(row, binary, lambda phase: phase.seconds)

    def idle_access(self, scenario):
        """Seconds of an access without effect, which are the same under both binaries: the median of all runs."""
        idle = [phase for s, _, phases, _, _ in self.runs if s == scenario for phase in phases if phase.name in IDLE]
        return statistics.median(phase.seconds / phase.accesses for phase in idle)

    def share(self, row, binary):
        """Seconds less what the guest's accesses cost without effect: the part of the VMM and the kernel."""
        seconds = self.seconds(row, binary)
        if seconds is None:
            return None
        accesses = self.median(row, binary, lambda phase: phase.accesses)
        return max(0.0, seconds - accesses * self.idle_access(row.scenario))
