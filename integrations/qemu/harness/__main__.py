# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs the guest under two QEMU binaries in turns, and tells what it saw."""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import platform
import resource
import shlex
import signal
import subprocess
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
    parser.add_argument("--doc", metavar="FILE", help="put the report between its <!-- result --> and <!-- /result -->")
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


def circumstances(command, rounds):
    version = subprocess.run([*command, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[0]
    system, linux = platform.freedesktop_os_release()["PRETTY_NAME"], ".".join(platform.release().split(".")[:2])
    return (f"{system}, {version.replace('emulator version ', '')}, Linux {linux}, {os.cpu_count()} CPUs; load average when it "
            f"began {os.getloadavg()[0]:.1f}; rounds of what is timed: {rounds}.\n")


def split_at_marks(path):
    """What is before the result and what is after it."""
    with open(path) as file:
        before, rest = file.read().split("<!-- result -->\n")
    return before + "<!-- result -->\n", "<!-- /result -->\n" + rest.split("<!-- /result -->\n")[1]


def main():
    options = arguments()
    if options.doc:
        split_at_marks(options.doc)  # it has them
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # 2048 eventfds, here and in QEMU
    commands = {"stock": shlex.split(options.stock), "msiroute": shlex.split(options.msiroute)}
    binaries = list(commands)
    head = circumstances(commands["stock"], options.rounds)
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
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        print(head)
        report.print_works(results, binaries)
        report.print_times(results, binaries)
        report.print_calls(results, binaries)
        met = report.print_aims(results, binaries)
    print(text.getvalue(), end="")
    if options.doc and whole:
        renewed = text.getvalue().join(split_at_marks(options.doc))
        with open(options.doc, "w") as file:
            file.write(renewed)
    return 0 if met and whole else 1


sys.exit(main())
