"""Bounds and proofs: relaxation, branch and bound, enumeration, mixed-integer programs."""
