# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tables, binary beside binary, and the aims."""

from plan import TIMED, WORKS
from results import ALL_2048, BOTH, TIMED_ROWS, TWICE

AIMS = {"table writes": 50, "enable and unmask": 10, "messages": 8}


def table_writes(phase):
    return phase.calls["table_writes"]


def table_seconds(phase):
    return phase.calls["table_ns"] / 1e9


def irqfd_calls(phase):
    return phase.calls["binds"] + phase.calls["unbinds"]


def ratio(first, second):
    return first / second if first and second else None


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
            rows.append([row.words, *map(milliseconds, seconds), times(ratio(*seconds)),
                         *map(milliseconds, shares), times(ratio(*shares))])
    print_table(["time (ms, median)", *binaries, "ratio", *(f"{binary}, QEMU's part" for binary in binaries), "ratio"], rows)


def print_calls(results, binaries):
    rows = []
    for row in TIMED_ROWS:
        writes = [results.median(row, binary, table_writes) for binary in binaries]
        seconds = [results.median(row, binary, table_seconds) for binary in binaries]
        irqfds = [results.median(row, binary, irqfd_calls) for binary in binaries]
        if any(count is not None for count in writes):
            rows.append([row.words, *map(number, writes), *map(milliseconds, seconds), *map(number, irqfds)])
    print_table(["calls (median)", *(f"KVM_SET_GSI_ROUTING, {binary}" for binary in binaries),
                 *(f"ms in it, {binary}" for binary in binaries), *(f"KVM_IRQFD, {binary}" for binary in binaries)], rows)


def aim(words, least, measured, note=""):
    """Whether it is met; what could not be measured is not missed."""
    if measured is None:
        print(f"- aim: {words}: at least {least} times; not measured")
        return True
    digits = f"{measured:.3g}" if measured < 100 else f"{measured:.0f}"
    print(f"- aim: {words}: at least {least} times; measured {digits}{note}: {'met' if measured >= least else 'missed'}")
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

    sent, wrong = total(lambda phase: phase.sent), total(lambda phase: phase.wrong)
    print(f"- aim: 0 of {sent} interrupts lost, doubled or astray; measured {wrong}: {'met' if sent and not wrong else 'missed'}")
    met = [
        sent and not wrong,
        aim("fewer table writes for 2048 vectors", AIMS["table writes"], fewer_writes(results, binaries)),
        aim_of_speed("enable and unmask of 2048 vectors", BOTH, AIMS["enable and unmask"]),
        aim_of_speed("5000 messages in turn, twice, without KVM_SIGNAL_MSI", TWICE, AIMS["messages"]),
    ]
    for scenario, words in results.refusals.items():
        print(f"- does not start, and was left out: {scenario.name}: {words}")
    for scenario, binary, error in results.errors():
        print(f"- failed: {scenario.name}, {binary}: {error}")
    for scenario, binary, name in results.skips():
        print(f"- skipped: {scenario.name}, {binary}: {name}")
    return all(met) and not results.errors() and not results.skips()
