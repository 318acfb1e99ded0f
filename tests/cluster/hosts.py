"""Hosts on one machine, for tests: namespaces of Linux that have their own name, network, processes and sshd.

    with Cluster(hosts=2) as cluster:
        cluster.run("h1", "ssh", "h2", "hostname")     # h2
        cluster.cut("h2")                              # its packets vanish, and nobody is told

A host has its own network, UTS, process and mount namespaces: its name, 10.77.0.N at eth0, /etc/hosts, /root/.ssh, an ordinary
user (USER), /run, /dev/shm, /sys. The rest of the disk is shared, as over NFS. All hang on a bridge in a network namespace of its
own, so that nothing here touches the machine's network. Process 1 of a host dies with the test, however that ends, and the
kernel then kills the host's processes and removes its network; only the folder of a killed test stays, until the next test
sweeps it away.

Needs root that may make namespaces, and the programs of iproute2, openssh-server and util-linux: why_not() tells."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).parent.parent / "faults"))
from links import PATH, Links
from processes import has_live_thread, wait_until

NETWORK = "10.77.0"
PREFIX = "vqlm-cluster-"
# Open MPI's folder of a job is named after the host and mpirun's pid, which another test's host may have, too.
TMPDIR = "/run/tmp"
# An ordinary user of every host.
USER, USER_ID, USER_HOME = "trainer", 4242, "/run/trainer"
NAMESPACES = ["unshare", "--net", "--uts", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
              "--mount-proc"]
SSHD_CONFIG = f"""PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
MaxStartups 100
PidFile none
SetEnv TMPDIR={TMPDIR}
"""
# Process 1: mounts what is the host's own, says that it is ready, and then collects orphans as long as the host is up.
BOOT = """set -e
hostname "$1"
mount -t tmpfs -o size=1g tmpfs /run && mkdir -p /run/sshd /run/munge && mkdir -m 1777 /run/tmp
mount -t tmpfs tmpfs /dev/shm
mount -t sysfs sysfs /sys
mount --bind "$2/hosts" /etc/hosts
mkdir -p /root/.ssh && mount --bind "$2/ssh" /root/.ssh
mount --bind "$2/passwd" /etc/passwd
mkdir "$3" && cp -r "$2/ssh" "$3/.ssh" && chown -R "$4:$4" "$3"
touch "$2/$1.up"
while :; do sleep 1000 & wait; done"""


def why_not(*programs):
    """Why no cluster can be made here, or None. programs: what the test needs besides."""
    for program in ("ip", "nsenter", "setpriv", "ssh", "ssh-keygen", "sshd", "unshare", *programs):
        if not shutil.which(program, path=PATH):
            return f"there is no program {program}"
    if os.geteuid() != 0:
        return "only root can make hosts of namespaces"
    probe = ("hostname probe && mount -t tmpfs tmpfs /run && ip link add port type veth peer name eth0 && "
             "ip link add switch type bridge")
    tried = subprocess.run([*NAMESPACES, "bash", "-c", probe], env={"PATH": PATH}, capture_output=True, text=True, check=False)
    return f"no hosts can be made of namespaces here: {tried.stderr.strip()}" if tried.returncode != 0 else None


def skip_all(reason):
    """Ends the test with the exit code by which CTest knows that it was skipped."""
    print(f"skipped: {reason}", file=sys.stderr)
    sys.exit(77)


def birth(pid):
    """When a process began, in the kernel's ticks, or None: a pid alone may be another process by now."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        return None


def environment_of(process):
    """Of a folder in /proc; empty for a process that the kernel is ending."""
    try:
        return (process / "environ").read_bytes()
    except ProcessLookupError:
        return b""


def sweep_folders():
    """Removes what tests have left that were killed."""
    for folder in pathlib.Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        pid, _, begun = folder.name.removeprefix(PREFIX).partition("-")
        if birth(pid) != begun.partition("-")[0]:
            shutil.rmtree(folder, ignore_errors=True)


def kill(pid, how=signal.SIGKILL):
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        pass  # it had ended


class Cluster(Links):
    def __init__(self, hosts=2):
        self.hosts = [f"h{number}" for number in range(1, hosts + 1)]
        self.keepers = {}  # host, or "switch": (unshare, pid of its process 1)
        self.relays = {}  # host: the relay's process

    def __enter__(self):
        sweep_folders()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-{birth(os.getpid())}-"))
        self.folder.chmod(0o755)
        try:
            self._write_files()
            self.keepers["switch"] = self._keep("switch")
            self._in_switch("ip link add br0 type bridge && ip link set lo up && ip link set br0 up")
            for host in self.hosts:
                self._boot(host)
            for host in self.hosts:
                wait_until(lambda h=host: self.answers(h), f"{host}: sshd")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for unshare, pid in self.keepers.values():
            kill(pid)
            unshare.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def address(self, host):
        return f"{NETWORK}.{host[1:]}"

    def _write_files(self):
        """What the hosts share: /etc/hosts, one host key, one user key."""
        (self.folder / "ssh").mkdir(mode=0o700)
        for key in ("host_key", "ssh/id_ed25519"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key], check=True)
        shutil.copy(self.folder / "ssh/id_ed25519.pub", self.folder / "ssh/authorized_keys")
        host_key = " ".join((self.folder / "host_key.pub").read_text().split()[:2])
        known = [f"{host},{self.address(host)} {host_key}\n" for host in self.hosts]
        names = ["127.0.0.1 localhost\n", *(f"{self.address(host)} {host}\n" for host in self.hosts)]
        (self.folder / "ssh/known_hosts").write_text("".join(known))
        (self.folder / "hosts").write_text("".join(names))
        user = f"{USER}:*:{USER_ID}:{USER_ID}::{USER_HOME}:/bin/bash\n"
        (self.folder / "passwd").write_text(pathlib.Path("/etc/passwd").read_text(encoding="utf-8").rstrip() + "\n" + user)
        (self.folder / "sshd_config").write_text(f"HostKey {self.folder}/host_key\n{SSHD_CONFIG}")

    def _keep(self, name):
        """Makes the namespaces. pdeathsig: unshare dies with this process, however that ends, and process 1 with unshare."""
        command = ["setpriv", "--pdeathsig", "KILL", *NAMESPACES, "bash", "-c", BOOT, "bash", name, str(self.folder), USER_HOME,
                   str(USER_ID)]
        with open(self.folder / f"{name}.log", "wb") as log:
            unshare = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": PATH})

        def is_up():
            if unshare.poll() is not None:
                raise AssertionError(f"{name} did not boot: {(self.folder / f'{name}.log').read_text()}")
            return (self.folder / f"{name}.up").exists()

        wait_until(is_up, f"{name}: boot")
        child = pathlib.Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
        return unshare, int(child[0])

    def _boot(self, host):
        self.keepers[host] = self._keep(host)
        pid = self.keepers[host][1]
        self._in_switch(f"ip link add port-{host} type veth peer name eth0 netns {pid} && "
                        f"ip link set port-{host} master br0 up")
        self.shell(host, f"ip link set lo up && ip addr add {self.address(host)}/24 dev eth0 && ip link set eth0 up")
        self.start_sshd(host)

    def _in_switch(self, words):
        # Without the process namespace: `netns PID` of ip is a pid of the machine.
        command = ["nsenter", "-t", str(self.keepers["switch"][1]), "--net", "--", "bash", "-c", words]
        subprocess.run(command, env={"PATH": PATH}, check=True)

    def start_sshd(self, host):
        self.run(host, shutil.which("sshd", path=PATH), "-f", self.folder / "sshd_config",
                 "-E", self.folder / f"sshd-{host}.log", "-o", f"ListenAddress={self.address(host)}", check=True)

    def answers(self, host, seconds=1):
        """Whether the host's sshd takes connections from the first host."""
        words = f"exec 3<>/dev/tcp/{self.address(host)}/22 && read -r -t {seconds} <&3"
        return self.run(self.hosts[0], "timeout", seconds, "bash", "-c", words).returncode == 0

    def _command(self, host, command, environment, user):
        home = USER_HOME if user == USER else "/root"
        variables = {"HOME": home, "USER": user, "TERM": "dumb", "LANG": "C.UTF-8", "PATH": PATH, "TMPDIR": TMPDIR,
                     **(environment or {})}
        enter = ["nsenter", "-t", str(self.keepers[host][1]), "--net", "--uts", "--mount", "--pid", "--"]
        words = [f"{name}={value}" for name, value in variables.items()]
        if user == USER:
            enter += ["setpriv", "--reuid", USER_ID, "--regid", USER_ID, "--clear-groups"]
        return [*map(str, enter), "env", "-C", self.folder, "-i", *words, *map(str, command)]

    def run(self, host, *command, environment=None, timeout=120, check=False, user="root"):
        """The command on the host, as after a login and in the shared folder: subprocess.CompletedProcess with text output."""
        return subprocess.run(self._command(host, command, environment, user), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=timeout, check=check)

    def shell(self, host, words, **options):
        return self.run(host, "bash", "-c", words, check=True, **options).stdout

    def start(self, host, *command, log, environment=None, user="root"):
        """The same, but does not wait: subprocess.Popen, whose exit code is the command's; signals go to child(process)."""
        with open(log, "ab") as words:
            return subprocess.Popen(self._command(host, command, environment, user), stdin=subprocess.DEVNULL, stdout=words,
                                    stderr=words, start_new_session=True)

    @staticmethod
    def child(process):
        """The pid of what start() started: nsenter itself hands no signals on."""
        return int(pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])

    def processes(self, host):
        """[(pid, name, MPI rank or None)] of the host but for its process 1, zombies left out."""
        keeper = self.keepers[host][1]
        namespace = os.readlink(f"/proc/{keeper}/ns/pid")
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if int(entry.name) == keeper or os.readlink(entry / "ns/pid") != namespace:
                    continue
                if not has_live_thread(entry):
                    continue
                rank = re.search(rb"\0(?:OMPI_COMM_WORLD_RANK|SLURM_PROCID)=(\d+)", environment_of(entry))
                found.append((int(entry.name), (entry / "comm").read_text().strip(), int(rank[1]) if rank else None))
            except OSError:
                pass  # it has ended
        return found

    def pids(self, host, name, rank=None):
        return [pid for pid, comm, r in self.processes(host) if comm == name and rank in (None, r)]

    def left(self, names=("vqlm", "mpirun", "orted", "ssh", "srun")):
        """What still runs of a job: [(host, pid, name)]."""
        return [(host, pid, name) for host in self.hosts for pid, name, _ in self.processes(host) if name in names]

    def cut(self, host):
        """Takes the host's cable out of the switch: packets vanish, no connection is reset."""
        self._in_switch(f"ip link set port-{host} nomaster")

    def mend(self, host):
        self._in_switch(f"ip link set port-{host} master {'relay-' + host if host in self.relays else 'br0'}")
        for other in self.hosts:
            self.shell(other, "ip neigh flush all")  # they have learnt that nobody answers
        wait_until(lambda: self.answers(host), f"{host}: back")
