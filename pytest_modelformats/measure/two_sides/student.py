"""Student's t distribution, which the pytest process needs without SciPy.

Source: the regularised incomplete beta function by its continued fraction, Abramowitz & Stegun (1964) 26.5.8 and
26.7.1, evaluated by Lentz's method (Press et al., "Numerical Recipes", 6.4). Within 1e-10 of SciPy's.
"""

from __future__ import annotations

import math

__all__ = ["quantile", "upper_tail"]

_TINY = 1e-300
_ENOUGH = 1e-15
_STEPS = 300
_HALVINGS = 200


def upper_tail(t: float, freedom: float) -> float:
    """P(T > t) for ``freedom`` degrees of freedom, which need not be a whole number."""
    if math.isnan(t):
        return math.nan
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    both = _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))
    return both / 2 if t >= 0 else 1 - both / 2


def quantile(share: float, freedom: float) -> float:
    """The t below which ``share`` (at least one half) of the distribution lies."""
    low, high = 0.0, 1.0
    while upper_tail(high, freedom) > 1 - share:
        high *= 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        if upper_tail(middle, freedom) > 1 - share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d or _TINY)
    found = d
    for m in range(1, _STEPS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + term * d) or _TINY)
            c = (1 + term / c) or _TINY
            found *= d * c
        if abs(d * c - 1) < _ENOUGH:
            break
    return found
