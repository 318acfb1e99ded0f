"""The hosts that the tests of this folder stand on: two machines to their programs, and nothing that stays."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import unittest

from hosts import Cluster, birth, kill, skip_all, wait_until, why_not
from links import can_limit, can_slow


class Hosts(unittest.TestCase):
    def test_hosts_have_names_networks_and_processes_of_their_own_and_one_disk(self):
        with Cluster(hosts=2) as cluster, Cluster(hosts=2) as other:
            self.assertEqual(cluster.shell("h1", "ssh h2 hostname"), "h2\n")
            self.assertNotEqual(os.uname().nodename, "h2")
            self.assertIn("eth0", cluster.shell("h2", "ip -br addr"))
            cluster.shell("h2", f"echo written >{cluster.folder}/note")
            self.assertEqual((cluster.folder / "note").read_text(), "written\n")
            sleeper = cluster.start("h2", "sleep", "77", log=cluster.folder / "log")
            wait_until(lambda: len(cluster.pids("h2", "sleep")) == 2, "sleep")  # process 1 has one, too
            self.assertEqual([len(c.pids(h, "sleep")) for c, h in ((cluster, "h1"), (other, "h2"))], [1, 1])
            kill(cluster.child(sleeper), signal.SIGTERM)
            self.assertEqual(sleeper.wait(10), -signal.SIGTERM)

    def test_a_cable_is_cut_and_mended(self):
        with Cluster(hosts=2) as cluster:
            cluster.cut("h2")
            self.assertFalse(cluster.answers("h2"))
            self.assertTrue(cluster.answers("h1"))
            cluster.mend("h2")
            self.assertEqual(cluster.shell("h1", "ssh h2 hostname"), "h2\n")

    def test_second_interfaces(self):
        with Cluster(hosts=2) as cluster:
            cluster.second_interface("docker0")
            cluster.second_interface("bmc0")
            addresses = [re.findall(r"(\w+) +UP +([\d.]+)", cluster.shell(host, "ip -br addr show up")) for host in cluster.hosts]
            self.assertEqual([dict(a).get("docker0") for a in addresses], ["172.17.0.1", "172.17.0.1"], addresses)
            self.assertEqual([dict(a).get("bmc0") for a in addresses], ["10.99.0.1", "10.99.0.2"], addresses)
            reach = "exec 3<>/dev/tcp/10.99.0.2/22"
            self.assertNotEqual(cluster.run("h1", "timeout", "1", "bash", "-c", reach).returncode, 0)
            cluster.remove_interface("docker0")
            cluster.remove_interface("bmc0")
            self.assertEqual(cluster.shell("h2", "ip -br link | wc -l"), "2\n")

    @unittest.skipUnless(can_slow(), "there is neither netem nor /dev/net/tun")
    def test_a_slow_link_is_slow_and_passes_everything(self):
        with Cluster(hosts=2) as cluster:
            cluster.slow("h2", 100)
            begin = time.monotonic()
            self.assertTrue(cluster.answers("h2", seconds=10))
            self.assertGreater(time.monotonic() - begin, 0.4)  # two round trips: to connect, and to hear a word
            cluster.slow("h2", 5, loss=5)
            self.assertEqual(cluster.shell("h1", "ssh h2 'head -c 1000000 /dev/zero' | wc -c"), "1000000\n")
            cluster.quicken("h2")
            self.assertTrue(cluster.answers("h2"))

    @unittest.skipUnless(can_slow(), "there is neither netem nor /dev/net/tun")
    def test_packets_are_doubled_and_come_ahead_of_others(self):
        with Cluster(hosts=2) as cluster:
            for counter, link in (("TCPDSACKOldSent", {"duplicate": 20}), ("TCPOFOQueue", {"milliseconds": 5, "reorder": 20})):
                cluster.slow("h2", **link)
                before = cluster.tcp_count("h1", counter)
                self.assertEqual(cluster.shell("h1", "ssh h2 'head -c 1000000 /dev/zero' | wc -c"), "1000000\n")
                self.assertGreater(cluster.tcp_count("h1", counter), before + 3, link)
            cluster.quicken("h2")

    @unittest.skipUnless(can_limit(), "the kernel has no tbf")
    def test_a_cable_has_a_rate(self):
        with Cluster(hosts=2) as cluster:
            cluster.limit("h2", 8)
            begin = time.monotonic()
            self.assertEqual(cluster.shell("h1", "ssh h2 'head -c 1000000 /dev/zero' | wc -c"), "1000000\n")
            self.assertGreater(time.monotonic() - begin, 0.9)  # a megabyte at 1 MB/s
            cluster.limit("h2", None)
            self.assertNotIn("tbf", cluster.shell("h2", "tc qdisc show dev eth0"))

    def test_nothing_stays(self):
        """Neither of a cluster that ends, nor of one whose test was killed."""
        script = ("import hosts, time\nwith hosts.Cluster(2) as c:\n"
                  " print(c.folder, c.keepers['h2'][1], c.pids('h2', 'sshd')[0], flush=True)\n")
        for how in ("", " time.sleep(1000)\n"):
            with subprocess.Popen([sys.executable, "-B", "-c", script + how], cwd=pathlib.Path(__file__).parent,
                                  stdout=subprocess.PIPE, text=True) as process:
                folder, *pids = process.stdout.readline().split()
                if how:
                    self.assertTrue(pathlib.Path(folder).exists())
                    process.kill()
                process.wait(30)
            wait_until(lambda p=pids: not any(map(birth, p)), f"the end of {pids}", seconds=20)
            self.assertEqual(pathlib.Path(folder).exists(), bool(how))
        with Cluster(hosts=1):
            self.assertFalse(pathlib.Path(folder).exists())


if __name__ == "__main__":
    if reason := why_not():
        skip_all(reason)
    unittest.main()
