# SPDX-License-Identifier: MPL-2.0
"""Pipelines that take what comes from outside, with bad sources one after the other: ./sfu soak inputs.

After each one a good source is to be seen: within 5 s where nothing else wants the machine; later than 20 s is a failure. The server
must be the same process all the time, and a stream beside must go on where the pipeline has more than one. SFU_SEED says in which order;
as many are done as there is time for. Prints what was seen as JSON, and ends with 1 where something failed.

usage: python3 scripts/inputs SECONDS [PIPELINE...]
"""

import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from entries import ENTRIES, FAULT, Files
from process import LOGS, PATIENCE, ROOT, Process, free_ports

SEED = int(os.environ.get("SFU_SEED", time.time_ns() % 2**32))
PROMISED = 5
# What a pipeline may need to end, on a machine that is shared.
END = 4


class Pipeline:
    """One of pipelines/, and who sends to it."""

    def __init__(self, name, folder):
        self.name, self.beside = name, None
        self.port, udp = free_ports([socket.SOCK_STREAM, socket.SOCK_DGRAM])
        self.entry = ENTRIES[name](name, folder, self.port, udp)
        keys = [f"PORT={self.port}", f"UDP_PORT={udp}", *self.entry.keys()]
        environment = {**os.environ, "GST_SFU_ACCESS": "", "NDI_RUNTIME_DIR_V6": str(ROOT / ".cache/ndi/NDIlib")}
        self.server = Process(name, [ROOT / "sfu", "run", name, *keys], env=environment)

    def begin(self):
        self.until("the server", lambda: self.ask("/healthz") is not None)
        if self.entry.several:
            self.beside = self.entry.good("beside")
            self.until("the stream beside", lambda: self.is_seen("beside"))

    def ask(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.read()
        except OSError:
            return None

    def is_seen(self, stream=None):
        answer = self.ask(f"/api/streams/{stream or self.entry.seen}")
        info = json.loads(answer) if answer else {}
        layers = (info.get("video") or {}).get("layers") or []
        return bool(info.get("live")) and any(layer["active"] and (layer["bitrate"] or 0) >= self.entry.least for layer in layers)

    def until(self, what, is_so):
        began = time.time()
        while not is_so():
            if not self.server.runs():
                raise RuntimeError(f"the server ended: see {LOGS}/{self.name}.log")
            if time.time() - began > PATIENCE:
                raise RuntimeError(f"no {what} within {PATIENCE} s; streams: {self.ask('/api/streams')}")
            time.sleep(0.05)
        return time.time() - began

    def suffers(self, fault, chosen):
        """Gives it a bad source, and returns how long a good one then took to be seen."""
        self.entry.bad(fault, chosen)
        if isinstance(self.entry, Files):
            return self.until("good file", self.is_seen)
        self.until("end of the bad source", lambda: not self.is_seen())
        took = self.sees_a_good_one()
        self.until("end of the good source", lambda: not self.is_seen())
        if self.beside and not (self.beside.runs() and self.is_seen("beside")):
            raise RuntimeError("the stream beside ended")
        return took

    def sees_a_good_one(self):
        began = time.time()
        good = self.entry.good()
        try:
            while not self.is_seen():
                # A key that is still taken refuses: encoders try again.
                if not good.runs():
                    good.end()
                    time.sleep(0.2)
                    good = self.entry.good()
                self.until("answer", lambda: self.ask("/healthz") is not None)
                if time.time() - began > PATIENCE:
                    raise RuntimeError(f"no good source within {PATIENCE} s")
                time.sleep(0.05)
            return time.time() - began
        finally:
            good.end(signal.SIGTERM)

    def end(self):
        if self.beside:
            self.beside.end()
        return self.server.end(signal.SIGINT)


def suffer_all(pipeline, until, chosen, report):
    """One fault at least, and as many as there is time for."""
    faults = pipeline.entry.faults()
    chosen.shuffle(faults)
    for n, fault in enumerate(faults):
        if n > 0 and time.time() > until - FAULT:
            break
        key = f"{pipeline.name}: {fault}"
        try:
            report["seconds until a good source is seen"][key] = round(pipeline.suffers(fault, chosen), 2)
        except RuntimeError as error:
            report["failed"].append(f"{key}: {error}")
            if not pipeline.server.runs():
                break


def drive(name, until, chosen, report):
    """One pipeline from its start to its end."""
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline(name, Path(folder))
        try:
            pipeline.begin()
            suffer_all(pipeline, until, chosen, report)
        except RuntimeError as error:
            report["failed"].append(f"{name}: {error}")
        finally:
            took = pipeline.end()
        report["seconds to end"][name] = round(took, 2)
        if took > END:
            report["failed"].append(f"{name} took {took:.1f} s to end")


def main():
    end = time.time() + int(sys.argv[1])
    LOGS.mkdir(parents=True, exist_ok=True)
    print(f"SFU_SEED={SEED}", file=sys.stderr)
    chosen = random.Random(SEED)
    names = sys.argv[2:] or list(ENTRIES)
    chosen.shuffle(names)
    report = {"seed": SEED, "seconds until a good source is seen": {}, "seconds to end": {}, "failed": []}
    for n, name in enumerate(names):
        drive(name, time.time() + (end - time.time()) / (len(names) - n), chosen, report)
    done = report["seconds until a good source is seen"]
    late = report[f"later than {PROMISED} s"] = [key for key, took in done.items() if took > PROMISED]
    print(json.dumps(report, indent=2))
    failed = report["failed"]
    print(f"inputs: {len(done)} of pipeline and fault seen again, {len(late)} of them later than {PROMISED} s; {len(failed)} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
