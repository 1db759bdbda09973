"""The number of allocations that one submission may hold."""

from slurm.errors import SubmissionLimitError


def array_sizes(count: int, *, max_array_size: int, free_submissions: int | None) -> list[int]:
    """Return the sizes of the job arrays that hold `count` allocations together; an array of one is a plain job.

    If the user may queue fewer than `count`, the sizes hold that many: the allocations that there are do all the work.

    Args:
        count: allocations wanted, at least 1.
        max_array_size: most tasks that the cluster lets an array have; 0 or 1 where there are no arrays.
        free_submissions: how many more jobs the user may queue, each task of an array counting as one; None for any.

    Raises:
        SubmissionLimitError: the user may queue no further job.
    """
    allowed = count if free_submissions is None else min(count, free_submissions)
    if allowed < 1:
        raise SubmissionLimitError(
            "you have as many jobs queued as this cluster lets you have; wait until some have ended, or cancel some "
            "with `scancel`"
        )
    largest = max(1, max_array_size)
    whole, rest = divmod(allowed, largest)
    return [largest] * whole + ([rest] if rest else [])
