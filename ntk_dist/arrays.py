"""Types of arrays, defined once for all packages."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
"""An array in float64, in which everything after the Jacobian is computed."""

IntArray = npt.NDArray[np.integer]
"""An array of whole numbers."""
