"""Feature rows Phi whose products are the kernels, made from Jacobian rows."""

from typing import Literal

import numpy as np
import numpy.typing as npt

KernelKind = Literal["sgd", "sign", "asymmetric_sign"]
OutputMode = Literal["full", "trace", "margin"]
KindSide = Literal["raw", "sign"]
FloatDType = type[np.float32] | type[np.float64]


def features(
    rows: npt.NDArray[np.floating], *, kind_side: KindSide, outputs_per_example: int, dtype: FloatDType
) -> npt.NDArray[np.floating]:
    """Return Phi (m, R*p) of Jacobian rows (m*R, p), as a new array of `dtype`.

    The rows are example-major and R is `outputs_per_example`: 1 leaves every row a feature row (full and
    margin kernels); C gives the trace-averaged kernel, (1/C) sum_c J_c J_c^T = Phi Phi^T with
    Phi = rows reshaped to (m, C*p) / sqrt(C). The sign is taken entry by entry before that, with sign(0) = 0.

    Raises ValueError if the rows are not a multiple of R.
    """
    copied: npt.NDArray[np.floating] = np.array(rows, dtype=dtype, order="C")
    return made_features(copied, kind_side=kind_side, outputs_per_example=outputs_per_example)


def made_features(
    rows: npt.NDArray[np.floating], *, kind_side: KindSide, outputs_per_example: int
) -> npt.NDArray[np.floating]:
    """Return Phi as `features` does, in the memory of C-ordered rows, which are lost.

    Raises ValueError as `features` does.
    """
    n_rows, p = rows.shape
    if n_rows % outputs_per_example:
        raise ValueError(f"{n_rows} rows do not hold whole examples of {outputs_per_example} outputs each")
    if kind_side == "sign":
        np.sign(rows, out=rows)
    if outputs_per_example > 1:
        np.divide(rows, rows.dtype.type(np.sqrt(outputs_per_example)), out=rows)
    return rows.reshape(n_rows // outputs_per_example, outputs_per_example * p)
