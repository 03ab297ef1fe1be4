# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs the guest under two QEMU binaries in turns, and tells what it saw."""

import argparse
import dataclasses
import json
import resource
import shlex
import signal
import sys

import plan
import report
from results import Results
from vm import Failed, Refused, Run


def arguments():
    parser = argparse.ArgumentParser(prog="harness")
    parser.add_argument("--stock", required=True, help="QEMU as it is (a command line)")
    parser.add_argument("--msiroute", required=True, help="QEMU with libmsiroute (a command line)")
    parser.add_argument("--guest", required=True)
    parser.add_argument("--counter", required=True, help="the library that counts ioctls")
    parser.add_argument("--rounds", type=int, default=5, help="of what is timed (%(default)s)")
    parser.add_argument("--only", default="", metavar="TEXT", help="scenarios with this in their name")
    parser.add_argument("--json", metavar="FILE", help="every phase of every run")
    return parser.parse_args()


def as_json(results):
    return [{"scenario": scenario.name, "binary": binary, "error": error, "skipped": skipped,
             "phases": [dataclasses.asdict(phase) for phase in phases]}
            for scenario, binary, phases, skipped, error in results.runs]


def run_all(commands, options, results):
    for scenario, binary in plan.runs(list(commands), options.rounds, options.only):
        if results.refused(scenario):
            continue
        run = Run(commands[binary], scenario, options.guest, options.counter)
        error = None
        try:
            run.run()
        except Failed as failure:
            if isinstance(failure, Refused) and binary == "stock" and not results.has(scenario, binary):
                results.refusals[scenario] = str(failure)
                continue
            error = str(failure)
        results.add(scenario, binary, run.phases, run.skipped, error)
        for phase in run.phases:
            if phase.wrong:
                print(f"{scenario.name}, {binary}: {phase.name}: {phase.wrong} wrong", file=sys.stderr)
        print(f"{scenario.name}, {binary}: {error or f'{len(run.phases)} phases'}", file=sys.stderr)


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # 2048 eventfds, here and in QEMU
    commands = {"stock": shlex.split(options.stock), "msiroute": shlex.split(options.msiroute)}
    binaries = list(commands)
    results = Results()
    whole = True
    try:
        run_all(commands, options, results)
    except KeyboardInterrupt:
        whole = False
        print("interrupted: what there is so far", file=sys.stderr)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(as_json(results), file, indent=1)
    report.print_works(results, binaries)
    report.print_times(results, binaries)
    report.print_calls(results, binaries)
    return 0 if report.print_aims(results, binaries) and whole else 1


sys.exit(main())
