"""Coordinates of a subspace, and projections in them, against dense linear algebra."""

import numpy as np
import pytest
from scipy.linalg import qr

from solvers.exact.projection import orthonormal, positive_part, weighted


def constraints(rng, m, groups):
    labels = np.arange(m) % groups
    members = labels == np.arange(groups)[:, None]
    counts = [rng.integers(0, row.sum() + 1) for row in members]
    return np.column_stack([counts, -members.astype(float)])


@pytest.mark.parametrize(("m", "groups"), [(1, 1), (5, 1), (6, 6), (9, 3), (40, 1), (40, 10)])
def test_coordinates_span_the_subspace(m, groups):
    rng = np.random.default_rng(m)
    v = constraints(rng, m, groups)
    d = 10 ** rng.uniform(-1.4, 2.1, m)
    lift = np.vstack([np.eye(m + 1), np.eye(m + 1)[:1] - np.eye(m + 1)[1:]])
    lift[1 : m + 1] *= d[:, None]
    A = rng.normal(size=(m + 1, m + 1))
    made = (weighted(v, d), lift), (orthonormal(qr(v.T, mode="economic")[0]), np.eye(m + 1))
    for coordinates, norm in made:
        W = coordinates.points(np.eye(m + 1 - groups))
        np.testing.assert_allclose(v @ W, 0, atol=1e-12)
        np.testing.assert_allclose((norm @ W).T @ (norm @ W), np.eye(len(W.T)), atol=1e-12)
        np.testing.assert_allclose(coordinates.inner(A), W.T @ (A + A.T) @ W / 2, atol=1e-12)
        single = coordinates.astype(np.float32)
        assert single.inner(A.astype(np.float32)).dtype == np.float32
        np.testing.assert_allclose(single.points(np.eye(len(W.T), dtype=np.float32)), W, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 17, 70])
@pytest.mark.parametrize("sign", [-1, 0, 1])
def test_positive_part(n, sign):
    """Mixed signs, and none or all of them positive."""
    rng = np.random.default_rng(n)
    root = rng.normal(size=(n, n))
    S = sign * root @ root.T if sign else root + root.T
    kept = S.astype(np.float32)
    values, vectors = positive_part(kept)
    np.testing.assert_array_equal(kept, S.astype(np.float32))
    assert len(values) == vectors.shape[1] == (0 if sign < 0 else n if sign else len(values))
    w, U = np.linalg.eigh(S)
    expected = (U * np.maximum(w, 0)) @ U.T
    scale = np.abs(w).max()
    np.testing.assert_allclose((vectors * values) @ vectors.T, expected, atol=2e-5 * scale)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(values)), atol=1e-5)
