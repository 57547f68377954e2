"""Systems whose weights are conductances of cells.

A coupling of a plain Hopfield or resistive network is symmetric: one cell, or one pair of cells where it has a
sign, is read in both directions. The parameters of a system on a device are what its cells make of the weights that
were asked for, so that equilibria, gradients, energies and part lists are those of the drawn cells.

Cells are written by `OnDevice.program`: when a system is built, and each time weights are loaded into it. A change
of a parameter after that, as by an optimizer, is a wish: `constrain`, which EP calls before each gradient and
training after each step, turns it into pulses (`pulses.PulsedArray`), and puts what the cells then hold into the
parameter.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch

from physics_ep.blocks import State
from physics_ep.cost import Cost
from physics_ep.errors import InputError, argument_error
from physics_ep.estimators.propagation import EquilibriumPropagation, estimate_gradient
from physics_ep.estimators.step import Step
from physics_ep.nudging import Stencil
from physics_ep.relaxation.loop import relax
from physics_ep.system import EnergySystem

from .crossbars import converted, largest_size, programmed, programmed_singly, stream
from .fields import defaults_of, fields_of
from .model import DeviceModel
from .presets import check_idle, given_device, undescribed
from .pulses import PulsedArray

Device = DeviceModel | Mapping[str, Any] | str | None
"""What a constructor takes as `device`: see `presets.given_device`; None: no device."""

CELLS = frozenset(
    {
        "g_min",
        "g_max",
        "levels",
        "spacing",
        "programming_noise",
        "device_mismatch",
        "stuck_off",
        "stuck_on",
        "drift_exponent",
        "drift_spread",
        "drift_time",
        "drift_reference",
    }
)
READINGS = frozenset({"read_noise", "adc_bits", "adc_range"})
TOLD = frozenset({"learning", "description"})
"""Parts of a device's fields that no system chooses: how cells learn, and what the device takes."""
COSTED = frozenset({"time_constant", "voltage"})
"""Fields that the motion of a model without seconds and volts does not read, and what an inference costs does."""
SAVED = "cells."
"""How names begin, in a `state_dict`, of what is known of cells beside the weights that they hold."""


class OnDevice(EnergySystem):
    """A system whose weights may be held by the cells of a device.

    Attributes
    ----------
    device_model : DeviceModel or None
        What the cells are; None: there are none, and weights are what they are.
    device_seed : int
        Seed of the instance.
    device_unread : tuple of str
        Fields that a preset has set, and the system does not read.
    device_scales : dict of str to float
        Value per siemens of each array of cells, by the parameters' names.
    full_scales : tuple of float
        Largest activity of each block of the state: what noises and converters of readings are relative to.
        `calibrate` measures it.
    reads : torch.Generator
        Random generator of the noise of readings.
    """

    device_model: DeviceModel | None = None
    device_seed: int = 0
    device_unread: tuple[str, ...] = ()
    device_effects: frozenset[str] = CELLS | READINGS
    """Fields of a device that the system reads, beside those that tell how cells learn and what a device takes."""
    full_scale: float = 1.0
    """Full scale of a reading that no calibration has set."""

    def program(
        self,
        device: DeviceModel | Mapping[str, Any] | str,
        seed: int = 0,
        *,
        headroom: float = 1.0,
        rule: str = "accumulated",
        side: str = "single",
        full_scales: Sequence[float] | None = None,
    ) -> Self:
        """Write the weights into the cells of a device instance.

        Parameters
        ----------
        device : DeviceModel, mapping or str
            Also the name of a preset, or fields of a device beside the 'preset' that has the others.
        seed : int
            Seed of the instance. The same (device, seed) gives the same cells.
        headroom : float
            Value that a cell at g_max holds over the largest that is written, 1 or more: room to learn.
        rule, side : str
            How changes become pulses: see `PulsedArray`.
        full_scales : sequence of float, optional
            Largest activity of each block of the state. Default: the system's `full_scale` for all of them.

        Returns
        -------
        OnDevice
            The system itself.

        Raises
        ------
        InputError
            If an argument is not as above, or a field differs from its default that the system does not read; one
            that a preset has set is told in `device_unread`.
        """
        model = given_device(device)
        check_idle(model)
        if isinstance(headroom, bool) or not isinstance(headroom, int | float) or not 1 <= headroom < math.inf:
            raise argument_error("device_headroom", "be a finite number of 1 or more", repr(headroom))
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise argument_error("device_seed", "be an integer of 0 or more", repr(seed))
        scales = (float(self.full_scale),) * self._blocks()
        if full_scales is not None:
            if len(full_scales) != len(scales) or not all(0 < s < math.inf for s in full_scales):
                must = f"be {len(scales)} positive numbers, one a layer"
                raise argument_error("device_full_scales", must, list(full_scales))
            scales = tuple(float(s) for s in full_scales)
        unread = tuple(
            name
            for name, told in fields_of(type(model)).items()
            if name not in self.device_effects
            and set(told.parts).isdisjoint(TOLD)
            and getattr(model, name) != defaults_of(type(model))[name]
        )
        for name in undescribed(model, unread):
            if name in COSTED and self.time_unit != "s":
                continue
            must = f"be left out for a {type(self).__name__}, which does not read it"
            raise argument_error(name, must, getattr(model, name))
        self.device_model, self.device_seed, self.device_unread = model, seed, unread
        self.full_scales = scales
        self.reads = stream(seed, "reads")
        self._headroom, self._rule, self._side = float(headroom), rule, side
        parameters = dict(self.named_parameters())
        with torch.no_grad():
            for name, values in self._written({n: parameters[n].detach() for n in self.cell_signs()}).items():
                parameters[name].copy_(values)
        return self

    def _on(self, device: Device, seed: int, headroom: float, full_scales: Sequence[float] | None) -> None:
        """What a constructor does with the device that it is given, if any."""
        if device is not None:
            self.program(device, seed, headroom=headroom, full_scales=full_scales)
            return
        given = {
            "device_seed": (seed, 0),
            "device_headroom": (headroom, 1.0),
            "device_full_scales": (full_scales, None),
        }
        for name, (value, default) in given.items():
            if not (value is default or (isinstance(value, int | float) and value == default)):  # no array is asked
                raise argument_error(name, "be left out without a device", value)

    # -- what a system defines ---------------------------------------------------------------------------------

    def cell_signs(self) -> dict[str, bool]:
        """Parameters that cells hold, by name, and whether they have a sign, so that a pair of cells holds each."""
        return {name: True for name, _ in self.named_parameters()}

    def cell_spans(self, largest: Mapping[str, float]) -> dict[str, float]:
        """Value that a cell at g_max (beside one at g_min, of a pair) holds, by the largest in each array.

        Biases are the array's own row, or one like it: they have the weights' span, or more if they need it.
        """
        spans = {}
        for name, size in largest.items():
            spans[name] = max(size, largest.get(f"{name.rpartition('.')[0]}.weight", 0.0))
        return spans

    def _blocks(self) -> int:
        """Blocks of the state."""
        raise NotImplementedError

    # -- cells -------------------------------------------------------------------------------------------------

    def line_conductances(self, name: str) -> torch.Tensor:
        """What both cells of each pair of a parameter conduct together, G+ + G-, siemens, of its shape.

        A weight is their difference, which does not tell it of cells that err: two stuck ones make a weight of 0.
        """
        assert self.device_model is not None
        if name in self._arrays:
            cells = self._arrays[name].cells
        else:
            cells = programmed(self._asked[name], self.device_model, self.device_seed, name, self._spans[name])
        return cells.plus + cells.minus

    def _written(self, asked: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the cells make of weights, by name; they are written for them."""
        assert self.device_model is not None
        signs = self.cell_signs()
        largest = {name: largest_size(values) for name, values in asked.items()}
        spans = {name: self._headroom * span for name, span in self.cell_spans(largest).items()}
        self._asked = {name: values.detach().clone() for name, values in asked.items()}
        self._spans, self._arrays = spans, dict[str, PulsedArray]()
        self.device_scales: dict[str, float] = {}
        values = {}
        for name, weights in asked.items():
            write = programmed if signs[name] else programmed_singly
            cells = write(weights, self.device_model, self.device_seed, name, spans[name])
            self.device_scales[name] = cells.scale
            values[name] = cells.values
            self._keep(name, values[name])
        return values

    def _keep(self, name: str, values: torch.Tensor) -> None:
        """Remember what cells hold: a buffer that moves with the module, and is in no `state_dict`."""
        self.register_buffer(f"held/{name}".replace(".", "/"), values.clone(), persistent=False)

    def _held(self, name: str) -> torch.Tensor:
        held = self._buffers[f"held/{name}".replace(".", "/")]
        assert held is not None
        return held

    def _array(self, name: str) -> PulsedArray:
        """The cells of a parameter as they learn; from the first change on they are what counts."""
        if name not in self._arrays:
            assert self.device_model is not None
            self._arrays[name] = PulsedArray(
                self._asked[name].to(self._held(name)),
                self.device_model,
                self.device_seed,
                name,
                self._spans[name],
                rule=self._rule,
                side=self._side if self.cell_signs()[name] else "single",
                signed=self.cell_signs()[name],
            )
        return self._arrays[name]

    def check_learning(self) -> None:
        """Find out at once whether the cells can learn, as `constrain` would.

        Raises
        ------
        InputError
            If they drift, have levels in equal ratios, or cannot be moved by the rule that was asked for.
        """
        for name in self.cell_signs() if self.device_model is not None else ():
            self._array(name)

    def constrain(self) -> None:
        """Turn changes of parameters since the last time into pulses, and put what cells hold into parameters.

        Raises
        ------
        InputError
            If the device's cells cannot learn (they drift, or have levels in equal ratios), and a parameter has
            changed.
        """
        super().constrain()
        if self.device_model is None:
            return
        parameters = dict(self.named_parameters())
        with torch.no_grad():
            for name in self._asked:
                if name not in parameters:
                    raise InputError(
                        f"Argument device must hold plain parameters, but {name!r} is computed from others."
                    )
                p, held = parameters[name], self._held(name)
                if torch.equal(p, held):
                    continue
                array = self._array(name)
                if array.move(p - held):
                    held.copy_(array.values)
                p.copy_(held)

    @property
    def cells_told(self) -> str:
        """What holds the weights, in a line of a report; empty without a device.

        It tells the fields of the device that are set, how cells learn, the instance, full scales of readings, and
        which fields are not read.
        """
        device = self.device_model
        if device is None:
            return ""
        ideal = defaults_of(type(device))
        unread = [name for name in self.device_unread if name not in COSTED]
        values = {
            name: getattr(device, name)
            for name, field in fields_of(type(device)).items()
            if "description" not in field.parts and name not in unread
        }
        set_to = [f"{n} {v:g}" if isinstance(v, float) else f"{n} {v}" for n, v in values.items() if v != ideal[n]]
        told = [device.source, ", ".join(set_to) or "ideal", f"learns by pulses ({self._rule})"]
        told.append(f"instance {self.device_seed}")
        if device.read_noise > 0 or device.adc_bits is not None:
            scales = ", ".join(f"{size:.3g}" for size in self.full_scales)
            told.append(f"full scales of readings {scales} {self.state_unit}")
        if unread:
            told.append(f"not read: {', '.join(unread)}")
        return "; ".join(filter(None, told))

    @property
    def pulses(self) -> int:
        """Number of pulses spent on all cells since they were written."""
        return sum(array.pulses for array in self._arrays.values()) if self.device_model is not None else 0

    @property
    def refreshes(self) -> int:
        """Number of pairs of cells that were written anew while learning."""
        return sum(array.refreshes for array in self._arrays.values()) if self.device_model is not None else 0

    # -- files -------------------------------------------------------------------------------------------------

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.device_model is None:
            return
        destination[f"{prefix}{SAVED}reads"] = self.reads.get_state()
        destination[f"{prefix}{SAVED}full_scales"] = torch.tensor(self.full_scales, dtype=torch.float64)
        for name, asked in self._asked.items():
            here = f"{prefix}{SAVED}{name}."
            destination[f"{here}asked"] = asked.cpu()
            if name in self._arrays:
                for key, value in self._arrays[name].state_dict().items():
                    destination[here + key] = torch.as_tensor(value)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        """Write loaded weights into the cells; or put these into the state that was saved with them."""
        if self.device_model is not None:
            begins = prefix + SAVED
            found = [key for key in state_dict if key.startswith(begins)]
            saved = {key.removeprefix(begins): state_dict.pop(key) for key in found}
            given = {name: state_dict.get(prefix + name) for name in self._asked}
            if all(given[n] is not None and given[n].shape == w.shape for n, w in self._asked.items()):
                for name, values in self._restored(given, saved).items():
                    state_dict[prefix + name] = values
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _restored(
        self, given: Mapping[str, torch.Tensor], saved: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """What cells hold after loading: what they were left with, or without it what they make of the weights."""
        parameters = dict(self.named_parameters())
        values = self._written({n: saved.get(f"{n}.asked", w).to(parameters[n]) for n, w in given.items()})
        if not saved:
            return values
        self.reads.set_state(saved["reads"])
        self.full_scales = tuple(saved["full_scales"].tolist())
        for name, held in given.items():
            begins = f"{name}."
            state = {key.removeprefix(begins): v for key, v in saved.items() if key.startswith(begins)}
            if "pulses" in state:
                counts = {key: int(state[key]) for key in ("pulses", "refreshes")}
                self._array(name).load_state_dict({**state, **counts})
            self._keep(name, held.to(parameters[name]))
        return {name: held.to(parameters[name]) for name, held in given.items()}

    # -- readings ----------------------------------------------------------------------------------------------

    def calibrate(self, x: torch.Tensor) -> Self:
        """Set the full scale of each block of the state to its largest size in the free phase of these inputs.

        Without a calibration it is the `full_scale` of the system, which its class tells.

        Raises
        ------
        NotConverged
            If a free phase finds no equilibrium.
        """
        found = relax(self, x).require().state
        sizes = (float(s.abs().max()) for s in found)
        self.full_scales = tuple(size if size > 0 else float(self.full_scale) for size in sizes)
        return self

    def readings(self, free: State, plus: State, minus: State | None) -> tuple[State, State, State | None]:
        """States as they are read: with noise of each phase, through the converters of readings.

        Without `minus` the free phase is read itself, and `plus` is what lies between both readings.
        """
        device = self.device_model
        if device is None or (device.read_noise == 0 and device.adc_bits is None):
            return free, plus, minus
        up = self._errors(free, plus)
        if minus is not None:
            down = self._errors(free, minus)
            return free, _sum(plus, up), _sum(minus, down)
        rest = self._errors(free, tuple(torch.zeros_like(s) for s in free))
        return _sum(free, rest), _sum(plus, tuple(a - b for a, b in zip(up, rest, strict=True))), None

    def _errors(self, free: State, moved: State) -> State:
        """Errors of a reading of the state that lies `moved` away from `free`."""
        device = self.device_model
        assert device is not None
        errors = []
        for s, d, full in zip(free, moved, self.full_scales, strict=True):
            error = torch.zeros_like(d)
            if device.read_noise > 0:
                shape = (*d.shape, 2) if d.is_complex() else d.shape
                noise = torch.randn(shape, generator=self.reads, dtype=torch.float32)
                noise = torch.view_as_complex(noise) if d.is_complex() else noise
                error = (device.read_noise * full) * noise.to(d)
            if device.adc_bits is not None:
                span = full * (1.0 if device.adc_range is None else device.adc_range)
                whole = s + d + error
                error = _converted(whole, device.adc_bits, span) - (s + d)
            errors.append(error)
        return tuple(errors)


def _sum(one: State, other: State) -> State:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _converted(value: torch.Tensor, bits: int, span: float) -> torch.Tensor:
    if value.is_complex():
        return torch.complex(converted(value.real, bits, span), converted(value.imag, bits, span))
    return converted(value, bits, span)


class Instance:
    """A plain system on a device instance, as `validation.tolerance` asks a mapped network.

    Attributes
    ----------
    perturbed : OnDevice
        The system with the weights that the cells make.
    """

    def __init__(self, system: OnDevice) -> None:
        self.perturbed = system

    @property
    def system(self) -> OnDevice:
        """The system that relaxes; on a plain substrate it is `perturbed` itself."""
        return self.perturbed

    def decode(self, state: State) -> torch.Tensor:
        """Outputs (B, n_out) of a state."""
        return self.perturbed.outputs(state)

    def estimate(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        cost: Cost,
        scheme: Stencil | str | None = None,
        beta: float | str = "auto",
        *,
        reads: torch.Generator | None = None,
        **options: Any,
    ) -> tuple[dict[str, torch.Tensor], Step]:
        """EP on the instance: gradient by parameter name, and the step; arguments as of `Mapped.estimate`."""
        if reads is not None:
            self.perturbed.reads = reads
        return estimate_gradient(EquilibriumPropagation(cost, scheme, beta, **options), self.perturbed, x, y)


def instance(net: OnDevice, *, device: DeviceModel, seed: int, calibration: torch.Tensor, **_: Any) -> Instance:
    """A copy of a plain system on a device instance, its readings calibrated: what `map_pcn` is for networks."""
    system = copy.deepcopy(net).program(device, seed)
    if device.read_noise > 0 or device.adc_bits is not None:
        system.calibrate(calibration)
    return Instance(system)
