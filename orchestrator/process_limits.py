"""Limits that the system sets a process: what to say of one that was met."""

import resource


def too_little_memory() -> str:
    """Return that there is too little memory, and what to do."""
    return (
        "there is too little memory for this command: its process may have "
        f"{_limit(resource.RLIMIT_AS, 'bytes')} of address space; raise that (`ulimit -v`) if it is little, or end "
        "other programs, and run the same command again"
    )


def no_more_threads() -> str:
    """Return that no further thread or process can be started, and what to do."""
    return (
        f"no further process or thread can be started: you may have {_limit(resource.RLIMIT_NPROC)} on this "
        "machine; raise that (`ulimit -u`), or end other programs, and run the same command again"
    )


def _limit(of: int, what: str = "") -> str:
    limit = resource.getrlimit(of)[0]
    number = "any number" if limit == resource.RLIM_INFINITY else f"{limit:,}"
    return f"{number} of {what}".replace(" of bytes", " bytes") if what else number
