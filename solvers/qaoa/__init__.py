"""QAOA on a block: one gate list, rendered for Qiskit and Braket, and exact simulators of it.

Conventions shared by every module here:

* a layer is ``exp(-i beta M) exp(-i gamma C)`` with the cost ``C = diag(E(x))``;
* the start is the ground state of ``M`` (X, complete graph, Grover), so an annealing-like schedule
  has positive angles: ``M = -sum X_i``, ``-1/2 sum (X_i X_j + Y_i Y_j)`` or ``-|D><D|``;
* qubit ``i`` is variable ``i``, and ``|1>`` is ``x_i = 1``, so ``Z_i = 1 - 2 x_i``;
* the index of a basis state in a dense vector is ``sum_i x_i 2^i``.

The SDKs are imported by `solvers.qaoa.qiskit` and `solvers.qaoa.braket` only.
"""
