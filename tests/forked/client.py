"""Stands where ``python`` stood: has a child of the mother become that process, and ends as it ends.

Started as ``python -I -S client.py PLACE KIND ARGUMENTS…``: it imports next to nothing.
"""

import marshal
import os
import resource
import signal
import socket
import sys

place, kind, *arguments = sys.argv[1:]
folder = os.getcwd()  # noqa: PTH109 - pathlib takes longer to import than all else here
asked = {"kind": kind, "arguments": arguments, "folder": folder, "variables": dict(os.environ)}
mother = socket.socket(socket.AF_UNIX)
try:
    mother.connect(place)
    message = marshal.dumps(asked)
    socket.send_fds(mother, [len(message).to_bytes(4, "big")], [0, 1, 2])
    mother.sendall(message)
    accepted = mother.recv(1) == b"y"
except OSError:
    accepted = False
if not accepted:
    os.execv(sys.executable, [sys.executable, *arguments])
# Whoever waits for the end of the output waits for the child alone.
for own in (0, 1, 2):
    os.close(own)
signal.signal(signal.SIGINT, signal.SIG_IGN)
answer = mother.recv(16)
# Without an answer the mother has gone, and all of her children with her.
status = int(answer) if answer else -signal.SIGKILL
if status < 0:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if status != -signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
