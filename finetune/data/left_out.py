"""Rows of the data that are no examples because the task leaves them out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LeftOut:
    """Numbers of rows that a task leaves out, in all splits that it reads.

    Attributes:
        labels: rows whose label is given null, by its name, which is empty for rows without a label.
        blank: other rows without a text (`task.skip_blank_texts`).
        repeated: further rows with a text that another one has (`task.distinct_texts`).
    """

    labels: tuple[tuple[str, int], ...] = ()
    blank: int = 0
    repeated: int = 0
