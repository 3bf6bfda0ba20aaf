"""Angle strategies, and the native solver that uses them."""

import dimod
import numpy as np
import pytest

from solvers.base import Budget
from solvers.clock.deadline import Deadline
from solvers.problem import CardinalityProblem
from solvers.qaoa.angles import Angles, linear_ramp
from solvers.qaoa.simulator.subspace import MIXERS
from solvers.qaoa.subspace import SubspaceQAOA
from solvers.qaoa.training import (
    median,
    normalised,
    optimise,
    scan,
    transfer,
    transferred,
    untrained,
)
from tests.solvers.circuits import make, problem
from tests.solvers.reference import feasible_states


def ratio(simulator, angles):
    mean, best = simulator.costs.mean(), simulator.costs.min()
    return (mean - simulator.expectation(angles)) / (mean - best)


def test_linear_ramp_is_the_formula():
    ramp = linear_ramp(4, 2.0, (3.0, 0.8))
    np.testing.assert_allclose(ramp.gammas, [3 / 2 * t for t in (0.125, 0.375, 0.625, 0.875)])
    np.testing.assert_allclose(ramp.betas, [0.8 * t for t in (0.875, 0.625, 0.375, 0.125)])
    assert ramp.label == "untrained: linear ramp"
    assert linear_ramp(1, 0.0).gammas == (1.25,)


@pytest.mark.parametrize("mixer", ["x", "ring", "complete", "complete-trotter", "grover"])
def test_each_strategy_beats_the_one_before(mixer):
    simulator = make(mixer, problem(8, 3))
    ramp = untrained(simulator, 4)
    scanned = scan(simulator, 4)
    trained = optimise(simulator, scanned, iterations=30)
    assert 0.25 < ratio(simulator, ramp) <= ratio(simulator, scanned) + 1e-12
    assert ratio(simulator, scanned) < ratio(simulator, trained) <= 1
    assert scanned.label == "trained per instance: ramp scan"
    assert trained.label == "trained per instance: L-BFGS"
    assert trained.training_seconds > scanned.training_seconds > ramp.training_seconds == 0


def test_cvar_training_improves_cvar():
    simulator = make("grover", problem(8, 3))
    ramp = scan(simulator, 2, alpha=0.2)
    trained = optimise(simulator, ramp, alpha=0.2, iterations=30)
    assert simulator.objective(trained, 0.2) < simulator.objective(ramp, 0.2)
    assert trained.label == "trained per instance: L-BFGS on CVaR 0.2"


def test_angles_do_not_depend_on_the_unit_of_energy():
    small = problem(7, 3)
    large = CardinalityProblem(
        linear=1e6 * small.linear, factor=1e3 * small.factor, cardinality=3, offset=5.0
    )
    for strategy in (untrained, scan):
        a, b = (strategy(make("complete", instance), 3) for instance in (small, large))
        np.testing.assert_allclose(a.gammas, np.multiply(b.gammas, 1e6))
        np.testing.assert_allclose(a.betas, b.betas)


def test_deadline_ends_training_with_usable_angles():
    simulator = make("complete", problem(8, 3))
    late = Deadline(-1)
    angles = optimise(simulator, scan(simulator, 3, deadline=late), deadline=late)
    np.testing.assert_allclose(angles.gammas, untrained(simulator, 3).gammas)
    one_step = optimise(simulator, angles, iterations=1)
    soon = optimise(simulator, angles, deadline=Deadline(1e-3))
    assert ratio(simulator, angles) < ratio(simulator, one_step) <= ratio(simulator, soon) + 1e-9


def test_transfer_of_medians():
    simulators = [make("complete", problem(8, 3, seed)) for seed in range(4)]
    library = [normalised(optimise(s, untrained(s, 3), iterations=20), s) for s in simulators[:3]]
    angles = transfer(median(library), simulators[3])
    assert angles.label == "transferred: median of 3 problems"
    assert ratio(simulators[3], angles) > ratio(simulators[3], untrained(simulators[3], 3))
    with pytest.raises(TypeError, match="one depth"):
        median([])
    with pytest.raises(TypeError, match="one depth"):
        median([linear_ramp(1, 1.0), linear_ramp(2, 1.0)])


@pytest.mark.parametrize("mixer", MIXERS)
def test_the_committed_library_is_about_as_good_as_the_ramp_elsewhere(mixer):
    ramps, moved = [], []
    for n in (8, 10):
        for seed in range(3):
            simulator = make(mixer, problem(n, n // 2, seed))
            ramps.append(ratio(simulator, untrained(simulator, 4)))
            moved.append(ratio(simulator, transferred(simulator, 4)))
    assert np.mean(moved) > 0.4
    # Grover's angles depend on how many states there are, so they travel worse than a ramp.
    assert mixer == "grover" or np.mean(moved) > np.mean(ramps) - 0.02
    assert transferred(simulator, 1).label.startswith("transferred: median of")
    assert transferred(simulator, 8).depth == 8
    with pytest.raises(TypeError, match="ends at 8"):
        transferred(simulator, 9)


def test_normalising_and_transferring_are_inverse():
    simulator = make("complete", problem(9, 4))
    angles = Angles.given([0.3, 0.2], [0.7, 0.1])
    back = transfer(normalised(angles, simulator), simulator)
    np.testing.assert_allclose([back.gammas, back.betas], [angles.gammas, angles.betas])


def test_the_simulators_spread_is_that_of_the_feasible_states():
    instance = problem(9, 4)
    exact = instance.energy(feasible_states(instance)).std()
    assert make("grover", instance).std == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("mixer", ["complete", "complete-trotter", "ring", "grover"])
def test_solver_finds_the_optimum_of_a_small_problem(mixer):
    instance = problem(8, 3)
    seen = []
    samples = SubspaceQAOA().sample_problem(
        instance, seed=3, mixer=mixer, on_incumbent=seen.append, budget=Budget(reads=400)
    )
    assert len(samples) == 400
    rows = samples.record.sample
    assert instance.is_feasible(rows).all()
    np.testing.assert_allclose(samples.record.energy, instance.energy(rows))
    best = make("grover", instance).costs.min()
    assert samples.first.energy == pytest.approx(best)
    assert instance.energy(seen[-1]) == pytest.approx(best)
    spread = samples.record.energy.std() / np.sqrt(400)
    assert abs(samples.record.energy.mean() - samples.info["expectation"]) < 4.5 * spread
    assert samples.info["angles"] == "trained per instance: L-BFGS"
    assert samples.info["timing"]["training"] >= samples.info["training_seconds"] > 0


def test_same_seed_same_samples():
    solver = SubspaceQAOA(num_threads=1)
    rows = [
        solver.sample_problem(problem(7, 3), seed=s, angles="ramp").record.sample for s in (1, 1, 2)
    ]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert (rows[0] != rows[2]).any()


def test_dimod_interface():
    dimod.testing.assert_sampler_api(SubspaceQAOA())
    bqm = problem(6, 2).to_bqm()
    spin = bqm.change_vartype("SPIN", inplace=False)
    samples = SubspaceQAOA().sample(spin, cardinality=2, seed=1, num_reads=50, depth=2)
    assert samples.vartype is dimod.SPIN
    assert ((samples.record.sample == 1).sum(1) == 2).all()
    free = SubspaceQAOA().sample(bqm, seed=1, num_reads=50, depth=2)
    assert free.first.energy == pytest.approx(dimod.ExactSolver().sample(bqm).first.energy)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"mixer": "x"}, "leaves the feasible states"),
        ({"mixer": "star"}, "mixer is 'star'"),
        ({"angles": "best"}, "angles is 'best'"),
        ({"depth": 0}, "depth is 0"),
        ({"alpha": 2.0}, "alpha is 2.0"),
        ({"depth": 1, "angles": Angles.given([1, 2], [1, 2])}, "angles has 2 layers"),
        ({"layers": 3}, "no parameter 'layers'"),
    ],
)
def test_bad_parameters_are_refused(keywords, message):
    with pytest.raises(TypeError, match=message):
        SubspaceQAOA().sample_problem(problem(), **keywords)


def test_angles_are_checked():
    with pytest.raises(TypeError, match="2 gammas and 1 betas"):
        Angles.given([1, 2], [1])
    with pytest.raises(TypeError, match="not finite"):
        Angles.given([np.nan], [1])


def test_too_many_variables():
    with pytest.raises(dimod.exceptions.BinaryQuadraticModelSizeError, match="at most 20"):
        SubspaceQAOA().sample_problem(problem(21, 3))
    samples = SubspaceQAOA(24).sample_problem(problem(21, 3), angles="ramp", depth=1, seed=0)
    assert (samples.record.sample.sum(1) == 3).all()
