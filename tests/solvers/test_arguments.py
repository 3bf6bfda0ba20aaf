"""What callers pass: another type or value is refused in one sentence, nothing is shared."""

import copy
import json
import pickle

import dimod
import numpy as np
import pytest
import scipy.sparse

from solvers import Budget, CardinalityProblem, load, make, save
from solvers.arrays import frozen
from solvers.errors import ParameterError, ProblemError, SolverError
from solvers.memory import check_room

BASE = {"linear": np.arange(4.0), "cardinality": 2, "factor": np.ones((1, 4))}


def arrays(problem):
    names = ("linear", "factor", "quadratic", "initial", "indices", "diagonal")
    return [array for name in names if (array := getattr(problem, name)) is not None]


def test_what_the_caller_changes_later_changes_nothing():
    given = {
        "linear": np.arange(4.0),
        "quadratic": np.eye(4),
        "initial": np.array([True, True, False, False]),
        "indices": np.arange(4),
        "meta": {"a": {"b": [1]}},
    }
    problem = CardinalityProblem(cardinality=2, **given)
    before, digest = problem.energy([1, 1, 0, 0]), problem.content_hash
    for name in ("linear", "quadratic", "initial", "indices"):
        given[name][...] = 0
    given["meta"]["a"]["b"].append(2)
    fresh = CardinalityProblem(
        linear=problem.linear,
        cardinality=2,
        quadratic=problem.quadratic,
        initial=problem.initial,
        indices=problem.indices,
    )
    assert problem.energy([1, 1, 0, 0]) == before == 2
    assert fresh.content_hash == digest
    assert problem.meta == {"a": {"b": [1]}}


@pytest.mark.parametrize("view", [lambda a: a[:], lambda a: a.view(), lambda a: a.T.T])
def test_a_read_only_view_of_a_writable_array_is_copied(view):
    factor = np.ones((1, 4))
    shown = view(factor)
    shown.flags.writeable = False
    problem = CardinalityProblem(**BASE | {"factor": shown})
    factor[:] = 7
    assert (problem.factor == 1).all()


def test_a_read_only_array_is_not_copied():
    factor = frozen(np.ones((1, 4)))
    problem = CardinalityProblem(**BASE | {"factor": factor})
    assert np.shares_memory(problem.factor, factor)
    for part in (problem.blinded(), problem.with_cardinality(1)):
        assert np.shares_memory(part.factor, factor)


@pytest.mark.parametrize(
    "copied",
    [
        lambda p: p,
        copy.copy,
        copy.deepcopy,
        lambda p: pickle.loads(pickle.dumps(p)),
        lambda p: p.permuted(np.random.default_rng(0)),
        lambda p: p.restricted([0, 2, 3]),
        lambda p: p.with_cardinality(1),
    ],
)
@pytest.mark.parametrize("kind", ["factor", "quadratic"])
def test_nothing_of_a_problem_can_be_written(copied, kind):
    problem = CardinalityProblem(
        linear=np.arange(4.0),
        cardinality=2,
        initial=[1, 1, 0, 0],
        indices=[3, 2, 1, 0],
        meta={"a": {"b": [1]}},
        **{kind: np.eye(4)},
    )
    assert problem.diagonal.sum() == 4
    assert problem.content_hash
    other = copied(problem)
    for array in arrays(other):
        assert not array.flags.writeable
        assert array.base is None or not array.base.flags.writeable
    with pytest.raises(TypeError, match="read-only"):
        other.meta["c"] = 1
    with pytest.raises(TypeError, match="read-only"):
        other.meta["a"]["b"].append(2)
    with pytest.raises(TypeError, match="read-only"):
        other.meta["a"] |= {}


def test_another_cardinality_is_another_problem():
    problem = CardinalityProblem(**BASE, initial=[1, 1, 0, 0])
    assert problem.content_hash
    other = problem.with_cardinality(np.int64(3))
    assert (other.cardinality, other.initial) == (3, None)
    assert other.content_hash == CardinalityProblem(**BASE | {"cardinality": 3}).content_hash
    with pytest.raises(ProblemError, match=r"in 0\.\.4"):
        problem.with_cardinality(5)


def test_meta_becomes_json(tmp_path):
    given = {"a": np.float32(0.5), "b": {"c": np.arange(2)}, "d": (np.bool_(1), None), "e": "f"}
    problem = CardinalityProblem(**BASE, meta=given)
    plain = {"a": 0.5, "b": {"c": [0, 1]}, "d": [True, None], "e": "f"}
    assert problem.meta == plain
    assert json.loads(json.dumps(problem.meta)) == plain
    assert load(save(problem, tmp_path / "a.block.safetensors")).meta == plain


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        (None, "meta is a NoneType, expected a dict"),
        ([1], "meta is a list, expected a dict"),
        ({1: 2}, r"meta has the key 1, expected text"),
        ({"a": [{"b": {1}}]}, r"meta\['a'\]\[0\]\['b'\] is a set"),
        ({"a": float("nan")}, r"meta\['a'\] is nan"),
        ({"a": np.array([np.inf])}, r"meta\['a'\]\[0\] is inf"),
        ({"a": b"x"}, r"meta\['a'\] is a bytes"),
        ({"a": 1j}, r"meta\['a'\] is a complex"),
    ],
)
def test_meta_that_is_no_json_is_refused(meta, words):
    with pytest.raises(ProblemError, match=words):
        CardinalityProblem(**BASE, meta=meta)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cardinality": "3"}, r"cardinality is '3', expected a whole number in 0\.\.4"),
        ({"cardinality": None}, "cardinality is None"),
        ({"cardinality": [2]}, r"cardinality is \[2\]"),
        ({"cardinality": np.bool_(1)}, "cardinality is np.True_"),
        ({"cardinality": float("nan")}, "cardinality is nan"),
        ({"cardinality": 2 + 0j}, "cardinality is"),
        ({"offset": "1"}, "offset is '1', expected a finite number"),
        ({"offset": 10**400}, "offset is 1000"),
        ({"scale": 1j}, "scale is 1j, expected a positive number"),
        ({"scale": None}, "scale is None"),
        ({"linear": {0: 1.0}}, "linear is a dict"),
        ({"linear": "abcd"}, "linear is a str"),
        ({"linear": ["1"] * 4}, "linear is a list of str"),
        ({"linear": [[1], [1, 2], 3, 4]}, "linear is a list, expected an array of real numbers"),
        ({"linear": np.array([None] * 4)}, "linear is a ndarray of objects"),
        ({"linear": np.zeros(4) * 1j}, "linear is a ndarray of complex128"),
        ({"linear": np.array(["2020-01-01"] * 4, "datetime64[D]")}, "of datetime64"),
        ({"linear": np.ma.masked_array(np.zeros(4), [1, 0, 0, 0])}, r"pass its \.filled"),
        ({"linear": [10**400] * 4}, "too large for a 64-bit float"),
        (
            {"factor": scipy.sparse.csr_array(np.eye(4))},
            r"sparse csr_array.*pass its \.toarray\(\)",
        ),
        ({"factor": scipy.sparse.eye(4)}, "sparse dia_matrix"),
        ({"factor": dimod.BinaryQuadraticModel("BINARY")}, "factor is a BinaryQuadraticModel"),
        ({"initial": [[1], [1, 0]]}, "state is a list"),
        ({"initial": "1100"}, "state is a str"),
        ({"initial": [257, 1, 0, 0]}, "other than 0 and 1"),
        ({"indices": [0.5, 1, 2, 3]}, "indices has the entry 0.5"),
        ({"indices": [10**30, 1, 2, 3]}, "indices has the entry"),
        ({"indices": [np.nan, 1, 2, 3]}, "indices has the entry nan"),
        ({"indices": "0123"}, "indices is a str"),
    ],
)
def test_other_types_are_refused_in_a_sentence(change, words):
    with pytest.raises(ProblemError, match=words):
        CardinalityProblem(**BASE | change)


@pytest.mark.parametrize("k", [2.0, np.int64(2), np.float32(2), np.array(2)])
def test_whole_numbers_of_any_type_are_whole(k):
    problem = CardinalityProblem(**BASE | {"cardinality": k, "linear": [0, 1, 2, 3]})
    assert type(problem.cardinality) is int
    assert problem.content_hash == CardinalityProblem(**BASE).content_hash


def test_restricted_to_what_is_no_index():
    problem = CardinalityProblem(**BASE, initial=[1, 1, 0, 0])
    with pytest.raises(ProblemError, match=r"indices has the entry 0\.5"):
        problem.restricted([0.5, 1])
    with pytest.raises(ProblemError, match="indices is a str"):
        problem.restricted("01")


@pytest.mark.parametrize(
    "seed", [-1, 1.5, "a", True, [1, 2], float("nan"), np.random.default_rng(0)]
)
@pytest.mark.parametrize("name", ["annealing", "neal", "qaoa-aer"])
def test_seeds_are_whole_numbers_from_0(name, seed):
    problem, sampler = CardinalityProblem(**BASE), make(name)
    calls = [
        lambda: sampler.sample_problem(problem, seed=seed),
        lambda: sampler.sample(problem.to_bqm(), seed=seed),
        lambda: sampler.sample(problem.to_bqm(), cardinality=2, seed=seed),
    ]
    for call in calls:
        with pytest.raises(ParameterError, match=r"seed is .*, expected a whole number from 0"):
            call()


def test_numpys_seeds_are_seeds():
    problem = CardinalityProblem(**BASE)
    one, other = (make("random").sample_problem(problem, seed=s) for s in (7, np.uint32(7)))
    assert (one.record.raw_sample == other.record.raw_sample).all()
    assert len(make("neal").sample_problem(problem, seed=2**70)) == 1


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"time_limit": "1"}, "time_limit is '1', expected seconds above 0"),
        ({"time_limit": True}, "time_limit is True"),
        ({"time_limit": 1j}, "time_limit is 1j"),
        ({"reads": "1"}, "reads is '1', expected a whole number from 1"),
        ({"reads": [1]}, r"reads is \[1\]"),
        ({"sweeps": np.inf}, "sweeps is inf"),
    ],
)
def test_budgets_of_other_types(budget, words):
    with pytest.raises(ParameterError, match=words):
        Budget(**budget)


def test_a_budget_stays_as_it_was_written():
    budget = Budget(time_limit=1, reads=np.int64(3), sweeps=2.0)
    assert [type(v) for v in (budget.time_limit, budget.reads, budget.sweeps)] == [int, int, float]


NO_MODELS = [
    dimod.ConstrainedQuadraticModel(), dimod.QuadraticModel(), dimod.DiscreteQuadraticModel(),
    np.eye(3), scipy.sparse.eye(3), {(0, 1): 1.0}, None, "a", CardinalityProblem(**BASE),
]  # fmt: skip


@pytest.mark.parametrize("given", NO_MODELS, ids=lambda given: type(given).__name__)
@pytest.mark.parametrize("name", ["annealing", "exact", "neal", "qaoa-aer"])
@pytest.mark.parametrize("keywords", [{}, {"cardinality": 1}])
def test_what_is_no_model_is_refused(name, given, keywords):
    words = f"bqm is a {type(given).__name__}, expected a dimod.BinaryQuadraticModel: "
    with pytest.raises(ParameterError, match=words):
        make(name).sample(given, **keywords)


def test_what_is_no_problem_is_refused():
    with pytest.raises(ParameterError, match=r"expected a CardinalityProblem.*call sample"):
        make("annealing").sample_problem(CardinalityProblem(**BASE).to_bqm())
    with pytest.raises(ParameterError, match=r"budget is 0\.5, expected Budget"):
        make("annealing").sample_problem(CardinalityProblem(**BASE), budget=0.5)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a": 1}, "variable 'b' is missing"),
        ({"a": 1, "b": 0}, "variable 'b' is 0, expected -1 or 1"),
    ],
)
def test_starts_of_a_model_are_complete(state, words):
    bqm = dimod.BinaryQuadraticModel({"a": 1, "b": 1}, {}, "SPIN")
    with pytest.raises(ParameterError, match=words):
        make("annealing").sample(bqm, cardinality=1, initial_state=state)


def test_what_does_not_fit_is_refused_with_the_bytes(monkeypatch):
    monkeypatch.setattr("solvers.memory.available", lambda: 3 * 10**9)
    problem = CardinalityProblem(
        linear=np.zeros(25_000), cardinality=3, factor=np.zeros((1, 25_000))
    )
    size = dimod.exceptions.BinaryQuadraticModelSizeError
    for dense in (problem.gram, problem.to_bqm, problem.to_cqm):
        with pytest.raises(size, match="25,000 variables needs 5 GB, 3 GB are available: take"):
            dense()
    check_room(3 * 10**9, "it", "")
    monkeypatch.setattr("solvers.memory.available", lambda: None)
    check_room(10**18, "it", "")


def test_every_refusal_is_an_expected_error():
    for error in (ParameterError, ProblemError):
        assert issubclass(error, SolverError)
