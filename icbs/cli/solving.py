"""Instances and solvers: cut, solvers, solve, quote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from icbs.cli.app import AsJson, app, numbers, output_folder, print_table
from solvers.errors import FormatError, UnavailableError

# Names of variables that are printed for people; the others are in the JSON.
MOST_NAMES = 100


@app.command()
def cut(
    block: Annotated[Path, typer.Argument(help="A .block.safetensors file with an incumbent.")],
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    sizes: Annotated[str, typer.Option(help="Even numbers from 4 to 30.")] = "8,12,16,20,24",
) -> None:
    """Cut nested sub-blocks for a quantum device, chosen so that their couplings matter.

    Each file holds the proven optimum and the share of the variance of E that no sort explains.

    Example: icbs cut blocks/model.layers.28.mlp.up_proj-n1024-position.block.safetensors --out sub
    """
    from solvers import load, save
    from solvers.formats import CONTAINER
    from solvers.subblocks import nested_subblocks

    family = nested_subblocks(load(block), numbers(sizes, int, "--sizes"))
    output_folder(out)
    for n, problem in family.items():
        print(save(problem, out / f"{block.name.removesuffix(CONTAINER)}-sub{n}{CONTAINER}"))


@app.command()
def solvers(
    as_json: AsJson = False,
) -> None:
    """List the solvers: lane, exactness, size limit, budget, and which packages one lacks.

    Native solvers keep sum(x) = k by construction. Penalised ones get the constraint as a penalty
    and their samples are repaired; raw and repaired results are both kept.

    Only solvers of other packages are loaded, and nothing is asked over the network: whether a
    paid device can be reached is found out when a study starts, what it costs by 'icbs quote'.
    """
    from solvers import available, make
    from solvers.registry import registered

    records = []
    for name, reason in available().items():
        known = registered()[name]
        record: dict[str, Any] = {"name": name, "lane": known.lane, "summary": known.summary}
        record |= known.properties
        if known.lane is None and reason is None:
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
            (record["lane"] or "") + (", exact" if record.get("exact") else ""),
            record.get("max_variables") or "",
            ", ".join(word.removesuffix("_limit") for word in record.get("honours", ())),
            f"not here: {record['unavailable']}" if record["unavailable"] else record["summary"],
        )
        for record in records
    ]
    columns = ("solver", "lane", "max n", "heeds", "what it does")
    print_table("Solvers", columns, rows)


@app.command()
def solve(
    instance: Annotated[
        Path,
        typer.Argument(help=".block.safetensors, .bqm, .lp, .ubqp, .sparse, .qubo or .qplib file."),
    ],
    solver: Annotated[str, typer.Option(help="Name from 'icbs solvers'.")] = "annealing",
    time_limit: Annotated[float | None, typer.Option(help="Seconds.")] = None,
    reads: Annotated[int | None, typer.Option(help="Independent restarts or shots.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same answer.")] = 0,
    cardinality: Annotated[
        int | None, typer.Option(help="Number of ones, for files that do not say.")
    ] = None,
    give_initial: Annotated[
        bool, typer.Option(help="Start from the incumbent in the file, if the solver can.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Solve one instance and print the best feasible state found.

    A .ubqp file without our mark maximises, as MQLib and OR-Library do; a .sparse file minimises,
    as Biq Mac does. Energies are to be minimised: of a file that maximises, the objective is
    printed as well.

    Example: icbs solve blocks/a.block.safetensors --solver relaxation --json
    """
    from solvers import Budget, load, make

    sampler = make(solver)
    problem = load(instance, cardinality=cardinality)
    if give_initial and problem.initial is None:
        raise FormatError(f"{instance.name} holds no incumbent: leave --give-initial out")
    samples = sampler.sample_problem(
        problem.blinded(),
        budget=Budget(time_limit=time_limit, reads=reads),
        seed=seed,
        initial=problem.initial if give_initial else None,
    )
    states = samples.record.sample
    # The solver does not grade itself.
    energies = problem.energy(states)
    best = int(energies.argmin())
    answer = {
        "solver": solver,
        "lane": sampler.lane,
        "n": problem.n,
        "cardinality": problem.cardinality,
        "energy": float(energies[best]),
        "loss_change": float(energies[best]) * problem.scale,
        "lower_bound": samples.info.get("lower_bound"),
        "proved_optimal": bool(samples.info.get("proved_optimal", False)),
        "tolerance": samples.info.get("tolerance"),
        "reads": int(samples.record.num_occurrences.sum()),
        "received_incumbent": samples.info["received_incumbent"],
        "seconds": samples.info["timing"],
        "warm_up": samples.info.get("warm_up", 0.0),
        "ones": states[best].nonzero()[0].tolist(),
        "names": None,
        "fixed": problem.meta.get("fixed") or {},
    }
    if problem.meta.get("sense") == "max":
        answer["objective"] = -float(energies[best])
    if problem.labels is not None:
        answer["names"] = [problem.labels[i] for i in answer["ones"]]
    if as_json:
        print(json.dumps(answer))
        return
    ones = answer.pop("ones")
    names, fixed = answer.pop("names"), answer.pop("fixed")
    seconds, warm_up = answer.pop("seconds"), answer.pop("warm_up")
    rows = [(key, "-" if value is None else value) for key, value in answer.items()]
    rows += [(f"seconds, {stage}", f"{value:.4f}") for stage, value in seconds.items() if value]
    if warm_up:
        rows.append(("seconds before, to load or compile the solver", f"{warm_up:.4f}"))
    if problem.initial is not None:
        swaps = int((states[best].astype(bool) & ~problem.initial).sum())
        rows.append(("swaps from the incumbent", swaps))
    print_table(instance.name, ("", ""), rows)
    if fixed:
        print(f"fixed by the file: {json.dumps(fixed)}")
    if names is None:
        print(f"{len(ones)} ones; their places: --json")
    else:
        shown = [name if name.isprintable() else repr(name) for name in names[:MOST_NAMES]]
        print(f"{len(ones)} ones: {', '.join(shown)}", end="")
        print("" if len(shown) == len(ones) else ", ...; all: --json")


@app.command()
def quote(
    instances: Annotated[list[Path], typer.Argument(help="Instance files.")],
    device: Annotated[str, typer.Option(help="ARN or short name, such as SV1 or Garnet.")],
    shots: Annotated[int, typer.Option(help="Shots of one task.")],
    tasks: Annotated[int, typer.Option(help="Tasks per instance: seeds x depths x mixers.")] = 1,
    task_seconds: Annotated[
        float, typer.Option(help="Run time reserved on a simulator, as the solver's option.")
    ] = 60.0,
    offline: Annotated[bool, typer.Option(help="Use the committed price table only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Price one task per instance on a device of Amazon Braket, before anything is submitted.

    Needs no account. Simulators bill run time, 3 seconds at least: their quote is a range.

    Example: icbs quote blocks/*.block.safetensors --device Garnet --shots 1000
    """
    from solvers import load
    from solvers.qaoa.devices import find_device, priced

    if tasks < 1:
        raise typer.BadParameter(f"--tasks is {tasks}, expected a whole number from 1")
    found = find_device(device)
    found = found if offline else priced(found)
    least, most = found.price(shots), found.price(shots, task_seconds)
    rows = []
    for path in instances:
        n = load(path).n
        fits = found.qubits is None or n <= found.qubits
        rows.append((path.name, n, "yes" if fits else f"no, {found.qubits} qubits"))
    count = tasks * len(instances)
    answer = {
        "device": found.arn,
        "source": found.source,
        "shots": shots,
        "tasks": count,
        "usd_per_task": most,
        "usd_at_least": count * least,
        "usd_at_most": count * most,
    }
    if as_json:
        fitting = [{"name": name, "n": n, "fits": fits == "yes"} for name, n, fits in rows]
        print(json.dumps(answer | {"instances": fitting}))
        return
    print_table(found.name, ("instance", "qubits", "fits"), rows)
    print(f"{count} tasks of {shots} shots: ${count * most:.4f} at most", end="")
    print("" if found.is_qpu else f", ${count * least:.4f} at 3 s each")
    print(f"Prices: {found.source}")
