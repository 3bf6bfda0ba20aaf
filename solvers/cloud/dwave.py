"""D-Wave's quantum annealers: they use up quota, or money.

As with the devices of Braket nothing is sent without a cap, here of seconds: see
`solvers.cloud.quota`.

Block problems are dense. The annealer therefore gets clique embeddings, which are found without
search and whose qubits are known before anything is sent; with them the SDK's own model tells the
access time. A clique of a small problem leaves most of the chip unused, and programming takes as
long as some hundred reads. So a problem may be on the chip several times (`copies`), and several
problems may share a call (`QPU.sample_problems`), each on qubits of its own.

`rehearse` puts a local stand-in in the service's place, with the same checks and records.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import dimod
from dwave.system import DWaveSampler, ParallelEmbeddingComposite
from dwave.system.testing import MockDWaveSampler
from minorminer.busclique import find_clique_embedding

from solvers.arguments import seeded, whole
from solvers.base import Budget, Request
from solvers.clock.deadline import NEVER
from solvers.cloud.quota import Cap, connected
from solvers.errors import ParameterError
from solvers.penalised.penalty import PenaltyComposite, penalty_weight
from solvers.problem import CardinalityProblem

Embedding = dict[int, tuple[int, ...]]
"""Variable 0..n-1 -> the qubits that stand for it."""

DEFAULT_READS = 100
# Largest clique of an Advantage chip without faults; the chip at hand decides.
LARGEST_CLIQUE = 180
# The stand-in: a Pegasus graph that holds a clique of 60.
REHEARSAL_TOPOLOGY: dict[str, Any] = {"topology_type": "pegasus", "topology_shape": [6]}
REHEARSAL_CLIQUE = 60
# Microseconds that the stand-in claims for programming, and for a read at 20 of annealing.
REHEARSAL_PROGRAMMING, REHEARSAL_READ = 8468.2, 82.08


def disjoint_cliques(graph: Any, sizes: Sequence[int]) -> tuple[list[Embedding], bool]:
    """Cliques on a chip that share no qubit, one after the other on what the others left free.

    Args:
        graph: of the chip.
        sizes: variables of each clique.

    Returns:
        The embeddings of the first sizes for which there was room, and whether that is all.
    """
    free = graph.copy()
    found: list[Embedding] = []
    for n in sizes:
        # The cache of busclique is for whole chips, and takes seconds to fill.
        embedding = find_clique_embedding(n, free, use_cache=False, seed=0)
        if len(embedding) < n:
            return found, False
        free.remove_nodes_from(itertools.chain.from_iterable(embedding.values()))
        found.append(embedding)
    return found, True


class _Annealer(dimod.Sampler):
    """One chip, reached when it is first needed; every model as a clique, under the cap."""

    def __init__(
        self, cap: Cap, chip: str | None, copies: int | Literal["most"], rehearse: bool
    ) -> None:
        self.cap, self._chip, self.copies, self.rehearse = cap, chip, copies, rehearse
        self._layouts: dict[tuple[int, ...], list[list[Embedding]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # The connection belongs to this process, and layouts to its chip.
        kept = {k: value for k, value in self.__dict__.items() if k not in ("chip", "_graph")}
        return kept | {"_layouts": {}}

    @property
    def parameters(self) -> dict[str, Any]:
        """The seed belongs to the stand-in; nobody can seed a chip."""
        names = ["num_reads", "annealing_time", "chain_strength"] + ["seed"] * self.rehearse
        return {name: [] for name in names}

    @property
    def properties(self) -> dict[str, Any]:
        """The size limit that is known without asking anybody."""
        return {"max_variables": REHEARSAL_CLIQUE if self.rehearse else LARGEST_CLIQUE}

    @cached_property
    def chip(self) -> Any:
        """The chip, or the stand-in."""
        if self.rehearse:
            return MockDWaveSampler(**REHEARSAL_TOPOLOGY, parameter_warnings=False)
        return connected(
            DWaveSampler, self.cap.name, **({"solver": self._chip} if self._chip else {})
        )

    @cached_property
    def _graph(self) -> Any:
        return self.chip.to_networkx_graph()

    def access_time(self, qubits: int, reads: int, annealing_time: float | None) -> float:
        """Seconds that a call will be charged, by the SDK's model of the chip."""
        if self.rehearse:
            extra = (annealing_time or 20.0) - 20.0
            return 1e-6 * (REHEARSAL_PROGRAMMING + reads * (REHEARSAL_READ + extra))
        given = {} if annealing_time is None else {"annealing_time": annealing_time}
        estimate = self.chip.solver.estimate_qpu_access_time
        return 1e-6 * float(estimate(num_qubits=qubits, num_reads=reads, **given))

    def layout(self, sizes: Sequence[int]) -> list[list[Embedding]]:
        """Where the models go: for each copy of all of them a list, one embedding a model.

        Args:
            sizes: variables of each model.

        Raises:
            BinaryQuadraticModelSizeError: the chip has no room for the models.
            ParameterError: it has, but not for so many copies.
        """
        key = tuple(sizes)
        if key not in self._layouts:
            self._layouts[key] = self._placed(key)
        return self._layouts[key]

    def _placed(self, sizes: tuple[int, ...]) -> list[list[Embedding]]:
        # Large ones first: they need room in one piece.
        order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
        rounds = len(self._graph) if self.copies == "most" else self.copies
        found, complete = disjoint_cliques(self._graph, [sizes[i] for i in order] * rounds)
        whole_rounds = len(found) // len(sizes)
        if not found:
            raise dimod.exceptions.BinaryQuadraticModelSizeError(
                f"{self.cap.name} has no clique of {max(sizes)} variables on this chip: take a "
                "smaller problem"
            )
        if not whole_rounds:
            raise dimod.exceptions.BinaryQuadraticModelSizeError(
                f"{self.cap.name} has room for {len(found)} of these {len(sizes)} problems on "
                "this chip, the largest first: pass fewer"
            )
        if not complete and self.copies != "most":
            what = f"{sizes[0]} variables" if len(sizes) == 1 else f"these {len(sizes)} problems"
            raise ParameterError(
                f"copies is {self.copies}, but this chip has room for {what} {whole_rounds} times: "
                f"pass copies={whole_rounds} or fewer, or 'most'"
            )
        place = {i: at for at, i in enumerate(order)}
        return [
            [found[len(sizes) * copy + place[i]] for i in range(len(sizes))]
            for copy in range(whole_rounds)
        ]

    def sample(self, bqm: dimod.BinaryQuadraticModel, **parameters: Any) -> dimod.SampleSet:
        """One submission of one model; see `anneal`."""
        return self.anneal([bqm], **parameters)[0]

    def anneal(
        self,
        bqms: Sequence[dimod.BinaryQuadraticModel],
        *,
        num_reads: int = DEFAULT_READS,
        annealing_time: float | None = None,
        chain_strength: float | None = None,
        seed: int | None = None,
    ) -> list[dimod.SampleSet]:
        """One submission of one or more models.

        Args:
            bqms: models that fit the chip as cliques, next to each other.
            num_reads: anneals.
            annealing_time: microseconds of one; the chip's default when None.
            chain_strength: the SDK's default when None.
            seed: of the stand-in.

        Returns:
            For each model ``copies`` times ``num_reads`` rows. Of the time of the call each has an
            equal share in its ``info``.
        """
        self.cap.check()
        start = time.perf_counter()
        layout = self.layout([bqm.num_variables for bqm in bqms])
        qubits = sum(len(chain) for copy in layout for one in copy for chain in one.values())
        reserved = self.access_time(qubits, num_reads, annealing_time)
        self.cap.reserve(reserved)
        keywords = {} if annealing_time is None else {"annealing_time": annealing_time}
        if self.rehearse:
            self.chip.substitute_kwargs = {} if seed is None else {"seed": seed}
        embedded = time.perf_counter()
        answers, told = self._submitted(
            bqms, layout, chain_strength, num_reads=num_reads, answer_mode="raw", **keywords
        )
        waited = time.perf_counter() - embedded
        timing = told.get("timing", {})
        charged = (
            reserved if self.rehearse else 1e-6 * timing.get("qpu_access_time", reserved * 1e6)
        )
        self.cap.settle(reserved, charged)
        share = 1 / len(bqms)
        for number, samples in enumerate(answers):
            samples.info.clear()
            samples.info.update(
                {
                    "timing": {
                        "preprocess": share * (embedded - start),
                        "queue": share * max(0.0, waited - charged),
                        "execute": share * min(waited, charged),
                    },
                    "service_seconds": share * charged, "service_seconds_used": self.cap.used,
                    "copies": len(layout), "problems": len(bqms), "qubits": qubits,
                    "own_qubits": sum(len(c) for copy in layout for c in copy[number].values()),
                    "chip": self.chip.properties.get("chip_id"), "rehearsal": self.rehearse,
                }
            )  # fmt: skip
        return answers

    def _submitted(
        self,
        bqms: Sequence[dimod.BinaryQuadraticModel],
        layout: list[list[Embedding]],
        chain_strength: float | None,
        **keywords: Any,
    ) -> tuple[list[dimod.SampleSet], dict[str, Any]]:
        """The rows of each model, its copies one after the other, and what the chip says."""
        placed = [
            (
                bqm.change_vartype(dimod.SPIN, inplace=False),
                dict(zip(bqm.variables, one.values(), strict=True)),
            )
            for copy in layout
            for bqm, one in zip(bqms, copy, strict=True)
        ]
        # Models differ in their variables: there is no graph that all have in common.
        parallel = ParallelEmbeddingComposite(
            self.chip, embeddings=[where for _, where in placed], source=self._graph.subgraph(())
        )
        rows, told = parallel.sample_multiple(
            [model for model, _ in placed], [chain_strength] * len(placed), **keywords
        )
        answers = [
            dimod.concatenate(rows[number :: len(bqms)]).change_vartype(bqm.vartype)
            for number, bqm in enumerate(bqms)
        ]
        return answers, dict(told)


class _Answered(dimod.Sampler):
    """Hands out an answer that is there already."""

    parameters: ClassVar[dict[str, Any]] = {}
    properties: ClassVar[dict[str, Any]] = {}

    def __init__(self, answer: dimod.SampleSet) -> None:
        self.answer = answer

    def sample(self, bqm: dimod.BinaryQuadraticModel, **parameters: Any) -> dimod.SampleSet:
        """The answer."""
        return self.answer


class QPU(PenaltyComposite):
    """A quantum annealer on the penalised problem.

    Parameters of `sample_problem`: ``annealing_time`` (microseconds), ``chain_strength``. ``info``
    has, under ``child``, the copies, the qubits, the chip and the seconds charged.

    Args:
        max_service_time: seconds of QPU access that all calls may use together; nothing is sent
            without it.
        chip: name of the solver at D-Wave; the SDK's choice when None.
        copies: how often a problem is on the chip in one call, which has so many times the reads
            for one programming of the chip; ``"most"`` is as often as there is room.
        rehearse: run on the SDK's mock instead.
        **options: of `PenaltyComposite`.
    """

    paid = True

    def __init__(
        self,
        *,
        max_service_time: float | None = None,
        chip: str | None = None,
        copies: int | Literal["most"] = 1,
        rehearse: bool = False,
        **options: Any,
    ) -> None:
        if copies != "most":
            copies = whole("copies", copies, 1)
        self._annealer = _Annealer(Cap(max_service_time, "qpu"), chip, copies, rehearse)
        super().__init__(self._annealer, name="qpu", **options)

    def check(self) -> None:
        """Raises where nothing could ever be sent: no cap, no token, no network."""
        self._annealer.cap.check()
        assert self._annealer.chip

    def sample_problems(
        self,
        problems: Iterable[CardinalityProblem],
        *,
        budget: Budget | None = None,
        seed: int | None = None,
        **parameters: Any,
    ) -> list[dimod.SampleSet]:
        """Several problems in one submission, each on qubits of its own.

        The access time of the one call is reserved once, for the qubits of all. Each sample set
        has an equal share of it as its ``service_seconds``.

        Args:
            problems: they must fit on the chip together, as often as `copies` says.
            budget: its reads are those of each problem and copy.
            seed: see `sample_problem`.
            **parameters: see `sample_problem`; the same for all.

        Returns:
            A sample set for each problem, as of `sample_problem`.

        Raises:
            ParameterError: something that is no problem, or too many copies.
            BinaryQuadraticModelSizeError: problems that do not fit together.
            CostError: more access time than the cap leaves; nothing is sent.
        """
        problems = list(problems)
        self.check_parameters(parameters)
        budget = budget or Budget()
        for number, problem in enumerate(problems):
            if not isinstance(problem, CardinalityProblem):
                raise ParameterError(
                    f"problems[{number}] is a {type(problem).__name__}, expected a "
                    "CardinalityProblem"
                )
            self.check_size(problem.n)
        # A problem with one feasible state needs no chip.
        sent = [number for number, problem in enumerate(problems) if problem.only_state is None]
        answers: dict[int, dimod.SampleSet] = {}
        if sent:
            models = [
                problems[number].to_bqm(penalty_weight(problems[number], self.penalty))
                for number in sent
            ]
            request = Request(budget, seeded(seed), None, lambda state: None, NEVER)
            keywords = self.child_parameters(models[0], None, request) | parameters
            answers = dict(zip(sent, self._annealer.anneal(models, **keywords), strict=True))
        return [
            self._repaired(problem, answers.get(number), budget, seed)
            for number, problem in enumerate(problems)
        ]

    def _repaired(
        self,
        problem: CardinalityProblem,
        answer: dimod.SampleSet | None,
        budget: Budget,
        seed: int | None,
    ) -> dimod.SampleSet:
        """What `sample_problem` makes of an answer; None where there is one feasible state."""
        ready = self._annealer if answer is None else _Answered(answer)
        composite = PenaltyComposite(
            ready, name=self.name, penalty=self.penalty, repair=self.repair
        )
        samples = composite.sample_problem(problem, budget=budget, seed=seed)
        if answer is not None:
            samples.info["timing"]["execute"] += answer.info["timing"]["execute"]
        return samples
