"""No process is left behind by the one that started it."""

import subprocess
import sys
import time

import psutil

TREE = '''
import subprocess, sys
from slurm.ray.processes import adopt_orphans, kill_descendants
adopt_orphans()
# A child whose own child, in a session of its own and deaf to SIGTERM, outlives it.
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(1000)"
child = f"""
import subprocess, sys
deaf = subprocess.Popen(
    [sys.executable, "-c", {deaf!r}], start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
)
deaf.stdout.readline()
print(deaf.pid, flush=True)
"""
orphan = int(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout)
print(orphan, flush=True)
kill_descendants()
print("killed", flush=True)
'''

PARENT = """
import sys
from slurm.ray.processes import start_child
child = start_child([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(1000)"], {})
print(child.pid, flush=True)
child.wait()
"""


def test_orphans_in_sessions_of_their_own_are_killed_too() -> None:
    answer = subprocess.run([sys.executable, "-c", TREE], capture_output=True, text=True, check=True, timeout=60)
    orphan, killed = answer.stdout.split()
    assert killed == "killed"
    assert not psutil.pid_exists(int(orphan))


def test_a_child_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    said = {parent.stdout.readline().strip() for _ in range(2)}
    (child,) = (int(word) for word in said - {"up"})
    parent.kill()
    parent.wait()
    end = time.monotonic() + 30
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    code = "from slurm.ray.processes import die_with_parent; die_with_parent(1 << 22); print('alive')"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.stdout == ""
    assert answer.returncode == -15
