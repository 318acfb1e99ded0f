"""relay.py A B CONTROL: passes Ethernet frames between two TAP devices and does to them what netem does, for kernels without it.

CONTROL is a file "DELAY LOSS DUPLICATE REORDER" that is read ten times a second: milliseconds of one way (100 make a round trip
of 200), and percents of the frames that are lost, sent twice, and sent at once, ahead of those that are delayed."""

import collections
import fcntl
import os
import pathlib
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME = 65536
QUEUE = 100_000  # frames; more are dropped, as a switch does


def open_tap(name):
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return tap


def forward_due(queue, tap):
    """Writes the frames whose time has come; returns the seconds until the next one, None where there is none."""
    while queue:
        due, frame = queue[0]
        if (left := due - time.monotonic()) > 0:
            return left
        try:
            os.write(tap, frame)
        except BlockingIOError:
            return 0.001
        except OSError:
            pass  # the other side's link is down: lost
        queue.popleft()
    return None


def main():
    taps = [open_tap(name) for name in sys.argv[1:3]]
    control = pathlib.Path(sys.argv[3])
    queues = {tap: collections.deque() for tap in taps}  # read from tap
    other = {taps[0]: taps[1], taps[1]: taps[0]}
    numbers = random.Random(1)
    next_look = 0.0
    seconds = loss = duplicate = reorder = 0.0
    print("ready", flush=True)
    while True:
        if time.monotonic() >= next_look:
            words = control.read_text(encoding="utf-8").split()
            if len(words) == 4:  # else it is being written
                seconds = float(words[0]) / 1000
                loss, duplicate, reorder = (float(word) / 100 for word in words[1:])
            next_look = time.monotonic() + 0.1
        waits = [wait for tap in taps if (wait := forward_due(queues[tap], other[tap])) is not None]
        for tap in select.select(taps, [], [], min([0.1, *waits]))[0]:
            try:
                while True:
                    frame = os.read(tap, FRAME)
                    if numbers.random() < loss or len(queues[tap]) >= QUEUE:
                        continue
                    now = time.monotonic()
                    for _ in range(2 if numbers.random() < duplicate else 1):
                        if numbers.random() < reorder:
                            queues[tap].appendleft((now, frame))
                        else:
                            queues[tap].append((now + seconds, frame))
            except OSError:
                pass  # nothing more to read, or the link is down


if __name__ == "__main__":
    main()
