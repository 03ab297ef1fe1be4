# SPDX-License-Identifier: MIT OR Apache-2.0
"""One run of the guest under one QEMU: its command line, its requests, its end."""

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time

import mailbox as box
from calls import Calls, difference
from ivshmem import Server
from writer import Writer

SILENCE = 60.0  # seconds without a request: it hangs
REFUSAL = "kvm does not support KVM_CAP_SIGNAL_MSI"  # QEMU's words, 8.2 and later
DISK_SIZE = 1 << 20


class Failed(Exception):
    """The run came to nothing, and why."""


class Refused(Failed):
    """QEMU says that it does not start without KVM_SIGNAL_MSI."""


@dataclasses.dataclass(frozen=True)
class Machine:
    name: str
    options: str
    devices: tuple = ()
    words: str = ""


PC = Machine("pc", "pc,kernel-irqchip=on")
SPLIT = Machine("pc, split irqchip", "pc,kernel-irqchip=split")
IOMMU = Machine("q35, intel-iommu", "q35,kernel-irqchip=split", ("-device", "intel-iommu,intremap=on"), "remap=on")


@dataclasses.dataclass(frozen=True)
class Scenario:
    machine: Machine
    vectors: int
    words: str = ""
    hide_signal_msi: bool = False

    @property
    def name(self):
        parts = [self.machine.name, f"{self.vectors} vectors" if self.vectors > 1 else "", self.words]
        return ", ".join([part for part in parts if part] + ["no KVM_SIGNAL_MSI"] * self.hide_signal_msi)


@dataclasses.dataclass
class Phase:
    name: str
    sent: int
    received: int
    lost: int
    doubled: int
    astray: int
    accesses: int
    seconds: float
    calls: dict

    @property
    def wrong(self):
        """Also those that arrived though nobody sent them, or did not and nobody missed them."""
        unaccounted = self.received - (self.sent - self.lost + self.doubled)
        return self.lost + self.doubled + self.astray + abs(unaccounted)


class Run:
    """`command` is the QEMU binary with what it always needs (-L, say)."""

    def __init__(self, command, scenario, guest, counter):
        self._command, self._scenario, self._guest, self._counter = command, scenario, guest, counter
        self._folder = tempfile.mkdtemp(prefix="msiroute-", dir="/dev/shm")
        self._children = []
        self.skipped = []
        self.phases = []
        self._clock = []  # (TSC, nanoseconds) of the first and the last request

    # ---- what is run ----

    def _path(self, name):
        return os.path.join(self._folder, name)

    def _start(self, name, command, environment=None):
        """A child that ends when we do, however we end."""
        with open(self._path(name + ".err"), "wb") as errors:
            child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], env=environment,
                                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
        self._children.append(child)
        return child

    def _start_storage_daemon(self):
        with open(self._path("vhost.img"), "wb") as image:
            image.truncate(DISK_SIZE)
        self._start("daemon", [
            "qemu-storage-daemon",
            "--blockdev", f"driver=file,node-name=disk,filename={self._path('vhost.img')}",
            "--export", f"type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={self._path('vhost')}"])
        self._wait("qemu-storage-daemon", lambda: os.path.exists(self._path("vhost")))

    def _qemu(self):
        scenario, path = self._scenario, self._path
        with open(path("disk.img"), "wb") as image:
            image.truncate(DISK_SIZE)
        return [
            *self._command, "-nodefaults", "-no-user-config", "-display", "none", "-S",
            "-machine", f"{scenario.machine.options},accel=kvm,memory-backend=ram",
            "-object", f"memory-backend-file,id=ram,size={box.MEMORY_SIZE},mem-path={path('ram')},share=on",
            "-m", f"{box.MEMORY_SIZE >> 20}M", "-smp", str(box.NR_CPUS),
            "-kernel", self._guest, "-append", f"{scenario.machine.words} do={scenario.words}",
            "-qmp", f"unix:{path('qmp')},server=on,wait=off",
            "-chardev", f"file,id=console,path={path('console')}",
            "-device", "isa-debugcon,iobase=0xe9,chardev=console",
            "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
            *scenario.machine.devices,
            "-device", "edu,addr=4",
            "-chardev", f"socket,id=ivshmem,path={path('ivshmem')}",
            "-device", f"ivshmem-doorbell,addr=5,chardev=ivshmem,vectors={scenario.vectors},ioeventfd=off",
            "-object", "iothread,id=iothread",
            "-drive", f"if=none,id=disk,format=raw,file={path('disk.img')}",
            "-device", "virtio-blk-pci,addr=6,drive=disk,iothread=iothread,disable-legacy=on",
            "-object", "rng-random,id=random,filename=/dev/urandom",
            "-device", "virtio-rng-pci,addr=7,rng=random,disable-legacy=on",
            "-chardev", f"socket,id=vhost,path={path('vhost')}",
            "-device", "vhost-user-blk-pci,addr=8,chardev=vhost,num-queues=1,disable-legacy=on",
        ]

    def _environment(self):
        hide = {"COUNT_IOCTLS_HIDE_SIGNAL_MSI": "1"} if self._scenario.hide_signal_msi else {}
        return os.environ | {"LD_PRELOAD": self._counter, "COUNT_IOCTLS_FILE": self._path("calls")} | hide

    def _start_qemu(self):
        self._process = self._start("qemu", self._qemu(), self._environment())
        try:
            self._wait("QEMU's start", self._connect_qmp)
        except Failed as failure:
            raise (Refused(REFUSAL) if self._has_refused() else failure) from None
        self._wait("ivshmem's set-up", self._server.all_taken)
        self._qmp("query-status")  # what it has read, it has also done
        self._qmp("cont")

    def _wait(self, what, done, patience=30.0):
        deadline = time.monotonic() + patience
        while not done():
            for child in self._children:
                if child.poll() is not None:
                    raise Failed(f"{what}: {self._last_words()}")
            if time.monotonic() > deadline:
                raise Failed(f"{what}: not within {patience:.0f} s")
            time.sleep(0.005)

    def _connect_qmp(self):
        if not os.path.exists(self._path("qmp")):
            return False
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            try:
                connection.connect(self._path("qmp"))
            except ConnectionRefusedError:  # not yet, or no longer
                return False
            self._qmp_file = connection.makefile("rw")
        self._qmp_read()
        self._qmp("qmp_capabilities")
        return True

    def _qmp(self, command):
        with contextlib.suppress(BrokenPipeError):  # the reading tells
            self._qmp_file.write(json.dumps({"execute": command}) + "\n")
            self._qmp_file.flush()
        reply = {}
        while "return" not in reply:
            reply = self._qmp_read()
            if "error" in reply:
                raise Failed(f"{command}: {reply['error']['desc']}")

    def _qmp_read(self):
        try:
            line = self._qmp_file.readline()
        except OSError:
            line = ""
        if line:
            return json.loads(line)
        self._process.wait(30)
        raise Failed(f"QEMU ended ({self._process.returncode}): {self._last_words()}")

    def _has_refused(self):
        if not self._scenario.hide_signal_msi or (self._process.poll() or 0) <= 0:
            return False
        with open(self._path("qemu.err"), errors="replace") as file:
            return REFUSAL in file.read()

    def _last_words(self):
        words = []
        for name in ("qemu.err", "daemon.err", "console"):
            try:
                with open(self._path(name), errors="replace") as file:
                    words += file.read().splitlines()[-2:]
            except OSError:
                pass
        return " / ".join(words) or "no word"

    # ---- what the guest asks ----

    def _begin(self):
        self._name = self._mailbox.name()
        self._received_before = self._mailbox.arrived_all()
        self._sent_before = self._writer.sent
        self._calls_before = self._calls.sample()

    def _end(self):
        sent, lost, doubled, astray, accesses, cycles = self._mailbox.arguments()
        self.phases.append(Phase(
            self._name, sent + self._writer.sent - self._sent_before,
            self._mailbox.arrived_all() - self._received_before, lost, doubled, astray, accesses, cycles,
            difference(self._calls.sample(), self._calls_before)))

    def _serve(self, request):
        mailbox, writer = self._mailbox, self._writer
        first, count, times = mailbox.arguments()[:3]
        result = ()
        if request == box.BEGIN:
            self._begin()
        elif request == box.END:
            self._end()
        elif request == box.LOCKSTEP:
            result = writer.lockstep(first, count, times)
        elif request == box.SEND:
            writer.send(first, count)
        elif request == box.STORM:
            writer.storm_begins(first, count)
        elif request == box.CALM:
            result = writer.storm_ends()
        elif request == box.SKIP:
            self.skipped.append(mailbox.name())
        elif request != box.DONE:
            raise Failed(f"the guest asks for {request}")
        mailbox.answer(*result)

    def _serve_all(self):
        done, heard = False, time.monotonic()
        while not done:
            request = self._mailbox.asked()
            if request is not None:
                self._clock = self._clock[:1] + [(self._mailbox.tsc(), time.monotonic_ns())]
                self._serve(request)
                done, heard = request == box.DONE, time.monotonic()
            elif self._process.poll() is not None:
                raise Failed(f"QEMU ended ({self._process.returncode}): {self._last_words()}")
            elif time.monotonic() - heard > SILENCE:
                raise Failed(f"hung: {self._last_words()}")
            elif not self._writer.storm_goes_on():
                time.sleep(0.0002)

    def _take_seconds(self):
        """The guest told TSC cycles, and its first and last request say how long one is."""
        (first, at_first), (last, at_last) = self._clock
        for phase in self.phases:
            phase.seconds *= (at_last - at_first) / (last - first) / 1e9

    def run(self):
        """All of it; phases and skipped are what it came to, also when it failed."""
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._mailbox = stack.enter_context(contextlib.closing(box.Mailbox(self._path("ram"))))
            self._calls = stack.enter_context(contextlib.closing(Calls(self._path("calls"))))
            self._server = stack.enter_context(contextlib.closing(
                Server(self._path("ivshmem"), self._scenario.vectors)))
            self._writer = Writer(self._mailbox, self._server)
            stack.callback(self._end_children)
            self._start_storage_daemon()
            self._start_qemu()
            self._serve_all()
            self._take_seconds()

    def _end_children(self):
        for child in self._children:
            child.kill()
            child.wait()
