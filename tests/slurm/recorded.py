"""Output of Slurm 22.05.8 on a development cluster of three nodes, cut to the lines that differ."""

CONFIG = """\
Configuration data as of 2026-11-23T01:39:03
AccountingStorageBackupHost = (null)
AccountingStorageEnforce = none
AccountingStorageType   = accounting_storage/slurmdbd
ClusterName             = devcluster
MaxArraySize            = 1001
MaxJobCount             = 10000
PowerPlugin             = 
SchedulerParameters     = sched_interval=2,sched_min_interval=0,bf_interval=2
SlurmctldHost[0]        = devcluster(127.0.0.1)
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at devcluster is UP
"""  # noqa: W291

PARTITIONS = """\
PartitionName=main AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A DefaultTime=NONE \
DisableRootJobs=NO ExclusiveUser=NO GraceTime=20 Hidden=NO MaxNodes=UNLIMITED MaxTime=UNLIMITED MinNodes=0 LLN=NO \
MaxCPUsPerNode=UNLIMITED Nodes=n[1-3] PriorityJobFactor=1 PriorityTier=10 RootOnly=NO ReqResv=NO OverSubscribe=NO \
OverTimeLimit=NONE PreemptMode=REQUEUE State=UP TotalCPUs=12 TotalNodes=3 SelectTypeParameters=NONE JobDefaults=(null) \
DefMemPerCPU=500 MaxMemPerNode=UNLIMITED TRES=cpu=12,mem=12000M,node=3,billing=12,gres/gpu=6
PartitionName=high AllowGroups=ALL AllowAccounts=foo,bar AllowQos=normal AllocNodes=ALL Default=NO QoS=N/A \
DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=2 MaxTime=01:00:00 MinNodes=0 \
LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=n[1-3] PriorityJobFactor=1 PriorityTier=100 RootOnly=NO ReqResv=NO \
OverSubscribe=NO OverTimeLimit=NONE PreemptMode=OFF State=DOWN TotalCPUs=12 TotalNodes=3 SelectTypeParameters=NONE \
JobDefaults=(null) DefMemPerCPU=500 MaxMemPerNode=UNLIMITED TRES=cpu=12,mem=12000M,node=3,billing=12,gres/gpu=6
PartitionName=small AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=NO QoS=N/A DefaultTime=NONE \
DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=1 MaxTime=00:10:00 MinNodes=0 LLN=NO \
MaxCPUsPerNode=UNLIMITED Nodes=n1 PriorityJobFactor=1 PriorityTier=10 RootOnly=NO ReqResv=NO OverSubscribe=NO \
OverTimeLimit=NONE PreemptMode=OFF State=UP TotalCPUs=4 TotalNodes=1 SelectTypeParameters=NONE JobDefaults=(null) \
DefMemPerCPU=500 MaxMemPerNode=UNLIMITED TRES=cpu=4,mem=4000M,node=1,billing=4,gres/gpu=2
"""

NODES = """\
main|2|4|4000|gpu:fake:2|emulated
main|1|4|4000|gpu:fake:2|emulated,big
high|2|4|4000|gpu:fake:2|emulated
high|1|4|4000|gpu:fake:2|emulated,big
small|1|4|4000|gpu:fake:2|emulated
"""

ASSOCIATIONS = """\
root|vision||normal||40
root|nlp||long,normal||40
root|root||normal||
"""

QUALITIES = """\
normal|||
long|30||2-00:00:00
"""

SACCT = """\
1|COMPLETED|0:0|None|n1|0|2026-11-23T01:38:49|done
2|FAILED|7:0|None|n1|0|2026-11-23T01:38:49|fails
3|FAILED|0:9|None|n1|1|2026-11-23T01:38:50|memory
5|PENDING|0:0|JobHeldUser|None assigned|0|Unknown|held
8|PENDING|0:0|PartitionNodeLimit|None assigned|0|Unknown|large
10|CANCELLED by 0|0:0|None|n1|4|2026-11-23T01:38:53|cancelled
12|RUNNING|0:0|None|n1|114|Unknown|odd | name
14|TIMEOUT|0:0|None|n1|85|2026-11-23T01:40:16|limit
4_0|COMPLETED|0:0|None|n2|0|2026-11-23T01:38:49|array
4_1|COMPLETED|0:0|None|n3|0|2026-11-23T01:38:49|array
4_2|COMPLETED|0:0|JobArrayTaskLimit|n3|0|2026-11-23T01:38:49|array
4_3|RUNNING|0:0|JobArrayTaskLimit|n2|115|Unknown|array
4_4|RUNNING|0:0|JobArrayTaskLimit|n3|114|Unknown|array
4_[5-9%2]|PENDING|0:0|JobArrayTaskLimit|None assigned|0|Unknown|array
15_[1,5,9,100,103,106,109,112,115,118,121,124,127,130,300,302]|PENDING|0:0|JobHeldUser|None assigned|0|Unknown|sparse
13|RUNNING|0:0|BeginTime|n1|104|Unknown|again
"""

SQUEUE = """\
10|CANCELLED|15|None|n1|0:04|0|cancelled
1|COMPLETED|0|None|n1|0:00|0|done
4_0|COMPLETED|0|None|n2|0:00|0|array
4_1|COMPLETED|0|None|n3|0:00|0|array
4_2|COMPLETED|0|None|n3|0:00|0|array
2|FAILED|1792|NonZeroExitCode|n1|0:00|0|fails
3|FAILED|9|JobLaunchFailure|n1|0:01|0|memory
4_[5-9%2]|PENDING|0|JobArrayTaskLimit||0:00|0|array
8|PENDING|0|PartitionNodeLimit||0:00|0|large
15_[1,5,9,100,103,106,109,112,115,118,121,124,127,130,300,302]|PENDING|0|JobHeldUser||0:00|0|sparse
5|PENDING|0|JobHeldUser||0:00|0|held
4_4|RUNNING|0|None|n3|1:54|0|array
4_3|RUNNING|0|None|n2|1:55|0|array
12|RUNNING|0|None|n1|1:54|0|odd | name
13|RUNNING|0|None|n1|1:44|1|again
14|TIMEOUT|15|TimeLimit|n1|1:25|0|limit
"""

SACCT_OF_A_LOST_NODE = """\
19|NODE_FAIL|0:0|None|n3|33|2026-11-23T01:20:59|nf
20|PREEMPTED|0:0|None|n2|33|2026-11-23T01:20:59|pre
"""
"""The moment after a node was lost: the controller had both jobs queued again already."""
