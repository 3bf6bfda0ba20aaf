"""Instances and solvers: cut, solvers, solve, quote."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.app import AsJson, command, numbers, output_folder, typed
from experiments.cli.tables import print_table
from solvers.errors import FormatError, ParameterError, UnavailableError

if TYPE_CHECKING:
    import dimod

    from solvers.problem import CardinalityProblem

# Names of variables that are printed for people; the others are in the JSON.
MOST_NAMES = 100


@command("icbs cut blocks/model.layers.28.mlp.up_proj-n1024-position.block.safetensors --out sub")
def cut(
    block: Annotated[
        Path, typer.Argument(help="A .block.safetensors file that holds its current mask.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    sizes: Annotated[
        str,
        typer.Option(help="Variables of the sub-blocks: even numbers from 4, by commas."),
    ] = "8,12,16,20,24",
) -> None:
    """Cut small sub-blocks, nested in each other, out of a block.

    They are for quantum devices: the variables are chosen so that their couplings matter. Each file
    holds the proven optimum and the share of the energy's variance that no sort explains.
    """
    from experiments.instances.library.reading import instance
    from experiments.instances.subblocks import nested_subblocks
    from solvers import save
    from solvers.io.formats import CONTAINER

    wanted, problem = numbers(sizes, int, "--sizes"), instance(block)
    if problem.initial is None:
        raise FormatError(
            f"{block.name} holds no current mask, at which the other variables stay: take a block "
            "that 'icbs export' wrote"
        )
    family = nested_subblocks(problem, wanted)
    output_folder(out)
    for n, problem in family.items():
        print(save(problem, out / f"{block.name.removesuffix(CONTAINER)}-sub{n}{CONTAINER}"))


@command("icbs solvers --json")
def solvers(
    as_json: AsJson = False,
) -> None:
    """List the solvers and what each can do.

    The tracks are not ranked together: native solvers keep the number of ones by construction;
    penalised ones get it as a penalty, and their samples are repaired (raw and repaired results are
    both kept). An exact solver can prove its answer optimal. "Heeds" says which parts of a budget
    count for a solver: time, reads (restarts or shots), sweeps.

    Nothing is asked over the network: whether a paid device can be reached is found out when a
    study starts, and what it costs by 'icbs quote'.
    """
    from solvers import available, make
    from solvers.registry import registered

    records = []
    for name, reason in available().items():
        known = registered()[name]
        record: dict[str, Any] = {"name": name, "track": known.track, "summary": known.summary}
        record |= known.properties
        if known.track is None and reason is None:
            try:
                record |= make(name).properties
            except UnavailableError as error:
                reason = str(error)
        records.append(record | {"needs": list(known.needs), "unavailable": reason})
    if as_json:
        print(json.dumps(records, indent=2))
        return
    rows = [
        (
            record["name"],
            (record["track"] or "-") + (", exact" if record.get("exact") else ""),
            record.get("max_variables") or "-",
            ", ".join(word.removesuffix("_limit") for word in record.get("honours", ())) or "-",
            f"not here: {record['unavailable']}" if record["unavailable"] else record["summary"],
        )
        for record in records
    ]
    columns = ("solver", "track", "max n", "heeds", "what it does")
    print_table("Solvers", columns, rows)


def _in_its_unit(problem: CardinalityProblem, energy: float) -> dict[str, float]:
    """The energy times the scale, under the name of what that is; nothing where it has none."""
    names = {"loss": "loss_change", "row": "squared_output_error"}
    name = names.get(problem.meta.get("kind", "loss"))
    return {} if name is None else {name: energy * problem.scale}


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _shown(value: Any) -> object:
    """A value for people: not None, True or False."""
    words = {None: "-", True: "yes", False: "no"}
    return words[value] if value is None or isinstance(value, bool) else value


@command(
    "icbs solve library:rows/smollm2-15-up-r289-d0.5 --solver tabu --time-limit 1",
    "icbs solve blocks/a.block.safetensors --solver relaxation --json",
)
def solve(
    instance: Annotated[
        Path,
        typer.Argument(
            help="A file of a problem: .block.safetensors, .bqm, .lp, .qplib and so on; or "
            "library:NAME, one of 'icbs instances list'."
        ),
    ],
    solver: Annotated[str, typer.Option(help="Name from 'icbs solvers'.")] = "annealing",
    time_limit: Annotated[
        float | None, typer.Option(help="Seconds; the solver's own default if left out.")
    ] = None,
    reads: Annotated[int | None, typer.Option(help="Independent restarts or shots.")] = None,
    seed: Annotated[
        int, typer.Option(help="Of everything random: the same seed gives the same answer.")
    ] = 0,
    cardinality: Annotated[
        int | None, typer.Option(help="Number of ones, for files that do not say.")
    ] = None,
    give_initial: Annotated[
        bool,
        typer.Option(
            "--give-initial", help="Start from the current mask in the file; not every solver can."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Solve one instance and print the best feasible state found.

    Energies are minimised. A .ubqp file maximises, as those of MQLib and OR-Library do, unless this
    program wrote it; a .sparse file minimises, as those of Biq Mac do. If the file maximises, its
    objective is printed as well.
    """
    from experiments.instances.library.reading import instance as problem_of
    from solvers import Budget, make

    budget = Budget(time_limit=time_limit, reads=reads)
    sampler = make(solver)
    if give_initial and not sampler.takes_initial:
        raise ParameterError(f"{solver} cannot start from a given mask: leave --give-initial out")
    problem = problem_of(instance, cardinality)
    if give_initial and problem.initial is None:
        raise FormatError(f"{instance.name} holds no current mask: leave --give-initial out")
    samples = sampler.sample_problem(
        problem.blinded(),
        budget=budget,
        seed=seed,
        initial=problem.initial if give_initial else None,
    )
    answer = {"solver": solver, "track": sampler.track, **_answer(problem, samples)}
    if as_json:
        print(json.dumps(answer))
    else:
        _print_answer(instance.name, problem, answer)


def _answer(problem: CardinalityProblem, samples: dimod.SampleSet) -> dict[str, Any]:
    """What --json prints of the best sample, without who found it."""
    states = samples.record.sample
    # The solver does not grade itself.
    energies = problem.energy(states)
    best = int(energies.argmin())
    energy, ones = float(energies[best]), states[best].nonzero()[0].tolist()
    answer = {
        "lane": samples.info["track"],
        "n": problem.n,
        "cardinality": problem.cardinality,
        "groups": problem.num_groups,
        "energy": energy,
        **_in_its_unit(problem, energy),
        "lower_bound": samples.info.get("lower_bound"),
        "proved_optimal": bool(samples.info.get("proved_optimal", False)),
        "tolerance": samples.info.get("tolerance"),
        "reads": int(samples.record.num_occurrences.sum()),
        "received_start": samples.info["received_start"],
        "received_incumbent": samples.info["received_start"],
        "seconds": samples.info["timing"],
        "warm_up": samples.info.get("warm_up", 0.0),
        "ones": ones,
        "names": None if problem.labels is None else [problem.labels[i] for i in ones],
        "fixed": problem.meta.get("fixed") or {},
    }
    if problem.meta.get("sense") == "max":
        answer["objective"] = -energy
    return answer


def _print_answer(title: str, problem: CardinalityProblem, answer: dict[str, Any]) -> None:
    """The same for people: a table, and the names of the ones."""
    ones, names, seconds = answer["ones"], answer["names"], answer["seconds"]
    # The first two are said for one more release, in --json.
    others = ("lane", "received_incumbent", "ones", "names", "fixed", "seconds", "warm_up")
    named = {"received_start": "given the current mask"}
    rows = [(named.get(key, key.replace("_", " ")), _shown(value)) for key, value in answer.items()
            if key not in others]  # fmt: skip
    rows += [(f"seconds, {stage}", f"{value:.4f}") for stage, value in seconds.items() if value]
    if answer["warm_up"]:
        rows.append(("seconds before, to load or compile the solver", f"{answer['warm_up']:.4f}"))
    if problem.initial is not None:
        swaps = sum(not problem.initial[i] for i in ones)
        rows.append(("swaps from the current mask", swaps))
    print_table(title, ("", ""), rows)
    if answer["fixed"]:
        print(f"fixed by the file: {json.dumps(answer['fixed'])}")
    if names is None:
        print(f"{_counted(len(ones), 'one')}; their places: --json")
    else:
        shown = [name if name.isprintable() else repr(name) for name in names[:MOST_NAMES]]
        print(f"{_counted(len(ones), 'one')}: {', '.join(shown)}", end="")
        print("" if len(shown) == len(ones) else ", ...; all: --json")


@command(
    "icbs quote device.toml", "icbs quote sub/*.block.safetensors --device Garnet --shots 1000"
)
def quote(
    context: typer.Context,
    what: Annotated[list[Path], typer.Argument(help="Instance files, or one STUDY.toml.")],
    device: Annotated[
        str | None,
        typer.Option(help="Name of an Amazon Braket device, such as SV1 or Garnet, or its ARN."),
    ] = None,
    shots: Annotated[int | None, typer.Option(help="Shots of one circuit.")] = None,
    tasks: Annotated[
        int, typer.Option(help="Circuits for each instance: seeds x depths x mixers.")
    ] = 1,
    task_seconds: Annotated[
        float, typer.Option(help="Longest run time of a task on a simulator, in seconds.")
    ] = 60.0,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use the price table in the package; ask nobody.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a study, or a task for each instance, costs on Amazon Braket.

    Nothing is submitted and no account is needed. A study says which devices, budgets and seeds;
    for instance files, give --device and --shots. Instances that do not fit the device are not
    counted: solvers skip them. Simulators bill their run time, at least 3 seconds a task, so their
    quote is a range. Circuits of a study go out as program sets where the device takes them, with
    one fee for a set; for instance files both ways are priced.
    """
    from experiments.instances.library.reading import instance
    from solvers.cloud.devices import find_device, priced

    if any(path.suffix == ".toml" for path in what):
        if len(what) > 1:
            raise typer.BadParameter("give one STUDY.toml alone, or instance files")
        if own := typed(context, "device", "shots", "tasks", "task_seconds"):
            raise typer.BadParameter(f"{own[0]} is the study's to say: write it into {what[0]}")
        _quote_study(what[0], offline, as_json)
        return
    if device is None or shots is None:
        raise typer.BadParameter("give --device and --shots, or one STUDY.toml that says them")
    if tasks < 1:
        raise typer.BadParameter(f"--tasks is {tasks}, expected a whole number from 1")
    found = find_device(device)
    parts = found.limits.parts(found.name, shots)
    found = found if offline else priced(found)
    least = sum(found.price(part) for part in parts)
    most = sum(found.price(part, task_seconds) for part in parts)
    rows = []
    count = 0
    for path in what:
        problem = instance(path)
        fits = problem.n <= found.max_variables
        sends = fits and 0 < problem.cardinality < problem.n
        sent = tasks * sends * len(parts)
        count += sent
        note = "yes" if fits else f"no, at most {found.max_variables}"
        rows.append((path.name, problem.n, note, sent))
    answer: dict[str, Any] = {
        "device": found.arn,
        "source": found.source,
        "shots": shots,
        "tasks": count,
        "usd_per_task": most / len(parts),
        "usd_at_least": count * least / len(parts),
        "usd_at_most": count * most / len(parts),
    }
    sets = found.limits.sets(count // len(parts), shots)
    if max(sets, default=1) > 1:
        together = [found.price(size * shots) for size in sets]
        answer["program_sets"] = {"tasks": len(sets), "usd": sum(together)}
    if as_json:
        fitting = [
            {"name": name, "n": n, "fits": fits == "yes", "tasks": sent}
            for name, n, fits, sent in rows
        ]
        print(json.dumps(answer | {"instances": fitting}))
        return
    print_table(found.name, ("instance", "qubits", "fits", "tasks"), rows)
    print(
        f"{_counted(count, 'task')} of {_counted(max(parts), 'shot')}: "
        f"${answer['usd_at_most']:.4f} at most",
        end="",
    )
    print("" if found.is_qpu else f", ${answer['usd_at_least']:.4f} at 3 s each")
    if "program_sets" in answer:
        together = answer["program_sets"]
        print(f"As {_counted(together['tasks'], 'program set')}: ${together['usd']:.4f} at most")
    print(f"Prices: {found.source}")


def _quote_study(path: Path, offline: bool, as_json: bool) -> None:
    from experiments.running.quoting import quote as quoted
    from experiments.study.study import Study

    found = quoted(Study.from_toml(path), offline=offline, progress=not as_json)
    count = sum(one.tasks for one in found if one.usd_at_most is not None)
    least = sum(one.usd_at_least or 0.0 for one in found)
    most = sum(one.usd_at_most or 0.0 for one in found)
    unpriced = [one.solver for one in found if one.usd_at_most is None]
    answer = {
        "tasks": count,
        "usd_at_least": least,
        "usd_at_most": most,
        "without_price": unpriced,
    }
    if as_json:
        print(json.dumps(answer | {"solvers": [asdict(one) for one in found]}))
        return
    rows = [
        (
            one.solver,
            one.device,
            one.tasks,
            f"{one.usd_at_most:.4f}",
            "none: nothing is sent" if one.max_cost is None else f"{one.max_cost:g}",
        )
        if one.usd_at_most is not None
        else (one.solver, "no price is known", one.tasks, "-", "-")
        for one in found
    ]
    print_table(path.name, ("solver", "device", "tasks", "USD at most", "max_cost"), rows)
    print(f"{_counted(count, 'task')}: ${most:.4f} at most", end="")
    print("" if least == most else f", ${least:.4f} if simulators take 3 s each", end="")
    print(f", without {', '.join(unpriced)}" if unpriced else "")
    for source in sorted({one.source for one in found if one.source}):
        print(f"Prices: {source}")
