"""Processor time of the tests, file by file, with that of every process which they start: a plugin of pytest.

    make test PYTEST_OPTIONS="-p benchmarks.suite_processor_time"

Wall time says little where tests wait for a cluster, or run beside other work. The first file of each process of pytest
has what loading the libraries and the tests takes. Needs Linux and root: each of these processes joins a control group
of its own, where the kernel counts the time of all processes below it, also of daemons and of orphans.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOTS = {Path("/sys/fs/cgroup/cpuacct"): "cpuacct.usage", Path("/sys/fs/cgroup"): "cpu.stat"}
"""Where control groups are made, of the first version or of the second, and the file that has their time."""

MOST_FILES = 40


class ProcessorTime:
    """The processor time of this process's control group, in seconds since the last look."""

    def __init__(self) -> None:
        root = next(root for root, name in ROOTS.items() if (root / "cgroup.procs").is_file())
        group = root / f"tests-{os.getpid()}"
        group.mkdir()
        (group / "cgroup.procs").write_text(str(os.getpid()))
        self._file = group / ROOTS[root]
        self._seen = 0.0

    def since(self) -> float:
        """Return the seconds since this was asked last."""
        words = self._file.read_text().split()
        before, self._seen = self._seen, int(words[0]) / 1e9 if len(words) == 1 else int(words[1]) / 1e6
        return self._seen - before


class Plugin:
    """Counts the processor time of each phase of a test, and shows it by file where the results are shown."""

    def __init__(self) -> None:
        self._time = ProcessorTime()
        self._of_files = Counter[str]()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Iterator[None]:
        report = yield
        report.processor_seconds = self._time.since()
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._of_files[report.nodeid.partition("::")[0]] += report.__dict__.get("processor_seconds", 0.0)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("processor seconds")
        terminalreporter.write_line(f"| all tests | {self._of_files.total():,.0f} |")
        for file, seconds in self._of_files.most_common(MOST_FILES):
            terminalreporter.write_line(f"| `{file.removeprefix('tests/')}` | {seconds:.0f} |")


def pytest_configure(config: pytest.Config) -> None:
    """Have the plugin in every process of the run."""
    config.pluginmanager.register(Plugin())
