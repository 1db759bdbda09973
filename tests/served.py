"""Processes that are forked from a server which has loaded the libraries.

Loading them takes seconds, is not what is tested, and would be most of what the tests do. The server has no threads
and no locks that a process could inherit. There is one for all tests of a process: whoever names other modules to load
takes these away from everybody. What is in the environment when the server starts is in that of its processes.
"""

import multiprocessing

SERVED = multiprocessing.get_context("forkserver")
SERVED.set_forkserver_preload(["tests.served", "tests.served_libraries"])
