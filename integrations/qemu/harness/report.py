# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the runs come to: tables, binary beside binary, and the aims."""

import statistics

from plan import MESSAGES, MESSAGES_HIDDEN, TIMED, TIMES, TIMES_REMAPPED, WORKS

AIMS = {"table writes": 50, "enable and unmask": 10, "messages": 8}

# Accesses to devices without any effect: what the guest's exits cost. Each run has one of these phases.
IDLE = ("ivshmem: as many writes that change nothing", "messages: the loop alone")

# What is timed: words, scenario, phases.
ENABLE = ("enable 2048 vectors", TIMES, ["ivshmem: enable"])
UNMASK = ("unmask 2048 vectors", TIMES, ["ivshmem: unmask"])
BOTH = ("enable and unmask", TIMES, ENABLE[2] + UNMASK[2])
RETARGET = ("200 live vectors retargeted", TIMES, ["ivshmem: 200 live vectors retargeted"])
ALL_2048 = ("enable, write, unmask, 200 retargets", TIMES, BOTH[2] + ["ivshmem: messages written"] + RETARGET[2])
CHANGES = ("1000 affinity changes", TIMES, ["ivshmem: 1000 affinity changes"])
ARRIVALS = ("2048 interrupts one by one", TIMES, ["ivshmem: one by one"])
BUSY = ("3000 interrupts on one vector", TIMES, ["ivshmem: one vector, again and again"])
REMAPPED = ("1000 affinity changes, remapped", TIMES_REMAPPED, CHANGES[2])
DIRECT = ("5000 messages", MESSAGES, ["messages: 5000 in turn"])
HIDDEN = ("5000 messages, no KVM_SIGNAL_MSI", MESSAGES_HIDDEN, DIRECT[2])
AGAIN = ("the same 5000 again", MESSAGES_HIDDEN, ["messages: 5000 in turn, again"])
TWICE = ("both together", MESSAGES_HIDDEN, HIDDEN[2] + AGAIN[2])
TIMED_ROWS = [ENABLE, UNMASK, BOTH, RETARGET, ALL_2048, CHANGES, ARRIVALS, BUSY, REMAPPED, DIRECT, HIDDEN, AGAIN, TWICE]


class Results:
    def __init__(self):
        self.runs = []  # (scenario, binary, phases, skipped, error)
        self.refusals = []  # (scenario, binary, words)

    def refused(self, scenario, binary):
        return any((s, b) == (scenario, binary) for s, b, _ in self.refusals)

    def add(self, scenario, binary, phases, skipped, error):
        self.runs.append((scenario, binary, phases, skipped, error))

    def of(self, scenario, binary):
        return [phases for s, b, phases, _, error in self.runs if (s, b) == (scenario, binary) and not error]

    def has(self, scenario, binary):
        return any((s, b) == (scenario, binary) for s, b, *_ in self.runs)

    def errors(self):
        return [(s, b, error) for s, b, _, _, error in self.runs if error]

    def total(self, scenario, binary, count):
        """Of all phases of all runs, or None where none was."""
        runs = self.of(scenario, binary)
        return sum(count(phase) for phases in runs for phase in phases) if runs else None

    def median(self, row, binary, measure):
        """Over the runs, of what the row's phases sum up to; or None."""
        _, scenario, names = row
        sums = [sum(measure(phase) for phase in phases if phase.name in names) for phases in self.of(scenario, binary)]
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
        return max(0.0, seconds - accesses * self.idle_access(row[1]))


def table_writes(phase):
    return phase.calls["table_writes"]


def irqfd_calls(phase):
    return phase.calls["binds"] + phase.calls["unbinds"]


def ratio(first, second):
    return first / second if first is not None and second else None


def times(value):
    return "-" if value is None else f"{value:.3g}x" if value < 100 else ">100x"


def number(value):
    return "-" if value is None else f"{value:.0f}"


def milliseconds(value):
    return "-" if value is None else f"{1e3 * value:.1f}"


def print_table(head, rows):
    if not rows:
        return
    widths = [max(len(row[column]) for row in [head] + rows) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for row in [head, rule] + rows:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print(f"| {' | '.join(cells)} |")
    print()


def print_works(results, binaries):
    """Did every interrupt arrive?"""
    counts = (lambda p: p.sent, lambda p: p.received, lambda p: p.lost, lambda p: p.doubled, lambda p: p.astray,
              table_writes, irqfd_calls)
    rows = [[scenario.name, binary, *(number(results.total(scenario, binary, count)) for count in counts)]
            for scenario in (*WORKS, *TIMED) for binary in binaries if results.has(scenario, binary)]
    print_table(["machine", "QEMU", "sent", "received", "lost", "doubled", "astray", "KVM_SET_GSI_ROUTING", "KVM_IRQFD"], rows)


def print_times(results, binaries):
    rows = []
    for row in TIMED_ROWS:
        seconds = [results.seconds(row, binary) for binary in binaries]
        shares = [results.share(row, binary) for binary in binaries]
        if any(seconds):
            rows.append([row[0], *map(milliseconds, seconds), times(ratio(*seconds)),
                         *map(milliseconds, shares), times(ratio(*shares))])
    print_table(["time (ms, median)", *binaries, "ratio", *(f"{binary}, QEMU's part" for binary in binaries), "ratio"], rows)


def print_calls(results, binaries):
    rows = []
    for row in TIMED_ROWS:
        writes = [results.median(row, binary, table_writes) for binary in binaries]
        irqfds = [results.median(row, binary, irqfd_calls) for binary in binaries]
        if any(count is not None for count in writes):
            rows.append([row[0], *map(number, writes), *map(number, irqfds)])
    print_table(["calls (median)", *(f"KVM_SET_GSI_ROUTING, {binary}" for binary in binaries),
                 *(f"KVM_IRQFD, {binary}" for binary in binaries)], rows)


def aim(words, least, measured, note=""):
    """Whether it is met; what could not be measured is not missed."""
    if measured is None:
        print(f"aim: {words}: at least {least} times; not measured")
        return True
    print(f"aim: {words}: at least {least} times; measured {measured:.3g}{note}: {'met' if measured >= least else 'missed'}")
    return measured >= least


def fewer_writes(results, binaries):
    stock, ours = (results.median(ALL_2048, binary, table_writes) for binary in binaries)
    return None if stock is None or ours is None else stock / max(ours, 1)


def print_aims(results, binaries):
    """Whether all were met."""
    def aim_of_speed(words, row, least):
        shares, seconds = ([measure(row, binary) for binary in binaries] for measure in (results.share, results.seconds))
        return aim(f"{words}, QEMU's part faster", least, ratio(*shares),
                   f" ({times(ratio(*seconds))} with the guest's own accesses)")

    def total(count):
        return sum(count(phase) for _, _, phases, _, _ in results.runs for phase in phases)

    wrong = total(lambda phase: phase.wrong)
    print(f"aim: 0 of {total(lambda phase: phase.sent)} interrupts lost, doubled or astray; measured {wrong}: "
          f"{'missed' if wrong else 'met'}")
    met = [
        not wrong,
        aim("fewer table writes for 2048 vectors", AIMS["table writes"], fewer_writes(results, binaries)),
        aim_of_speed("enable and unmask of 2048 vectors", BOTH, AIMS["enable and unmask"]),
        aim_of_speed("5000 messages in turn, twice, without KVM_SIGNAL_MSI", TWICE, AIMS["messages"]),
    ]
    for scenario, binary, words in results.refusals:
        print(f"does not start: {scenario.name}, {binary}: {words}")
    for scenario, binary, error in results.errors():
        print(f"failed: {scenario.name}, {binary}: {error}")
    return all(met) and not results.errors()
