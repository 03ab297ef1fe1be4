# SPDX-License-Identifier: MIT OR Apache-2.0
"""For gdb: runs a program and counts what its tracepoints say; the last line is the counts, as the program itself tells them."""
import collections

import gdb

NAMES = "deliver pend deliver_message relay promote demote table_write evict error".split()
hits = collections.defaultdict(list)


class Listener(gdb.Breakpoint):
    def __init__(self, name):
        super().__init__(f"-probe-stap msiroute:{name}")
        self.tracepoint = name

    def stop(self):
        n = int(gdb.parse_and_eval("$_probe_argc"))
        hits[self.tracepoint].append([int(gdb.parse_and_eval(f"$_probe_arg{i}")) for i in range(n)])
        if self.tracepoint == "error":
            errno, text, length = hits["error"][-1]
            hits["error"][-1] = [errno, bytes(gdb.selected_inferior().read_memory(text, length)).decode()]
        return False


gdb.execute("set breakpoint pending on")
gdb.execute("set debuginfod enabled off")
for name in NAMES:
    Listener(name)
gdb.execute("run")

devices = {device for device, _ in hits["deliver"]}
assert len(devices) == 1 and 0 not in devices, devices
assert [index for _, index in hits["deliver"]] == [2] * 10 + [99], hits["deliver"]
assert all(hit == [*devices, 2] for hit in hits["pend"]), hits["pend"]
for moved in ("relay", "promote", "demote"):
    assert all(device in devices and index in (0, 1) for device, index in hits[moved]), hits[moved]
assert all(address == 0xfee00000 and data >= 32 and requester == 0xffffffff
           for _, address, data, requester in hits["deliver_message"]), hits["deliver_message"]
assert all(gsi >= 24 and address == 0xfee00000 and data >= 32 for gsi, address, data in hits["evict"]), hits["evict"]
assert all(0 < entries < 4096 and 0 < ns < 60e9 for entries, ns, _ in hits["table_write"]), hits["table_write"]
assert [errno for *_, errno in hits["table_write"] if errno] == [5], hits["table_write"]
assert [22, "no such vector"] in hits["error"], hits["error"]
print("heard " + " ".join(f"{name}={len(hits[name])}" for name in NAMES if name != "error"))
