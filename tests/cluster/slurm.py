"""A real Slurm on the hosts of a Cluster: munge, a controller on the first host, a node daemon on each, 2 cores a node.

Partitions: main; low, whose jobs give way to main's after a grace time (GRACE_SECONDS)."""

import os
import pathlib
import re

from hosts import TMPDIR, wait_until

PROGRAMS = ("munged", "sbatch", "slurmctld", "slurmd")
GRACE_SECONDS = 60
# Nothing is asked of cgroups, but slurmd wants to find their folder, and must not find the machine's own.
CGROUP_CONF = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"
SLURM_CONF = """ClusterName=pretend
SlurmctldHost=h1
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
SlurmdTimeout=20
ReturnToService=2
TmpFS=/run/tmp
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={nodes} CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=1-0 State=UP PriorityTier=10 PreemptMode=off
PartitionName=low Nodes=ALL MaxTime=1-0 State=UP PriorityTier=1 PreemptMode=requeue GraceTime={grace}
"""


class Slurm:
    def __init__(self, cluster):
        self.cluster = cluster
        self.folder = cluster.folder / "slurm"
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        (self.folder / "state").mkdir(parents=True)
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o400)
        (self.folder / "cgroup.conf").write_text(CGROUP_CONF)
        conf = SLURM_CONF.format(folder=self.folder, nodes=",".join(cluster.hosts), grace=GRACE_SECONDS)
        (self.folder / "slurm.conf").write_text(conf)
        for host in cluster.hosts:
            cluster.shell(host, "mount -t tmpfs tmpfs /sys/fs/cgroup")
            cluster.run(host, "munged", "--force", f"--key-file={self.folder}/munge.key",
                        f"--log-file={self.folder}/munged.{host}.log",
                        "--seed-file=/run/munge/seed", "--pid-file=/run/munge/pid", "--socket=/run/munge/munge.socket.2", check=True)
        cluster.run("h1", "slurmctld", "-c", environment=self.environment, check=True)
        for host in cluster.hosts:
            self.start_node(host)
        self.wait_for_nodes()

    def start_node(self, host):
        # A node boots without what the daemons of its life before have left: they would refuse to start the same step again.
        self.cluster.shell(host, f"rm -rf {self.folder}/spool.{host} {TMPDIR}/*")
        self.cluster.run(host, "slurmd", "-c", "-N", host, environment=self.environment, check=True)

    def wait_for_nodes(self):
        all_idle = f"idle {len(self.cluster.hosts)}\n"
        wait_until(lambda: self.run("sinfo", "-h", "-p", "main", "-o", "%T %D") == all_idle, "idle nodes", seconds=120)

    def run(self, *command, environment=None):
        """A command of Slurm on the first host: its output."""
        result = self.cluster.run("h1", *command, environment={**self.environment, **(environment or {})})
        if result.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, command))}: {result.stderr}")
        return result.stdout

    def submit(self, *options, environment=None):
        """sbatch's job id."""
        return int(re.search(r"\d+", self.run("sbatch", "--parsable", *options, environment=environment))[0])

    def job(self, number):
        """What scontrol shows of a job: {"JobState": ...}."""
        return dict(word.split("=", 1) for word in self.run("scontrol", "show", "job", "-o", number).split() if "=" in word)

    def start_now(self, number):
        """A job that is back in the queue waits for two minutes otherwise, so that the last news of its first life have come: a
        "completed" would be taken for the second's."""
        wait_until(lambda: self.job(number)["JobState"] == "PENDING", f"job {number} in the queue")
        wait_until(lambda: not any(self.cluster.pids(host, "slurmstepd") for host in self.cluster.hosts), f"the end of job {number}")
        self.run("scontrol", "update", f"JobId={number}", "StartTime=now")

    def log(self, number):
        path = pathlib.Path(self.cluster.folder / f"vqlm-{number}.log")
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
