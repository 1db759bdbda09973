"""The first process of a cluster's namespaces: sets them up, then waits for ended processes.

Run as a script by the interpreter alone, since the package need not be reachable there:
init.py FOLDER INSIDE HOST ADDRESS. Says "ready" on stdout when the namespaces can be entered.
"""

import os
import signal
import socket
import subprocess
import sys


def main(folder: str, inside: str, host: str, address: str) -> None:
    """Set up the namespaces' own mounts, network and host name, then wait for children forever."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    socket.sethostname(host)
    _call("ip", "link", "set", "lo", "up")
    _call("ip", "address", "add", f"{address}/32", "dev", "lo")
    _call("mount", "--bind", f"{folder}/etc/hosts", "/etc/hosts")
    _call("mount", "--bind", folder, inside)
    print("ready", flush=True)
    os.close(sys.stdout.fileno())
    os.chdir("/")
    while True:
        # Daemons and jobs leave their parents and become children of this process.
        while _bury():
            pass
        signal.sigwait({signal.SIGCHLD})


def _call(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _bury() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


if __name__ == "__main__":
    main(*sys.argv[1:])
