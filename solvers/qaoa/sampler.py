"""What the QAOA samplers of all gate-model SDKs share: model in, circuit, shots, sample set out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import dimod
import numpy as np
from numpy.typing import NDArray

from solvers.arguments import whole
from solvers.base import Timing
from solvers.bqm.convert import check_model
from solvers.errors import ParameterError
from solvers.qaoa.angles import Angles, checked_depth, linear_ramp
from solvers.qaoa.circuit.ansatz import Ising, parameter_values, x_ansatz
from solvers.qaoa.circuit.gates import Circuit

DEFAULT_READS = 1000
DEFAULT_DEPTH = 4
DEFAULT_MAX_QUBITS = 12


class GateModelQAOASampler(dimod.Sampler):
    """X-mixer QAOA on any binary quadratic model, one read a shot.

    A subclass compiles a `Circuit` and runs it; see `_prepared` and `_shots`.

    Args:
        max_qubits: largest model it takes.

    Raises:
        ParameterError: a `max_qubits` that is not a whole number from 1.
    """

    backend: ClassVar[str]
    warm_up_by_size: ClassVar[bool] = True

    def __init__(self, max_qubits: int = DEFAULT_MAX_QUBITS) -> None:
        self.max_qubits = whole("max_qubits", max_qubits, 1)

    @property
    def parameters(self) -> dict[str, list[str]]:
        """Keywords of `sample`, as dimod wants them."""
        return {"num_reads": [], "seed": [], "depth": [], "angles": []}

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Refuses values of ``depth`` and ``angles`` that no model can have."""
        _check_angles(parameters.get("angles"), parameters.get("depth"))

    @property
    def properties(self) -> dict[str, Any]:
        """Backend name and size limit; a variable is a qubit."""
        return {
            "backend": self.backend,
            "max_qubits": self.max_qubits,
            "max_variables": self.max_qubits,
        }

    @abstractmethod
    def _prepared(self, circuit: Circuit, values: NDArray[np.float64]) -> Any:
        """What the backend runs: compiled, with these parameter values, every qubit measured."""

    @abstractmethod
    def _shots(self, prepared: Any, reads: int, seed: int) -> NDArray[np.int8]:
        """Runs it; shape (reads, n), column i is qubit i."""

    def run(
        self,
        circuit: Circuit,
        values: NDArray[np.float64],
        reads: int,
        seed: int,
        timing: Timing,
    ) -> NDArray[np.int8]:
        """Compiles and measures any gate list, for solvers with a circuit of their own.

        Args:
            circuit: n qubits.
            values: one number a parameter.
            reads: shots.
            seed: of the shots.
            timing: gets the seconds of ``preprocess`` and ``execute`` added.

        Returns:
            Shape (reads, n), column i is qubit i.
        """
        with timing.stage("preprocess"):
            prepared = self._prepared(circuit, values)
        with timing.stage("execute"):
            return self._shots(prepared, reads, seed)

    def sample(
        self,
        bqm: dimod.BinaryQuadraticModel,
        *,
        num_reads: int | None = None,
        seed: int | None = None,
        depth: int | None = None,
        angles: Angles | None = None,
        **parameters: Any,
    ) -> dimod.SampleSet:
        """Measure the circuit's final state.

        Args:
            bqm: any vartype and labels, at most `max_qubits` variables.
            num_reads: shots, >= 1; 1000 by default.
            seed: whole number from 0; the same seed gives the same samples.
            depth: layers p >= 1; 4 by default, or that of `angles`.
            angles: explicit angles, in 1 / energy of the model; a linear ramp scaled by the
                standard deviation of the energy over all states when None.
            **parameters: refused.

        Returns:
            One row a shot. ``info`` has ``timing`` (seconds: ``preprocess`` is model to compiled
            circuit, ``execute`` the backend's run, ``postprocess`` shots to samples), ``depth``,
            ``gammas``, ``betas``, ``angles`` (label), ``training_seconds``, ``gates``,
            ``two_qubit_gates`` and ``two_qubit_depth`` of the gate list, ``backend`` and ``seed``.

        Raises:
            ParameterError: an unknown keyword or a value out of range.
            BinaryQuadraticModelSizeError: more variables than qubits.
        """
        if parameters:
            known = ", ".join(self.parameters)
            name = min(parameters)
            raise ParameterError(
                f"{type(self).__name__} has no parameter {name!r} (it has {known})"
            )
        check_model(bqm)
        reads = whole("num_reads", DEFAULT_READS if num_reads is None else num_reads, 1)
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        seed = whole("seed", seed, 0)
        self._check_size(bqm.num_variables)
        timing = Timing()
        if not bqm.num_variables:
            rows = np.empty((reads, 0), np.int8)
            return dimod.SampleSet.from_samples_bqm((rows, []), bqm, info={"timing": dict(timing)})
        with timing.stage("preprocess"):
            ising = Ising.from_bqm(bqm)
            angles = _angles(angles, depth, ising)
            circuit = x_ansatz(ising.n, ising.edges, angles.depth)
            values = parameter_values(ising, angles)
        rows = self.run(circuit, values, reads, seed, timing)
        with timing.stage("postprocess"):
            if bqm.vartype is dimod.SPIN:
                rows = 2 * rows - 1
            samples = dimod.SampleSet.from_samples_bqm((rows, list(bqm.variables)), bqm)
        samples.info.update(
            timing=dict(timing), backend=self.backend, seed=seed, **describe(angles, circuit)
        )
        return samples

    def _check_size(self, n: int) -> None:
        if n > self.max_qubits:
            raise dimod.exceptions.BinaryQuadraticModelSizeError(
                f"{type(self).__name__} takes at most {self.max_qubits} variables (one qubit "
                f"each), the model has {n}; pass a smaller block or a larger max_qubits"
            )


def describe(angles: Angles, circuit: Circuit | None = None) -> dict[str, Any]:
    """Angles, their label and the size of the circuit, if any, for a sample set's ``info``."""
    info = {
        "depth": angles.depth,
        "gammas": list(angles.gammas),
        "betas": list(angles.betas),
        "angles": angles.label,
        "training_seconds": angles.training_seconds,
    }
    if circuit is None:
        return info
    return info | {
        "gates": circuit.counts(),
        "two_qubit_gates": sum(len(gate.qubits) == 2 for gate in circuit.gates),
        "two_qubit_depth": circuit.two_qubit_depth(),
    }


def _angles(angles: Angles | None, depth: int | None, ising: Ising) -> Angles:
    _check_angles(angles, depth)
    return linear_ramp(depth or DEFAULT_DEPTH, ising.std()) if angles is None else angles


def _check_angles(angles: Angles | None, depth: int | None) -> None:
    if depth is not None:
        checked_depth(depth)
    if angles is None:
        return
    if not isinstance(angles, Angles):
        raise ParameterError(f"angles is a {type(angles).__name__}, expected solvers.qaoa Angles")
    if depth is not None and depth != angles.depth:
        raise ParameterError(f"depth is {depth}, but angles has {angles.depth} layers")
