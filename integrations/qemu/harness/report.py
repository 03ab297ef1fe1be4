# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the runs come to: tables, binary beside binary, and the aims."""

import statistics

from plan import MESSAGES, MESSAGES_HIDDEN, TIMES, TIMES_REMAPPED, WORKS

AIMS = {"table writes": 50, "enable and unmask": 10, "messages": 8}
UNMOVED = "ivshmem: as many writes that change nothing"
LOOP = "messages: the loop alone"

# What is timed: words, scenario, phases, and the same accesses without effect (phase, how many of them a step).
ENABLE = ("enable 2048 vectors", TIMES, ["ivshmem: enable"], None)
UNMASK = ("unmask 2048 vectors", TIMES, ["ivshmem: unmask"], (UNMOVED, 1))
BOTH = ("enable and unmask", TIMES, ["ivshmem: enable", "ivshmem: unmask"], (UNMOVED, 0.5))
RETARGET = ("200 live vectors retargeted", TIMES, ["ivshmem: 200 live vectors retargeted"], (UNMOVED, 6))
CHANGES = ("1000 affinity changes", TIMES, ["ivshmem: 1000 affinity changes"], (UNMOVED, 6))
ALL_2048 = ("enable, write, unmask, 200 retargets", TIMES,
            ["ivshmem: enable", "ivshmem: messages written", "ivshmem: unmask", "ivshmem: 200 live vectors retargeted"],
            None)
REMAPPED = ("1000 affinity changes, remapped", TIMES_REMAPPED, ["ivshmem: 1000 affinity changes"], None)
DIRECT = ("5000 messages, KVM_SIGNAL_MSI", MESSAGES, ["messages: 5000 in turn"], (LOOP, 1))
HIDDEN = ("5000 messages, no KVM_SIGNAL_MSI", MESSAGES_HIDDEN, ["messages: 5000 in turn"], (LOOP, 1))
AGAIN = ("the same 5000 again", MESSAGES_HIDDEN, ["messages: 5000 in turn, again"], (LOOP, 1))
TIMED_ROWS = [ENABLE, UNMASK, BOTH, RETARGET, CHANGES, ALL_2048, REMAPPED, DIRECT, HIDDEN, AGAIN]


class Results:
    def __init__(self):
        self.runs = []  # (scenario, binary, phases, skipped, error)

    def add(self, scenario, binary, phases, skipped, error):
        self.runs.append((scenario, binary, phases, skipped, error))

    def of(self, scenario, binary):
        return [phases for s, b, phases, _, error in self.runs if (s, b) == (scenario, binary) and not error]

    def errors(self):
        return [(s, b, error) for s, b, _, _, error in self.runs if error]

    def total(self, scenario, binary, count):
        """Of all phases of all runs, or None where none was."""
        runs = self.of(scenario, binary)
        return sum(count(phase) for phases in runs for phase in phases) if runs else None

    def median(self, row, binary, measure):
        """The median, over the runs, of what the row's phases sum up to."""
        _, scenario, names, _ = row
        sums = [sum(measure(phase) for phase in phases if phase.name in names) for phases in self.of(scenario, binary)]
        return statistics.median(sums) if sums else None

    def seconds(self, row, binary):
        return self.median(row, binary, lambda phase: phase.seconds)

    def share(self, row, binary):
        """Seconds less those of the same accesses without effect: the VMM's and the kernel's part."""
        _, scenario, names, base = row
        if base is None:
            return self.seconds(row, binary)
        phase_name, accesses = base
        shares = []
        for phases in self.of(scenario, binary):
            by_name = {phase.name: phase for phase in phases}
            idle = by_name[phase_name]
            timed = [by_name[name] for name in names]
            steps = sum(phase.steps for phase in timed)
            shares.append(sum(phase.seconds for phase in timed) - accesses * steps * idle.seconds / idle.steps)
        return statistics.median(shares) if shares else None


def table_writes(phase):
    return phase.calls["table_writes"]


def irqfd_calls(phase):
    return phase.calls["binds"] + phase.calls["unbinds"]


def ratio(first, second):
    return first / second if first is not None and second else None


def times(value):
    return "-" if value is None else f"{value:.3g}x"


def number(value):
    return "-" if value is None else f"{value:.0f}"


def milliseconds(value):
    return "-" if value is None else f"{1e3 * value:.1f}"


def print_table(head, rows):
    rows = [head] + rows
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print(f"| {' | '.join(cells)} |")
    print()


def print_works(results, binaries):
    """Did every interrupt arrive?"""
    head = ["machine", "QEMU", "sent", "received", "lost", "doubled", "KVM_SET_GSI_ROUTING", "KVM_IRQFD"]
    rows = []
    for scenario in WORKS + [TIMES, TIMES_REMAPPED, MESSAGES, MESSAGES_HIDDEN]:
        for binary in binaries:
            if not any((s, b) == (scenario, binary) for s, b, *_ in results.runs):
                continue
            counts = (lambda p: p.sent, lambda p: p.received, lambda p: p.lost, lambda p: p.doubled, table_writes, irqfd_calls)
            rows.append([scenario.name, binary, *(number(results.total(scenario, binary, count)) for count in counts)])
    print_table(head, rows)


def print_times(results, binaries):
    head = ["median of a run", *(f"ms {b}" for b in binaries), "times", *(f"its part, {b}" for b in binaries), "times",
            *(f"table writes {b}" for b in binaries), *(f"irqfd {b}" for b in binaries)]
    rows = []
    for row in TIMED_ROWS:
        seconds = [results.seconds(row, binary) for binary in binaries]
        shares = [results.share(row, binary) for binary in binaries]
        if not any(seconds):
            continue
        rows.append([row[0], *map(milliseconds, seconds), times(ratio(*seconds)), *map(milliseconds, shares), times(ratio(*shares)),
                     *(number(results.median(row, binary, table_writes)) for binary in binaries),
                     *(number(results.median(row, binary, irqfd_calls)) for binary in binaries)])
    if rows:
        print_table(head, rows)


def judge(words, measured, at_least, note=""):
    if measured is None:
        print(f"aim: {words}: at least {at_least} times; not measured")
        return True
    met = measured >= at_least
    print(f"aim: {words}: at least {at_least} times; measured {measured:.3g}{note}; {'met' if met else 'missed'}")
    return met


def print_aims(results, binaries):
    """Whether all were met."""
    def sum_of(count):
        return sum(count(phase) for _, _, phases, _, _ in results.runs for phase in phases)

    wrong = sum_of(lambda phase: phase.lost + phase.doubled + abs(phase.unaccounted))
    print(f"aim: 0 lost, 0 doubled; measured {sum_of(lambda p: p.lost)}, {sum_of(lambda p: p.doubled)} of "
          f"{sum_of(lambda p: p.sent)}; {'missed' if wrong else 'met'}")
    writes = ratio(*(results.median(ALL_2048, binary, table_writes) for binary in binaries))
    if writes is None and results.of(TIMES, binaries[1]):
        writes = float("inf")
    met = [
        not wrong,
        judge("fewer table writes for 2048 vectors", writes, AIMS["table writes"]),
        *(judge(f"faster, {words}", ratio(*(results.share(row, binary) for binary in binaries)), AIMS[aim],
                f" (with the guest's own accesses: {times(ratio(*(results.seconds(row, b) for b in binaries)))})")
          for words, row, aim in (("enable and unmask of 2048 vectors", BOTH, "enable and unmask"),
                                  ("5000 messages without KVM_SIGNAL_MSI", HIDDEN, "messages"))),
    ]
    for scenario, binary, error in results.errors():
        print(f"failed: {scenario.name}, {binary}: {error}")
    return all(met) and not results.errors()
