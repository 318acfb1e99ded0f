"""The cables of a Cluster's hosts: further interfaces, delay, loss, rates."""

import functools
import pathlib
import subprocess
import sys

sys.path.append(str(pathlib.Path(__file__).parent.parent / "faults"))
from processes import wait_until

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def queue_works(words):
    """Whether tc and the kernel have a queue of this kind."""
    tried = subprocess.run(["unshare", "--net", "bash", "-c", f"tc qdisc add dev lo root {words}"], env={"PATH": PATH},
                           capture_output=True, check=False)
    return tried.returncode == 0


@functools.cache
def has_netem():
    return queue_works("netem delay 1ms")


def can_slow():
    """Whether Cluster.slow works."""
    return has_netem() or pathlib.Path("/dev/net/tun").exists()


@functools.cache
def can_limit():
    """Whether Cluster.limit works."""
    return queue_works("tbf rate 1mbit burst 16000 latency 20ms")


class Links:
    """The part of Cluster that knows them; `relays` has the relay's process of each host that has one."""

    def second_interface(self, kind):
        """On every host. docker0: one address everywhere, as Docker makes it. bmc0: an address of one subnet, but no cable."""
        for host in self.hosts:
            address = {"docker0": "172.17.0.1/16", "bmc0": f"10.99.0.{host[1:]}/24"}[kind]
            self.shell(host, f"ip link add {kind} type bridge && ip link add inside-{kind} type veth peer name to-{kind} && "
                             f"ip link set to-{kind} master {kind} up && ip link set inside-{kind} up && "
                             f"ip addr add {address} dev {kind} && ip link set {kind} up && "
                             f"until ip -br link show {kind} | grep -q LOWER_UP; do sleep 0.05; done")

    def remove_interface(self, kind):
        for host in self.hosts:
            self.shell(host, f"ip link del {kind} && ip link del to-{kind}")

    def slow(self, host, milliseconds=0, loss=0, duplicate=0, reorder=0):
        """Delays the host's packets that long each way; percents of them are lost, doubled, or sent ahead of those that are
        delayed. Also under a running job, also to change it: by netem, or by relay.py where the kernel has none."""
        if has_netem():
            words = f"root netem limit 100000 delay {milliseconds}ms loss {loss}% duplicate {duplicate}%"
            words += f" reorder {reorder}%" if reorder and milliseconds else ""
            return self._queue(host, "replace", words)
        control = self.folder / f"relay-{host}.control"
        control.write_text(f"{milliseconds} {loss} {duplicate} {reorder}\n")
        return None if host in self.relays else self._start_relay(host, control)

    def _start_relay(self, host, control):
        with open(self.folder / f"relay-{host}.log", "wb") as log:
            relay = [sys.executable, "-B", pathlib.Path(__file__).parent / "relay.py", f"a-{host}", f"b-{host}", control]
            command = ["nsenter", "-t", str(self.keepers["switch"][1]), "--net", "--", "setpriv", "--pdeathsig", "KILL", *relay]
            self.relays[host] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: (self.folder / f"relay-{host}.log").read_text() == "ready\n", "the relay")
        self._in_switch(f"ip link add relay-{host} type bridge && ip link set relay-{host} up && "
                        f"ip link set a-{host} master br0 up && "
                        f"ip link set b-{host} master relay-{host} up && ip link set port-{host} master relay-{host}")

    def quicken(self, host):
        """Ends slow()."""
        if host not in self.relays:
            return self._queue(host, "del", "root")
        self._in_switch(f"ip link set port-{host} master br0 && ip link del relay-{host}")
        relay = self.relays.pop(host)
        relay.kill()
        return relay.wait()

    def limit(self, host, megabits):
        """A rate in Mbit/s, each way, of a cable with a buffer of 20 ms; None ends it."""
        if megabits is None:
            return self._queue(host, "del", "root")
        # A bucket below what arrives between two ticks of the clock (1 ms here) could not be filled at the rate.
        return self._queue(host, "replace", f"root tbf rate {megabits}mbit burst {max(16_000, int(250 * megabits))} latency 20ms")

    def tcp_count(self, host, name):
        """A counter of the host's TCP, such as TCPOFOQueue: segments that came ahead of their turn."""
        names, values = (line.split() for line in self.shell(host, "grep ^TcpExt: /proc/net/netstat").splitlines())
        return int(values[names.index(name)])

    def _queue(self, host, verb, words):
        """On both ends of the host's cable."""
        self._in_switch(f"tc qdisc {verb} dev port-{host} {words}")
        self.shell(host, f"tc qdisc {verb} dev eth0 {words}")
