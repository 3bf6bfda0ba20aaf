"""Projections on the positive semidefinite matrices of a subspace.

The subspace is that of the y = (1, x) with ``v_g'y = 0``. Coordinates u with ``y = W u`` would cost
two products of full matrices each way. But W can be chosen so that it is a diagonal matrix times

    I - Y T Y'

without its first columns, Y as narrow as there are groups, plus 2: then everything but the
eigendecomposition takes O(n^2) operations for each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, block_diag, qr
from scipy.linalg.lapack import sormqr, sstevd, ssytrd

Matrix = NDArray[Any]
# Columns that LAPACK reduces at a time.
BLOCK = 64


@dataclass(frozen=True)
class Coordinates:
    """``W = diag(scales) (I - Y T Y')`` without its first columns.

    Attributes:
        scales: shape (n,).
        Y: shape (n, r).
        T: shape (r, r).
        dropped: the number of those columns.
    """

    scales: Matrix
    Y: Matrix
    T: Matrix
    dropped: int

    def astype(self, kind: Any) -> Coordinates:
        """The same in another precision."""
        arrays = (self.scales.astype(kind), self.Y.astype(kind), self.T.astype(kind))
        return Coordinates(*arrays, self.dropped)

    def inner(self, A: Matrix) -> Matrix:
        """``W'AW`` of the symmetric part of A, shape (n, n)."""
        B = A + A.T
        B *= 0.5 * self.scales
        B *= self.scales[:, None]
        Z = B @ self.Y @ self.T
        Z -= 0.5 * self.Y @ (self.T.T @ (self.Y.T @ Z))
        change = Z[self.dropped :] @ self.Y[self.dropped :].T
        S = B[self.dropped :, self.dropped :]
        S -= change
        S -= change.T
        return S

    def points(self, u: Matrix) -> Matrix:
        """``W u`` for u of shape (n - dropped, p)."""
        y = np.empty((len(self.scales), u.shape[1]), u.dtype)
        y[: self.dropped] = 0
        y[self.dropped :] = u
        y -= self.Y @ (self.T @ (self.Y[self.dropped :].T @ u))
        y *= self.scales[:, None]
        return y


def orthonormal(normal: Matrix) -> Coordinates:
    """Coordinates with ``W'W = I`` of the vectors orthogonal to orthonormal ones.

    The block reflector ``I - X C X'`` takes the first unit vectors to the normal ones: with N their
    matrix, ``U s Q'`` the singular value decomposition of its upper square, X is
    ``N QU' + (first unit vectors)``, and C the inverse of ``I + U s U'`` (Schreiber and Parlett
    1988).

    Args:
        normal: N, shape (n, r).
    """
    n, r = normal.shape
    U, s, Qt = np.linalg.svd(normal[:r])
    X = normal @ (Qt.T @ U.T)
    X[np.arange(r), np.arange(r)] += 1
    return Coordinates(np.ones(n), X, (U / (1 + s)) @ U.T, r)


def weighted(constraints: Matrix, d: Matrix) -> Coordinates:
    """Coordinates u of the y with ``v_g'y = 0``, such that ``(y_0, d x, y_0 - x)`` is as long as u.

    Its length squared is ``y'(P^-2 - e 1' - 1 e')y``, P diagonal, e the first unit vector, 1 the
    ones at x. So ``y = P J z`` with a J that is I but for the plane of e and P1.

    Args:
        constraints: v_g, shape (groups, n + 1).
        d: shape (n,), positive.
    """
    scales = 1 / np.sqrt(np.concatenate([[len(d) + 1.0], d**2 + 1]))
    first, ones = np.zeros(len(scales)), scales.copy()
    first[0], ones[0] = 1, 0
    length = float(np.linalg.norm(ones))
    s = length * scales[0]
    Q = np.column_stack([first + ones / length, first - ones / length]) * np.sqrt(0.5)
    K = np.diag([1 - 1 / np.sqrt(1 - s), 1 - 1 / np.sqrt(1 + s)])
    normal = scales[:, None] * constraints.T
    rest = orthonormal(qr(normal - Q @ (K @ (Q.T @ normal)), mode="economic")[0])
    T = block_diag(K, rest.T)
    T[:2, 2:] = -K @ (Q.T @ rest.Y) @ rest.T
    return Coordinates(scales, np.column_stack([Q, rest.Y]), T, rest.dropped)


def positive_part(S: Matrix) -> tuple[Matrix, Matrix]:
    """The positive eigenvalues of a matrix in single precision, and their vectors.

    Vectors of the others, which the projection has no use for, stay in the basis in which S is
    tridiagonal.

    Args:
        S: symmetric; its lower triangle is read.

    Returns:
        Eigenvalues, ascending, shape (r,); their vectors, orthonormal, shape (n, r).

    Raises:
        LinAlgError: S is not finite.
    """
    n = len(S)
    if n == 1:
        return S[0, S[0] > 0], np.ones_like(S)[:, S[0] > 0]
    reduced, diagonal, beside, tau, _ = ssytrd(S, lower=1, lwork=BLOCK * n)
    values, vectors, failed = sstevd(diagonal, beside)
    if failed:
        raise LinAlgError(f"eigenvalues of a matrix of order {n} did not converge")
    positive = int(np.searchsorted(values, 0.0, side="right"))
    values, vectors = values[positive:], vectors[:, positive:]
    if len(values):
        lower = vectors[1:]
        vectors[1:] = sormqr("L", "N", reduced[1:, :-1], tau, lower, BLOCK * n)[0]
    return values, vectors
