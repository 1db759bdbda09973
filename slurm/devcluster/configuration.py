"""The configuration of a development cluster as texts; nothing here touches the machine.

Inside the cluster's namespaces its folder is always at `INSIDE`, whatever it is called outside: every user reaches it
there, also when the folder lies in a home directory that others may not enter.
"""

from pathlib import Path

from slurm.devcluster.settings import ClusterSettings

INSIDE = Path("/var/lib/slurm")
"""Path of the cluster's folder as its processes see it; Slurm's packages create this path."""

HOST = "devcluster"
"""Name of the machine inside the cluster."""

HOST_ADDRESS = "10.99.0.1"
"""Address outside of loopback, without which no name resolves (getaddrinfo's AI_ADDRCONFIG)."""

GPU_TYPE = "fake"
MUNGE_SOCKET = INSIDE / "munge/munge.socket.2"
DATABASE_SOCKET = INSIDE / "database/mariadb.sock"
DATABASE_PORT = 13306
_CONTROLLER_PORT = 16817
_ACCOUNTING_PORT = 16819
_FIRST_NODE_PORT = 17001


def slurm_conf(settings: ClusterSettings) -> str:
    """Return slurm.conf: nodes on addresses of their own, and partitions to try limits and preemption on."""
    last = settings.nodes
    gpus = f" Gres=gpu:{GPU_TYPE}:{settings.gpus}" if settings.gpus else ""
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={HOST} NodeAddr={_node_address(number)} Port={_FIRST_NODE_PORT + number}"
        f" CPUs={settings.cpus} RealMemory={settings.memory_mb}{gpus} Feature=emulated State=UNKNOWN"
        for number, name in enumerate(settings.node_names)
    )
    return f"""\
ClusterName={HOST}
SlurmctldHost={HOST}(127.0.0.1)
SlurmctldPort={_CONTROLLER_PORT}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job starts again only when its credential has expired.
AuthInfo=socket={MUNGE_SOCKET},cred_expire=5
MpiDefault=none
StateSaveLocation={INSIDE}/controller
SlurmdSpoolDir={INSIDE}/spool/%n
SlurmctldPidFile={INSIDE}/pid/slurmctld.pid
SlurmdPidFile={INSIDE}/pid/slurmd.%n.pid
SlurmctldLogFile={INSIDE}/log/slurmctld.log
SlurmdLogFile={INSIDE}/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,sched_min_interval=0,bf_interval=2,batch_sched_delay=0,default_queue_depth=1000
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
ReturnToService=2
# The nodes have what this file says, not what the machine has.
SlurmdParameters=config_overrides
SlurmctldTimeout=60
SlurmdTimeout=15
MessageTimeout=10
KillWait=5
MinJobAge=300
InactiveLimit=0
JobRequeue=1
MaxArraySize=1001
OverTimeLimit=0
JobCompType=jobcomp/none
{_gpu_lines(settings)}{_accounting_lines(settings)}{nodes}
PartitionName=main Nodes=n[1-{last}] Default=YES MaxTime=INFINITE DefMemPerCPU=500 State=UP PriorityTier=10 \
PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=n[1-{last}] MaxTime=INFINITE DefMemPerCPU=500 State=UP PriorityTier=100 PreemptMode=OFF
PartitionName=small Nodes=n1 MaxTime=10 MaxNodes=1 DefMemPerCPU=500 State=UP PriorityTier=10 PreemptMode=OFF
"""


def _gpu_lines(settings: ClusterSettings) -> str:
    return "GresTypes=gpu\n" if settings.gpus else ""


def _accounting_lines(settings: ClusterSettings) -> str:
    if not settings.accounting:
        return "AccountingStorageType=accounting_storage/none\n"
    resources = "AccountingStorageTRES=gres/gpu\n" if settings.gpus else ""
    # sacct and sacctmgr find munge by AccountingStoragePass alone, and hang without it.
    return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={_ACCOUNTING_PORT}
AccountingStoragePass={MUNGE_SOCKET}
AccountingStoreFlags=job_comment
{resources}"""


def gres_conf(settings: ClusterSettings) -> str:
    """Return gres.conf: the devices that stand for GPUs."""
    if not settings.gpus:
        return ""
    devices = f"{INSIDE}/dev/nvidia[0-{settings.gpus - 1}]"
    return f"NodeName=n[1-{settings.nodes}] Name=gpu Type={GPU_TYPE} File={devices}\n"


def slurmdbd_conf(password: str) -> str:
    """Return slurmdbd.conf for a database user `slurm` with this password."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={MUNGE_SOCKET}
DbdHost={HOST}
DbdAddr=127.0.0.1
DbdPort={_ACCOUNTING_PORT}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={DATABASE_PORT}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
LogFile={INSIDE}/log/slurmdbd.log
PidFile={INSIDE}/pid/slurmdbd.pid
DebugLevel=info
"""


def database_setup(password: str) -> str:
    """Return the statements that make slurmdbd's database and its user."""
    return f"""\
create database slurm_acct_db;
create user slurm@'127.0.0.1' identified by '{password}';
create user slurm@localhost identified by '{password}';
grant all on slurm_acct_db.* to slurm@'127.0.0.1';
grant all on slurm_acct_db.* to slurm@localhost;
"""


def hosts(settings: ClusterSettings) -> str:
    """Return /etc/hosts of the cluster: programs that connect to a node by its name find it."""
    lines = ["127.0.0.1 localhost", f"{HOST_ADDRESS} {HOST}"]
    lines += [f"{_node_address(number)} {name}" for number, name in enumerate(settings.node_names)]
    return "\n".join(lines) + "\n"


def _node_address(number: int) -> str:
    return f"127.0.1.{number + 1}"
