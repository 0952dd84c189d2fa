"""P-wave speeds of the Preliminary Reference Earth Model, isotropic.

Dziewonski, A. M. and Anderson, D. L. (1981), Preliminary reference Earth model, Physics of the
Earth and Planetary Interiors 25, 297-356, table I.
"""

from typing import Any

import numpy as np

RADIUS = 6371.0  # km, of the Earth

# Outer radius of each shell in km, and the polynomial of Vp in km/s, lowest power first, in the
# radius divided by the Earth's. The ocean (3 km, 1.45 km/s) is replaced by the crust under it,
# as TauP does: seismometers stand on land, and no grid here resolves it.
SHELLS: tuple[tuple[float, tuple[float, ...]], ...] = (
    (1221.5, (11.2622, 0.0, -6.3640)),  # inner core
    (3480.0, (11.0487, -4.0362, 4.8023, -13.5732)),  # outer core
    (3630.0, (15.3891, -5.3181, 5.5242, -2.5514)),  # D"
    (5600.0, (24.9520, -40.4673, 51.4832, -26.6419)),  # lower mantle
    (5701.0, (29.2766, -23.6027, 5.5242, -2.5514)),
    (5771.0, (19.0957, -9.8672)),  # transition zone
    (5971.0, (39.7027, -32.6166)),
    (6151.0, (20.3926, -12.2569)),
    (6346.6, (4.1875, 3.9382)),  # low-velocity zone and lid
    (6356.0, (6.8,)),  # lower crust
    (RADIUS, (5.8,)),  # upper crust
)


def speed(radius: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return Vp in km/s at each radius in km: 0 outside the Earth, on a boundary the inner one.

    >>> speed(np.array([0.0, 3480.0, 6371.0, 6400.0])).round(3).tolist()
    [11.262, 8.065, 5.8, 0.0]
    """
    shell = np.searchsorted([outer for outer, _ in SHELLS], radius)
    answer = np.zeros_like(radius)
    for k, (_, coefficients) in enumerate(SHELLS):
        inside = shell == k
        answer[inside] = np.polynomial.polynomial.polyval(radius[inside] / RADIUS, coefficients)
    return answer
