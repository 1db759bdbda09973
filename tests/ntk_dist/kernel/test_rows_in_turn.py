"""Rows of a batch are waited for once the next batch has begun, and come in the order of their batches."""

from collections.abc import Iterator

import pytest
import torch

from ntk_dist.jacobian.row_sums import RowsToCome, in_turn


class Away(RowsToCome):
    """Rows that are elsewhere, and note when they are waited for."""

    def __init__(self, number: int, noted: list[str], there: bool) -> None:
        super().__init__([])
        self.number, self.noted, self._there = number, noted, there

    @property
    def there(self) -> bool:
        return self._there

    def wait(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        self.noted.append(f"wait {self.number}")
        return torch.tensor(self.number), {}


def begun(noted: list[str], there: bool) -> Iterator[RowsToCome]:
    for number in range(3):
        noted.append(f"begin {number}")
        yield Away(number, noted, there)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (False, "begin 0, begin 1, wait 0, begin 2, wait 1, wait 2"),
        (True, "begin 0, wait 0, begin 1, wait 1, begin 2, wait 2"),
    ],
)
def test_a_batch_begins_before_the_rows_of_the_last_are_waited_for_unless_they_are_there(there: bool, expected: str):
    noted: list[str] = []
    assert [int(scores) for scores, _ in in_turn(begun(noted, there))] == [0, 1, 2]
    assert ", ".join(noted) == expected
