"""Systems that a user's own file builds, named FILE.py:factory wherever a system is named.

The factory is a function or a class of that file. It returns an `EnergySystem` or a `VectorField`; or (model, x), a
torch model with examples of its inputs, which becomes a predictive coding network (a model that begins with a
linear map, or has an `example_input_array`, may come alone). Examples are what `gradients` and `tolerance` then
take in place of digits and random inputs::

    # springs.py
    def springs(n: int = 8, seed: int = 0):
        return Springs(n, seed)             # physics-ep gradients springs.py:springs

Naming a file this way runs its code, with all that this may do.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .errors import InputError, argument_error, unknown_name
from .physical_system import PhysicalSystem
from .predictive_coding.any_model import from_module
from .predictive_coding.conversion import from_sequential
from .predictive_coding.traced.network import ModuleNetwork
from .registry import accepts, check_options
from .storage.texts import require_regular
from .storage.weights import put_weights, read_weights

SYSTEM = "file"
"""Name of `from_file` among the registered systems."""
EVALUATED = (
    "evaluation, though the model came in training mode: norms go by their running statistics, nothing is dropped"
)
"""What `in_layers` says of the mode of a model that came in training mode."""


def names_factory(spec: str) -> bool:
    """Whether a text has the form FILE.py:factory."""
    file, colon, name = spec.rpartition(":")
    return bool(colon) and file.endswith(".py") and bool(name)


def from_file(
    factory: str, *, seed: int = 0, weights: str | os.PathLike[str] | None = None, **options: Any
) -> PhysicalSystem:
    """Run a file of Python code and build the system that its factory returns.

    Parameters
    ----------
    factory : str
        FILE.py:NAME. The file's folder joins the end of `sys.path`, so that it can import what lies beside it.
    seed : int
        Given to the factory if it takes a `seed`; torch's global generator is seeded with it in any case.
    weights : path, optional
        File of weights for the system, or for the model that it is made of, by its own names.
    **options
        Keyword arguments of the factory.

    Returns
    -------
    EnergySystem or VectorField
        Its attribute `examples` is (x, y) or (x, None) where the factory returned examples.

    Raises
    ------
    InputError
        If there is no such file or name, its code fails, an option or the weights do not fit, or no system is
        returned.
    """
    if not names_factory(factory):
        raise argument_error("factory", "have the form FILE.py:NAME", repr(factory))
    file, _, name = factory.rpartition(":")
    module = _run(Path(file))
    public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
    own = [n for n in public if getattr(vars(module)[n], "__module__", None) == module.__name__]
    if name not in vars(module):
        raise unknown_name(f"factory of {file!r}", name, own)
    make = vars(module)[name]
    if not callable(make):
        raise argument_error("factory", "name a function or a class", f"{name!r}, {type(make).__name__}")
    if isinstance(make, torch.nn.Module):
        made: Any = copy.deepcopy(make)
    else:
        if accepts(make, "seed"):
            options["seed"] = seed
        check_options(make, options, f"factory {name!r}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            with _failing_by_name(Path(file)):
                made = make(**options)
    return _system(made, factory, weights)


def in_layers(system: PhysicalSystem) -> PhysicalSystem:
    """A network made of a torch model of a file, as the layers that substrates hold; any other system as it is.

    Hardware holds a model in its evaluation mode: norms go by their running statistics, and nothing is dropped.
    Where the model came in training mode, and is another function in it, the attribute `mode` of the layers says so
    in words.

    Raises
    ------
    InputError
        If the model is not made of layers: the part is named.
    """
    examples = getattr(system, "examples", None)
    like = getattr(system, "like", None) if examples is None else examples[0]
    if not isinstance(system, ModuleNetwork) or like is None:
        return system
    x = like.to(system.device)
    x = x.to(system.dtype) if x.is_floating_point() else x
    trained = system.graph(x)
    found = from_module(system.source.eval(), x, form="layers")
    if examples is not None:
        found.examples = examples
    if trained.random or trained.mutates or trained.coupled:
        found.mode = EVALUATED
    return found


def _run(path: Path) -> ModuleType:
    """The file's module, run once while it does not change."""
    try:
        require_regular(path)
        content = path.resolve(strict=True).read_bytes()
    except OSError as error:
        raise argument_error(
            "factory", "name a file of Python code", f"{str(path)!r}: {error.strerror or error}"
        ) from None
    whole = path.resolve()
    # The name tells the file and its content: an edited file is another module.
    name = f"own_code_{hashlib.sha256(str(whole).encode() + content).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, whole)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(whole.parent) not in sys.path:
        sys.path.append(str(whole.parent))  # last, so that it hides no other package
    sys.modules[name] = module  # classes of the file can be pickled
    try:
        with _failing_by_name(path):
            spec.loader.exec_module(module)
    except InputError:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _failing_by_name(path: Path) -> Iterator[None]:
    """Within, all that the code of a file ends with is an InputError that tells the line.

    sys.exit() too, which would end a command as if it were done.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        whole = str(path.resolve())
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == whole]
        line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
        place = "" if line is None else f", line {line}"
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"File {str(path)!r} cannot be run: {told}{place}.") from error


def _system(made: Any, factory: str, weights: str | os.PathLike[str] | None) -> PhysicalSystem:
    """What a factory returned, as a system with its examples."""
    parts = made if isinstance(made, tuple) else (made,)
    tensors = all(isinstance(p, torch.Tensor) for p in parts[1:])
    if not 1 <= len(parts) <= 3 or not isinstance(parts[0], torch.nn.Module) or not tensors:
        must = "return an EnergySystem or an nn.Module, or (system, x) or (system, x, y) with tensors"
        was = tuple(type(p).__name__ for p in parts) if isinstance(made, tuple) else type(made).__name__
        raise argument_error(f"factory {factory!r}", must, was)
    x = parts[1] if len(parts) > 1 else None
    y = parts[2] if len(parts) > 2 else None
    if x is not None and y is not None and len(x) != len(y):
        raise argument_error(f"factory {factory!r}", "return as many targets as inputs", f"{len(y)} and {len(x)}")
    model = parts[0]
    if x is None and not isinstance(model, PhysicalSystem):
        x = getattr(model, "example_input_array", None)  # as models of PyTorch Lightning have it
    system = model if isinstance(model, PhysicalSystem) else _converted(model, x, factory)
    if weights is not None:
        found = read_weights(weights)
        if isinstance(model, PhysicalSystem) or found.keys() == system.state_dict().keys():
            put_weights(system, found, weights)
        else:  # a chain of layers has other names than the model
            put_weights(model, found, weights)
            dtype = next((p.dtype for p in model.parameters()), torch.float32)
            system = _converted(model, x.to(dtype) if x is not None and x.is_floating_point() else x, factory)
    if x is not None:
        system.examples = (x, y)
    return system


def _converted(model: torch.nn.Module, x: torch.Tensor | None, factory: str) -> PhysicalSystem:
    """The predictive coding network of a torch model, whose inputs are as `x`; one that substrates can hold, where
    the model is a chain of layers."""
    like = _likely_input(model) if x is None else x
    if like is None:
        must = "return (model, x) with examples of its inputs, whose shape its first part does not tell"
        raise argument_error(f"factory {factory!r}", must, "a model alone")
    if isinstance(model, torch.nn.Sequential):
        with suppress(InputError):
            return from_sequential(model, tuple(like.shape[1:]))
    system = from_module(model, like)
    if x is None:
        system.like = like  # two inputs of the shape that the model takes, and no examples to measure on
    return system


def _likely_input(model: torch.nn.Module) -> torch.Tensor | None:
    """Two random inputs for a model whose first part is a linear map; None: its first part takes other inputs."""
    first = next((part for part in model.modules() if not list(part.children())), None)
    if not isinstance(first, torch.nn.Linear):
        return None
    return torch.rand(2, first.in_features, generator=torch.Generator().manual_seed(0)).to(first.weight)
