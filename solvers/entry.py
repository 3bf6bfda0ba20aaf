"""What the registry says of one solver, without importing it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solvers.request import Track


@dataclass(frozen=True)
class Entry:
    """One registered solver.

    Attributes:
        target: ``module:class``.
        track: ``native`` or ``penalised``; None: its class says (solvers of other packages).
        summary: one line for people.
        needs: modules the solver imports beyond the package's own.
        extra: the optional dependency group that brings them; empty for base dependencies.
        paid: whether a call costs money; such a solver has the option ``rehearse``.
        resource: what a machine needs to run it beyond packages (a GPU, a licence, a token); on a
            cluster the solver goes only to workers that say they have it.
        honours: the parts of a `solvers.base.Budget` that count.
        exact: whether it can prove the optimum.
        max_variables: the size limit of a solver made without options.
        takes_initial: whether it can start from a given state.
        takes_groups: whether it keeps a number of ones in each of several groups.

    The last five are what `make(name).properties` says, for lists that must not import an SDK.
    """

    target: str
    track: Track | None
    summary: str
    needs: tuple[str, ...] = ()
    extra: str = ""
    paid: bool = False
    resource: str = ""
    honours: tuple[str, ...] = ()
    exact: bool = False
    max_variables: int | None = None
    takes_initial: bool = False
    takes_groups: bool = False

    @property
    def lane(self) -> Track | None:
        """The former name of `track`.

        Warns:
            DeprecationWarning: names the new one.
        """
        warnings.warn("Entry.lane is now track", DeprecationWarning, stacklevel=2)
        return self.track

    @property
    def properties(self) -> dict[str, Any]:
        """Those of the solver; empty for one of another package, which must be loaded first."""
        if self.track is None:
            return {}
        return {
            "track": self.track,
            "lane": self.track,
            "exact": self.exact,
            "max_variables": self.max_variables,
            "honours": list(self.honours),
            "takes_initial": self.takes_initial,
            "takes_groups": self.takes_groups,
        }
