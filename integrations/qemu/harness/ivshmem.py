# SPDX-License-Identifier: MIT OR Apache-2.0
"""An ivshmem server with one client: it hands over eventfds and shared memory, and is who writes the eventfds.

The protocol is that of QEMU's docs/specs/ivshmem-spec: numbers of 8 bytes, some with a descriptor.
"""

import array
import fcntl
import os
import socket
import struct
import termios
import threading

VERSION, CLIENT, SHARED_MEMORY = 0, 0, -1


class Server:
    def __init__(self, path, vectors, memory_size=1 << 20):
        self.eventfds = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(vectors)]
        self._memory = os.memfd_create("ivshmem")
        os.ftruncate(self._memory, memory_size)
        self._client = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        try:
            self._client, _ = self._listener.accept()
            self._say(VERSION)
            self._say(CLIENT)
            self._say(SHARED_MEMORY, self._memory)
            for fd in self.eventfds:
                self._say(CLIENT, fd)
        except OSError:
            pass  # it went away; then so did its process, and that is noticed

    def _say(self, number, *descriptors):
        socket.send_fds(self._client, [struct.pack("<q", number)], descriptors)

    def all_taken(self):
        """Whether the client has read all that it was sent."""
        if self._thread.is_alive() or not self._client:
            return False
        unread = array.array("i", [0])
        fcntl.ioctl(self._client, termios.TIOCOUTQ, unread)
        return unread[0] == 0

    def signal(self, vector):
        os.eventfd_write(self.eventfds[vector], 1)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)  # which ends accept(); close() alone does not
        self._listener.close()
        if self._client:
            self._client.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        if self._client:
            self._client.close()
        for fd in (*self.eventfds, self._memory):
            os.close(fd)
