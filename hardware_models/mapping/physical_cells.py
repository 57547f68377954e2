"""The physical cells of a network's weights: what each array of them serves, its draws, and what they amount to.

A weight is a list of cells, each a pair of conductances, that drive the units h, drive the units u, and feed h - u
back. `PhysicalCells.serving` says which of these one array of cells does on a substrate, and `DeviceModel.copies`
what the draws of arrays that hold the same weights have in common. Everything else asks by purpose, and need not
know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from physics_ep.predictive_coding import PredictiveCodingNetwork

from ..devices.crossbars import Cells, copied, programmed, stream, trimmed
from ..devices.model import DeviceModel
from ..devices.wires import wired
from .dissipation import back_lines
from .node_sums import Array, arrays_of, into_nodes, of_lines, out_of_nodes

Side = Literal["h", "u"]
"""The units of a layer: h, which descend, or u, which carry the prediction."""
SIDES: tuple[Side, ...] = ("h", "u")
Copy = Literal["h", "u", "transpose"]
"""The copy of an array: the one that drives h, the one that drives u, or the one that feeds back to h."""
COPIES: tuple[Copy, ...] = ("h", "u", "transpose")
KEPT = 400_000
"""Weights of an array up to which its cells are kept, to be drawn as parts of a circuit."""
Ends = dict[str, tuple[torch.Tensor, torch.Tensor]]


class PhysicalCells(PredictiveCodingNetwork):
    """The cells of one device instance, whatever is between them and the units: the lower half of a `Board`.

    Attributes
    ----------
    device_model : DeviceModel
    seed : int
    scales : dict of str to float
        Weight per siemens of each array.
    writings, missed : int
        Writings that trimming the copies took, and cells that it left beyond the tolerance.
    one_array, read_both_ways : bool
        Whether u has the weights of h; and whether what is fed back has.
    """

    device_model: DeviceModel
    seed: int
    scales: dict[str, float]
    writings: int
    missed: int
    one_array: bool
    read_both_ways: bool

    @classmethod
    def serving(cls, device: DeviceModel) -> tuple[tuple[Copy, ...], ...]:
        """The arrays of cells that a weight has on such devices, each by what it serves; the first drives h.

        This default is one array between rows and columns at virtual grounds, whose currents are mirrored to h and
        u, and that is read the other way; and arrays of their own for what `copy_mismatch_*` and `transpose` say.
        """
        own_u = device.copy_mismatch_h != 0 or device.copy_mismatch_u != 0
        first: tuple[Copy, ...] = ("h",) if own_u else ("h", "u")
        rest: tuple[tuple[Copy, ...], ...] = (("u",),) if own_u else ()
        second = device.copy_mismatch_h != 0 or device.copy_mismatch_transpose != 0
        if device.transpose == "array" or (device.transpose is None and second):
            return (first, *rest, ("transpose",))
        return ((*first, "transpose"), *rest)

    def physical(self, name: str) -> dict[str, tuple[Copy, ...]]:
        """The arrays of cells that hold a parameter, by the keys of their draws: what each serves.

        The first has the parameter's own name. A bias has no cells that feed back.
        """
        biased = self._array(name).link is None
        groups = [tuple(r for r in g if not biased or r in SIDES) for g in self.serving(self.device_model)]
        return {name if not n else f"{name}/{roles[0]}": roles for n, roles in enumerate(groups) if roles}

    def physical_arrays(self, name: str) -> int:
        """How many arrays of cells hold a parameter. What feeds back to the inputs is none, since nobody is there:
        a gradient by the inputs is asked of the simulation alone."""
        fed = self._array(name).fed is not None
        return sum(fed or any(role in SIDES for role in roles) for roles in self.physical(name).values())

    def dummies(self, name: str) -> int:
        """Arrays of dummy cells that stand beside those of a parameter, for equal capacitances."""
        return 0

    def _array(self, name: str) -> Array:
        return next(a for a in arrays_of(self.stack) if a.name == name)

    def served_apart(self, a: Copy, b: Copy) -> bool:
        """Whether two purposes are served by different cells that do not err alike."""
        device = self.device_model
        if any(getattr(device, f"copy_mismatch_{role}") != 0 for role in (a, b)):
            return True
        return device.copies != "shared" and not any({a, b} <= {*g} for g in self.serving(device))

    def programmed(self, name: str, values: torch.Tensor, span: float) -> dict[str, Cells]:
        """Write weights into the arrays of cells that hold a parameter, as `DeviceModel.copies` says.

        Parameters
        ----------
        name : str
        values : Tensor
        span : float
            Weight that a cell at g_max holds beside one at g_min.

        Returns
        -------
        dict of str to Cells
            By the keys of `physical`. Copies that err alike are one object.
        """
        device, keys = self.device_model, list(self.physical(name))
        first = programmed(values, device, self.seed, name, span=span)
        if device.copies == "shared" or not device.draws_cells:
            return dict.fromkeys(keys, first)
        if device.copies == "independent":
            own = (programmed(values, device, self.seed, key, span=span) for key in keys[1:])
            return dict(zip(keys, (first, *own), strict=True))
        fresh = first
        if device.drifted:
            fresh = programmed(values, device.replace(drift_time=0.0), self.seed, name, span=span)
        return {name: first, **self.trimmed(name, fresh)}

    def trimmed(
        self, name: str, first: Cells, turn: int = 0, before: Mapping[str, Cells] | None = None
    ) -> dict[str, Cells]:
        """Write and verify the other copies of an array against the first, before that has drifted: for the
        `turn`-th time, after they have held what stood `before`."""
        found = {}
        for key in list(self.physical(name))[1:]:
            held = None if before is None else (before[name], before[key])
            done = trimmed(first, self.device_model, self.seed, key, turn, held)
            self.writings += done.writings
            self.missed += done.missed
            found[key] = done.cells
        return found

    def acting(self, name: str, bank: Mapping[str, Cells]) -> dict[Copy, Cells]:
        """What the cells of a parameter amount to for each purpose that they serve.

        Wires and the mismatch of copies are in it. Purposes that are served alike have one object.
        """
        wires: dict[int, Cells] = {}
        found: dict[Copy, Cells] = {}
        for key, roles in self.physical(name).items():
            cells = bank.get(key, bank[name])
            if id(cells) not in wires:
                wires[id(cells)] = wired(cells, self.device_model)
            found |= {role: self.mismatched(name, role, wires[id(cells)]) for role in roles}
        return found

    def mismatched(self, name: str, role: Copy, cells: Cells) -> Cells:
        """Cells with what `copy_mismatch_*` adds where they serve this purpose."""
        mismatch = getattr(self.device_model, f"copy_mismatch_{role}")
        return copied(cells, mismatch, stream(self.seed, name, role))

    def _compare_copies(self) -> None:
        """Find out which copies differ; called after each writing."""

        def one(role: Copy) -> bool:
            return all(self._kept(f"{role}/{name}") is None for name in self.scales)

        self.one_array, self.read_both_ways = one("u"), one("transpose")

    keeps_cells = False
    """Whether the cells of small arrays are kept, for a list of parts."""

    @property
    def cells(self) -> dict[str, Cells]:
        """What the arrays of cells hold, of small ones, before copy mismatch, by the keys of `physical`."""
        found = {}
        for name, scale in self.scales.items():
            for key in self.physical(name):
                plus, minus = self._kept(f"plus/{key}"), self._kept(f"minus/{key}")
                if plus is not None and minus is not None:
                    found[key] = Cells(plus, minus, scale)
        return found

    def cells_of(self, name: str, copy: Copy) -> Cells:
        """Cells of the copy of an array that serves 'h', 'u' or the 'transpose'; of those in `cells`."""
        key = next(key for key, roles in self.physical(name).items() if copy in roles)
        return self.mismatched(name, copy, self.cells[key])

    # -- what the cells take -----------------------------------------------------------------------------------

    def forward_roles(self) -> list[Side]:
        """The units that each array drives first, an entry for each array that drives any."""
        groups = self.serving(self.device_model)
        return [next(r for r in group if r in SIDES) for group in groups if {*group} & {*SIDES}]

    def _keep_drains(self, name: str, found: Mapping[Copy, Cells]) -> None:
        for role in self.forward_roles():
            cells = found[role]
            link = self._array(name).link
            self._keep(f"drain_{role}/{name}", of_lines(link, cells.plus) + of_lines(link, cells.minus))
        array, back = self._array(name), found.get("transpose")
        if back is not None and array.link is not None and array.fed is not None:
            self._keep(f"drain_back/{name}", back_lines(array.link, back.plus) + back_lines(array.link, back.minus))

    def drains(self, name: str) -> torch.Tensor:
        """Conductance that each line of the arrays which drive units h and u shows its driver, of all of them, S
        as `node_sums.of_lines` has it; of a bias row one number."""
        lines = [self._kept(f"drain_{role}/{name}") for role in self.forward_roles()]
        return torch.stack([line for line in lines if line is not None]).sum(0)

    def back_drains(self, name: str) -> torch.Tensor:
        """The same of the lines that errors drive where an array feeds back, S, as `dissipation.back_lines` has
        it."""
        found = self._kept(f"drain_back/{name}")
        assert found is not None
        return found

    # -- sums of cells, where a substrate asks for them --------------------------------------------------------

    sums_cells = False
    """Whether sums of the cells at the ends of arrays are kept, because nodes or grounds depend on them."""

    def _keep_sums(self, name: str, found: Mapping[Copy, Cells], asked: torch.Tensor | None) -> None:
        array = self._array(name)
        if asked is not None:
            # Two cells at g_min, and the one that holds the weight.
            sizes = asked.abs() / self.scales[name] if self.scales[name] > 0 else torch.zeros_like(asked)
            self._keep_ends("asked", name, self._ends(array, sizes + 2 * self.device_model.g_min))
        distinct = {id(cells): cells for cells in found.values()}
        ends = {key: self._ends(array, cells.plus + cells.minus) for key, cells in distinct.items()}
        for role, cells in found.items():
            self._keep_ends(role, name, ends[id(cells)])

    def _keep_ends(self, of: str, name: str, ends: tuple[torch.Tensor, torch.Tensor]) -> None:
        for end, value in zip(("into", "out"), ends, strict=True):
            self._keep(f"{of} {end}/{name}", value)

    def kept_ends(self, of: Copy | Literal["asked"]) -> Ends:
        """Sums of cells at both ends of each array that has been placed, by its name, S.

        They are (*post) at the units above and (*pre) at those below.

        They are those of the copy that serves 'h', 'u' or the 'transpose', or of the cells that were 'asked' for.
        """
        kept = {name: (self._kept(f"{of} into/{name}"), self._kept(f"{of} out/{name}")) for name in self.scales}
        return {name: (a, b) for name, (a, b) in kept.items() if a is not None and b is not None}

    def _ends(self, array: Array, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums of an array's cells at its units, (*post), and at those below whose rails drive it, (*pre)."""
        if array.link is None:
            post = self.stack[array.k].post
            into = cells.view(-1, *[1] * (len(post) - 1)).expand(post)
            return into, into.new_zeros(())
        return into_nodes(array.link, cells), out_of_nodes(array.link, cells)

    def node_sums(self, of: Copy | Literal["asked"]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Cells that drive each layer's nodes, and cells that feed back to h, S (*shape)."""
        ends = self.kept_ends(of)
        forward, back = (
            [torch.zeros(layer.post, dtype=self.dtype, device=self.device) for layer in self.stack] for _ in "hu"
        )
        for array in arrays_of(self.stack):
            if array.name in ends:  # not all are there while the first are placed
                into, out = ends[array.name]
                forward[array.k] = forward[array.k] + into
                if array.fed is not None:
                    back[array.fed] = back[array.fed] + out
        return forward, back

    # -- what is kept beside the parameters --------------------------------------------------------------------

    def _keep(self, name: str, value: torch.Tensor | None) -> None:
        """Keep a tensor that moves with the module and is no part of its `state_dict`."""
        self.register_buffer(name.replace(".", "/"), value, persistent=False)

    def _kept(self, name: str) -> torch.Tensor | None:
        """What was kept under this name; None where nothing was."""
        return self._buffers.get(name.replace(".", "/"))
