# SPDX-License-Identifier: MPL-2.0
"""Processes that are started and ended, and free ports."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LOGS = ROOT / "target/inputs"
# Longer than this is a failure.
PATIENCE = 20


def free_ports(kinds):
    held = [socket.socket(type=kind) for kind in kinds]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def elements():
    """The environment for GStreamer's programs: the plugins of this build."""
    return {**os.environ, "GST_PLUGIN_PATH": str(ROOT / "target/release"), "GST_REGISTRY": str(LOGS / "registry.bin")}


class Process:
    """A process that ends with its group."""

    def __init__(self, name, command, **more):
        self.log = open(LOGS / f"{name}.log", "w", encoding="utf-8")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, start_new_session=True, **more)

    def runs(self):
        return self.process.poll() is None

    def end(self, how=signal.SIGKILL):
        """Returns how long it took."""
        asked = time.time()
        if self.runs():
            self.process.send_signal(how)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        return time.time() - asked
