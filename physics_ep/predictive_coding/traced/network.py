"""A predictive coding network that is any differentiable torch model (`from_module` makes it)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ...blocks import State, all_finite
from ...errors import InputError, argument_error, described
from ...holding import HoldsNoise
from ...stillness import Stillness
from ...system import EnergySystem, Inputs, Phase
from ..forward import gate_mode
from .gates import RULES
from .graph import CallGraph
from .passes import FreePass, predictions
from .phase import ModulePhase, UnitMotion, halves
from .recording import NoInputError, record, replayed
from .sweeps import SOLVERS
from .units import choose, layouts

GRAPHS = 16
"""Recorded passes that are kept, one a shape of the input and a mode of the modules; more cost memory."""
ROUNDINGS = 1e4
"""Roundings of its largest output by which a recorded pass may differ from the model: sums have other orders."""


class ModuleNetwork(HoldsNoise, EnergySystem):
    """A torch model as a predictive coding network, trained by equilibrium propagation.

    The model's forward pass is recorded, and cut at units h_k (behind activations, sums, steps of time):

        h_k = f_k(parents; theta) + e_k,        E = 1/2 sum_k |e_k|^2

    The forward pass is the free equilibrium, with E = 0 and dE/dtheta = 0. A state holds the units' values, (B,
    ...) each, the output last. `network(x)` is the model's own forward pass. Parameters, buffers and submodules
    bear the model's names.

    A pass is recorded anew for each shape of the input and each mode of the modules, so that batches of other sizes
    and switches between training and evaluation mode are as in the model. What is drawn at random (dropout) is
    drawn at the free phase of a step, and held until the next step.

    Parameters
    ----------
    model : nn.Module
        It is not copied: the network holds its tensors.
    example : Tensor (B, ...)
    units : 'auto' or sequence of str
    gates : {'held', 'live'}
        Whether nudged phases hold masks, clips and routes as the free phase has left them.

    Attributes
    ----------
    units : tuple of str
        Names of the units, in the order of the forward pass; the last is the output.
    """

    default_solver = "anderson"
    default_max_iterations = 100
    default_oracle = "backprop"
    relative_residual = True
    residual_scale = 1.0
    nudge_scale = 1.0
    feedforward = True
    clamps = False

    def __init__(
        self, model: nn.Module, example: torch.Tensor, units: str | Sequence[str] = "auto", gates: str = "held"
    ) -> None:
        super().__init__()
        self.training = model.training
        self._gates = gate_mode(gates)
        self._asked = units if isinstance(units, str) else tuple(units)
        self._graphs: dict[Any, CallGraph] = {}
        self._noise: tuple[Any, dict[int, torch.Tensor], torch.Tensor] | None = None
        self._entered = 0
        self._kind = (example.is_floating_point(), example.ndim)
        # The same dictionaries: what is moved, loaded or put in the place of another is so in the model.
        for name in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[name] = getattr(model, name)
        self.__dict__["_source"] = model
        self._unit_names = tuple(unit.name for unit in self.graph(example).units)

    @property
    def units(self) -> tuple[str, ...]:
        return self._unit_names

    @property
    def gates(self) -> str:
        return self._gates

    @gates.setter
    def gates(self, gates: str) -> None:
        self._gates = gate_mode(gates)

    @property
    def source(self) -> nn.Module:
        """The model, with the network's own tensors."""
        model: nn.Module = self.__dict__["_source"]
        return model

    @property
    def module_kinds(self) -> dict[str, str]:
        """Class of each module of the model, by path."""
        return {name: type(module).__name__ for name, module in self.source.named_modules()}

    def extra_repr(self) -> str:
        return f"{type(self.source).__name__}, {len(self.units)} units, gates={self.gates!r}"

    def __getstate__(self) -> dict[str, Any]:
        """Recorded passes are left out: they are recorded again."""
        return {**self.__dict__, "_graphs": {}}

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.source.training = mode
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the model returns; within a step and for oracles, with the random numbers that the step has
        drawn."""
        if self._entered and self._noise is not None and self._noise[0] == self._draws(x):
            with replayed(self._noise[2], x.device):
                found: torch.Tensor = self.source(x)
            return found
        found = self.source(x)
        return found

    # -- recorded passes --------------------------------------------------------------------------------------

    def graph(self, x: torch.Tensor) -> CallGraph:
        """The recorded pass for inputs of this shape, in the present mode."""
        key = self._key(x)
        if key not in self._graphs:
            if len(self._graphs) >= GRAPHS:
                self._graphs.pop(next(iter(self._graphs)))
            try:
                with Stillness(self):
                    self._graphs[key] = self._recorded(x)
            except NoInputError as error:
                name = "x" if "_unit_names" in self.__dict__ else "example"
                raise InputError(f"Argument {name} must {error}") from error
        return self._graphs[key]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers by all their names."""
        named: dict[str, torch.Tensor] = dict(self.named_buffers(remove_duplicate=False))
        named.update(self.named_parameters(remove_duplicate=False))
        return named

    def _key(self, x: torch.Tensor) -> Any:
        return self._draws(x), x.dtype, x.device, self.dtype

    def _draws(self, x: torch.Tensor) -> Any:
        """What random draws depend on: a copy in another dtype makes the same."""
        modes = tuple(
            (type(m), m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in self.source.modules()
        )
        return tuple(x.shape), modes

    def _recorded(self, x: torch.Tensor) -> CallGraph:
        tensors = self.tensors()
        names = {id(t): name for name, t in reversed(tensors.items())}
        x = x.detach()
        rows = _rows_for_probes(x)
        batches = [x, rows[:2], rows]
        found, changed = [], False
        for part in batches:
            with _Restored(self) as buffers:
                found.append(record(self.source, names, part.clone()))  # it may write into its input
            changed = changed or buffers.changed
        graphs, values = [g for g, _ in found], [v for _, v in found]
        where, coupled = layouts(graphs, values, [len(part) for part in batches])
        graph = graphs[0]
        graph.with_units(choose(graph, where, self._asked))
        graph.coupled = coupled
        graph.mutates = graph.mutates or changed
        with _Restored(self):
            self._compare(graph, tensors, rows[torch.arange(len(x)) % 3])
        return graph

    def _compare(self, graph: CallGraph, tensors: dict[str, torch.Tensor], x: torch.Tensor) -> None:
        """Refuse a record that does not return what the model does for other numbers than those it was made with.

        Raises
        ------
        InputError
            If the outputs of the record and of the model differ, or are not finite.
        """
        state = torch.cuda.get_rng_state(x.device) if x.device.type == "cuda" else torch.get_rng_state()
        with torch.no_grad():
            with replayed(state, x.device):
                mine = FreePass(graph, tensors, x, held=False).states[-1]
            with replayed(state, x.device):
                theirs = self.source(x.clone())
        if theirs.is_floating_point() and not all_finite(theirs):
            raise argument_error("model", "return finite outputs", "one that returns NaN or infinite ones")
        away, size = float((mine.reshape(theirs.shape) - theirs).abs().max()), float(theirs.abs().max())
        if not away <= ROUNDINGS * torch.finfo(theirs.dtype).eps * max(size, 1e-30):
            raise InputError(
                f"Argument model must be one function of its input, but its recorded pass is {away:.2g} away from "
                "it on other numbers: something in it is fixed when it is recorded (a write into a view, or "
                "an operation outside of torch)."
            )

    # -- what is drawn at random ------------------------------------------------------------------------------

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Within this context, evaluations use the random numbers that the last step has drawn."""
        self._entered += 1
        try:
            yield
        finally:
            self._entered -= 1

    def renew(self) -> None:
        """Let the next free phase draw new random numbers, such as dropout masks; an oracle's phases keep the
        old ones.
        """
        if self._entered <= 1:
            self._noise = None

    def update_statistics(self, x: torch.Tensor) -> None:
        """Let running statistics of batch norms take in one batch, by a forward pass with the dropout masks that
        were drawn.
        """
        norms = (m for m in self.modules() if isinstance(m, _NormBase) and m.training)
        if not any(m.track_running_stats for m in norms) and not self.graph(x).mutates:
            return
        state = self._noise[2] if self._noise is not None else torch.get_rng_state()
        with torch.no_grad(), replayed(state, x.device):
            self.source(x)

    # -- the contract of a system -----------------------------------------------------------------------------

    def check_input(self, x: torch.Tensor) -> None:
        found = described(x)
        floating, ndim = self._kind
        if not isinstance(found, tuple) or len(found) != ndim:
            raise argument_error("x", f"be a tensor of {ndim} axes, the batch in front, as the example was", found)
        if x.is_floating_point() != floating:
            raise argument_error(
                "x", f"hold {'real numbers' if floating else 'integers'}, as the example did", x.dtype
            )
        if floating and x.dtype != self.dtype:
            raise argument_error("x", f"have the network's dtype {self.dtype}", x.dtype)
        if not len(x):
            raise argument_error("x", "hold at least one example", f"of shape {tuple(x.shape)}")
        if not all_finite(x):
            raise argument_error("x", "be finite", "NaN or infinite entries")

    def _free(self, x: torch.Tensor, gates: str) -> FreePass:
        graph = self.graph(x)
        key = self._draws(x)
        noise = self._noise[1] if self._noise is not None and self._noise[0] == key else None
        first = torch.cuda.get_rng_state(x.device) if x.device.type == "cuda" else torch.get_rng_state()
        free = FreePass(graph, self.tensors(), x, gates == "held", noise)
        if graph.random and noise is None:
            self._noise = key, free.noise, first
        return free

    def prepare(self, x: torch.Tensor, gates: str | None = None) -> Inputs:
        self.check_input(x)
        return Inputs(x, self._free(x, gate_mode(gates or self.gates)))

    def phase(
        self, inputs: Inputs, origin: State | None = None, balanced: bool = False, gates: str | None = None
    ) -> ModulePhase:
        """Relaxation problem; `gates` overrules the network's."""
        held = gate_mode(gates or self.gates) == "held"
        if inputs.cache.held != held:
            inputs = Inputs(inputs.x, self._free(inputs.x, "held" if held else "live"))
        return ModulePhase(self, inputs, origin, balanced)

    def solvers(self, phase: Phase) -> dict[str, Any]:
        return SOLVERS

    def motion(self, phase: Phase) -> UnitMotion:
        return UnitMotion(phase)

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        graph = self.graph(x)
        free = self._free(x, "live") if graph.random else None
        call = _plain_call if free is None else free.call
        found = predictions(graph, self.tensors(), x, state, call)
        return halves([h - f for h, f in zip(state, found, strict=True)])

    def acted_on(self, x: torch.Tensor) -> dict[str, tuple[int, ...]]:
        """Numbers of the units on which each parameter acts directly, by name."""
        return self.graph(x).acted_on()

    @property
    def has_gates(self) -> bool:
        """Whether a pass has masks, clips or routes that nudged phases may hold."""
        return any(node.from_unit and node.name in RULES for g in self._graphs.values() for node in g.nodes)

    def initial_state(self, x: torch.Tensor) -> State:
        with torch.no_grad():
            return self._free(x, "live").states

    def outputs(self, state: State) -> torch.Tensor:
        return state[-1].reshape(len(state[-1]), -1)

    def contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        if len(plus) == len(free):  # bare displacements, without the errors that phases carry
            return super().contrast(free, plus, minus, x, weight)
        return self.phase(self.prepare(x), free).contrast(self, free, plus, minus, x, weight)

    def default_tolerance(self, dtype: torch.dtype) -> float:
        """1e-10 in float64; 1e-2 in float32, 5e-2 in bfloat16, as of `PredictiveCodingNetwork`."""
        return {torch.float64: 1e-10, torch.float32: 1e-2}.get(dtype, 5e-2)


class _Restored:
    """Within, a model may change its buffers, or put others in their place; afterwards they are what they were.

    Attributes
    ----------
    changed : bool
        Whether there was something to restore.
    """

    def __init__(self, model: nn.Module) -> None:
        own = (m._buffers for m in model.modules())
        self.places = [(b, n, t, t.detach().clone()) for b in own for n, t in b.items() if t is not None]
        self.changed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with torch.no_grad():
            for buffers, name, tensor, value in self.places:
                whole, kept = (t.to_dense() if t.layout != torch.strided else t for t in (tensor, value))
                if buffers.get(name) is not tensor or not torch.equal(whole, kept):
                    self.changed = True
                    buffers[name] = tensor
                    tensor.copy_(value)


def _plain_call(i: int, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if node.cut:
        with torch.no_grad():
            return node.function(*args, **kwargs)
    return node.function(*args, **kwargs)


def _rows_for_probes(x: torch.Tensor) -> torch.Tensor:
    """Three different examples like those of x."""
    if len(x) >= 3:
        return x[:3].clone()
    spare = [x, x.flip(-1), x.roll(1, -1)] if x.ndim > 1 else [x, x, x]
    if x.is_floating_point():
        spare = [part * scale for part, scale in zip(spare, (1.0, 0.9, 0.8), strict=True)]
    return torch.cat(spare)[[0, len(x), 2 * len(x)]] if len(x) == 1 else torch.cat([x, spare[1][:1]])
