# SPDX-License-Identifier: MIT OR Apache-2.0
"""Which scenarios are run, and how often; the binaries take turns."""

from vm import IOMMU, PC, SPLIT, Scenario

SIZES = (64, 256, 1024, 2048)
WORKS = [Scenario(machine, vectors) for machine in (PC, SPLIT, IOMMU) for vectors in SIZES]
WORKS.append(Scenario(PC, 256, hide_signal_msi=True))

TIMES = Scenario(PC, 2048, "times")
TIMES_REMAPPED = Scenario(IOMMU, 2048, "times")
TIMES_HIDDEN = Scenario(PC, 2048, "times", hide_signal_msi=True)
MESSAGES = Scenario(PC, 1, "messages")
MESSAGES_HIDDEN = Scenario(PC, 1, "messages", hide_signal_msi=True)
TIMED = [TIMES, TIMES_HIDDEN, TIMES_REMAPPED, MESSAGES, MESSAGES_HIDDEN]


def runs(binaries, rounds, only):
    """(scenario, binary), in the order in which they are run."""
    for scenario in WORKS:
        if only in scenario.name:
            yield from ((scenario, binary) for binary in binaries)
    for round_ in range(rounds):
        for scenario in TIMED:
            if only in scenario.name:
                turn = binaries if round_ % 2 == 0 else binaries[::-1]
                yield from ((scenario, binary) for binary in turn)
