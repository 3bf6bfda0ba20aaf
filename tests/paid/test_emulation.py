"""Rehearsals on emulators of devices: native gates, connected qubits, noise."""

import json

import numpy as np
import pytest
from braket.circuits import Circuit
from braket.emulation.pass_manager import EmulatorValidationError
from typer.testing import CliRunner

from experiments.cli import app
from experiments.store.database import Store
from solvers import make, save
from solvers.cloud import emulation
from solvers.cloud.devices import find_device, known_devices
from solvers.cloud.emulation import EmulatorService, compiled, emulated
from solvers.errors import ParameterError, UnavailableError
from solvers.qaoa.braket import BraketLocalQAOASampler, to_braket
from solvers.qaoa.circuit.ansatz import Ising, groups_of, subspace_ansatz, x_ansatz
from tests.paid.calls import rows, sample, solver
from tests.study_fixtures import block

NAMES = ["Garnet", "Ibex-Q1"]


@pytest.fixture
def perfect(monkeypatch):
    """Devices whose gates and readout are never wrong."""
    better = {
        name: known | {"two_qubit": 1.0, "one_qubit": 1.0, "readout": 1.0}
        for name, known in emulation._table().items()
    }
    monkeypatch.setattr(emulation, "_table", lambda: better)
    emulation.emulator.cache_clear()
    yield
    emulation.emulator.cache_clear()


def circuit(mixer="ring", n=4, depth=1):
    """QAOA on a block, with angles that favour no qubit."""
    problem = block(n).blinded()
    edges = Ising.from_bqm(problem.to_bqm(1.0 if mixer == "x" else None)).edges
    gates = (
        x_ansatz(n, edges, depth)
        if mixer == "x"
        else subspace_ansatz(groups_of(problem), edges, depth, mixer, None)
    )
    return to_braket(gates, np.linspace(0.3, 1.1, gates.num_parameters))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mixer", ["ring", "complete", "x"])
def test_without_noise_it_is_the_exact_simulator(perfect, name, mixer):
    asked = circuit(mixer)
    exact = BraketLocalQAOASampler().probabilities(asked.copy().probability())
    found = EmulatorService(find_device(name))._probabilities(asked)
    np.testing.assert_allclose(found, exact, atol=1e-9)
    assert exact.std() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_circuits_keep_to_the_gates_and_pairs_of_the_device(name):
    known = emulated(name)
    native, places = compiled(circuit("ring", 6), name)
    pairs = {frozenset(map(int, pair.split("-"))) for pair in known["pairs"]}
    assert len(set(places)) == 6
    assert {one.operator.name.lower() for one in native.instructions} <= set(known["gates"])
    for instruction in native.instructions:
        if len(instruction.target) == 2 and pairs:
            assert frozenset(map(int, instruction.target)) in pairs
    assert known["qubits"] == find_device(name).qubits
    assert tuple(known["gates"]) == find_device(name).native_gates


def test_what_a_device_cannot_run_is_found_out():
    service = EmulatorService(find_device("Garnet"))
    with pytest.raises(EmulatorValidationError, match="H is not a native gate"):
        service._check(Circuit().h(1))
    with pytest.raises(EmulatorValidationError, match="not connected"):
        service._check(Circuit().cz(1, 20))
    service._check(Circuit().cz(1, 2))


@pytest.mark.parametrize("name", NAMES)
def test_readout_errors_reach_qubits_without_gates(monkeypatch, name):
    worse = {one: known | {"readout": 0.9} for one, known in emulation._table().items()}
    monkeypatch.setattr(emulation, "_table", lambda: worse)
    emulation.emulator.cache_clear()
    found = EmulatorService(find_device(name))._probabilities(Circuit().rz(0, 0.1).rz(1, 0.2))
    emulation.emulator.cache_clear()
    np.testing.assert_allclose(found, [0.81, 0.09, 0.09, 0.01], atol=5e-3)


def test_an_emulated_study_has_the_record_of_a_paid_one(braket, tmp_path):
    (paid,) = rows(tmp_path)
    (tmp_path / "e").mkdir()
    (free,) = rows(tmp_path / "e", rehearse="emulator")
    assert free["status"] == "done"
    info, other = json.loads(free["info"]), json.loads(paid["info"])
    assert info.keys() - other.keys() == {"emulator"}
    assert info["rehearsal"]
    assert info["charged"] == 0
    said = info["emulator"]
    assert said["native_two_qubit_gates"] == said["native_gates"]["cz"] > info["two_qubit_gates"]
    assert said["assumed"] == "one_qubit, readout"
    # Shots go wrong, and only some are kept.
    assert 0.3 < info["feasible_shots"] < 0.95
    assert other["feasible_shots"] == 1
    assert braket.paid == 1


def test_shots_come_from_the_seed(tmp_path):
    drawn = [
        sample(solver(tmp_path, "Ibex-Q1", rehearse="emulator"), seed=seed).record.raw_sample
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_bench_emulates_from_the_command_line(tmp_path):
    save(block(4), tmp_path / "b.block.safetensors")
    (tmp_path / "study.toml").write_text(
        'instances = ["b.block.safetensors"]\nseeds = 2\nbudgets = [{reads = 50}]\n'
        'solvers = ["random", {name = "qaoa-xy-braket", '
        'parameters = {depth = 1, angles = "ramp", mixer = "ring"}, '
        'options = {device = "Ibex-Q1", max_cost = 9}}]\n'
    )
    arguments = ["bench", str(tmp_path / "study.toml"), "--store", str(tmp_path / "s.sqlite")]
    result = CliRunner().invoke(app, [*arguments, "--emulate"])
    assert result.exit_code == 0, result.output
    with Store(tmp_path / "s.sqlite") as store:
        frame = store.runs()
    ours = frame[frame["solver"] == "qaoa-xy-braket"]
    assert ours["status"].tolist() == ["done"] * 2
    assert all("emulator" in json.loads(info) for info in ours["info"])
    page = CliRunner().invoke(
        app, ["report", str(tmp_path / "s.sqlite"), "--out", str(tmp_path / "page")]
    )
    assert page.exit_code == 0, page.output
    text = (tmp_path / "page" / "report.html").read_text()
    assert "Ibex-Q1 rehearsed on an emulator with its noise" in text


def test_devices_without_an_emulator_say_so(tmp_path):
    for name in known_devices().keys() - set(NAMES) - {"TN1", "Ankaa-3"}:
        with pytest.raises(UnavailableError, match=r"no emulator here: take Garnet or Ibex-Q1"):
            solver(tmp_path, name, rehearse="emulator").check()


def test_what_cannot_be_emulated_is_refused(tmp_path):
    assert solver(tmp_path, rehearse="emulator").max_variables == 10
    with pytest.raises(ParameterError, match="rehearse is 'loud', expected false, true"):
        make("qaoa-xy-braket", device="Garnet", rehearse="loud")
