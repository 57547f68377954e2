"""Training configs: what the TOML sections mean, checked before any work starts.

A config is a TOML file, the name of a bundled one (`bundled()`), or a dict. Anything misspelt or of the wrong type
ends in one `InputError` that names the section and the nearest right name.
"""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .cost import COSTS, Cost, SquaredError
from .errors import InputError, argument_error, unknown_name
from .nudging import require_method, scheme_from_name
from .own_code import SYSTEM as OWN_CODE
from .own_code import names_factory
from .physical_system import PhysicalSystem
from .placement import WEIGHT_BYTES, require_weights
from .predictive_coding.solvers import SOLVERS as PREDICTIVE
from .registry import build_system, bundled, files, load, loggers, require_finite, systems, told_options
from .relaxation.loop import SOLVERS
from .storage.files import checked_path
from .storage.opening import open_run
from .storage.texts import beside, parse_toml, read_text, require_plain, set_entry, shortened
from .storage.weights import put_weights, read_weights
from .zoo.networks import zoo, zoo_config, zoo_weights

RUN = "run-file"
"""Name of `physics_ep.runs.preparation.from_run` among the registered systems."""
RUN_FILES = (".h5", ".hdf5")
IN_OWN_UNITS = ("netlist",)
"""Systems whose inputs and outputs are in the unit of what a user has measured, volts: their tables stay as they
are, unless [data] says how they are scaled."""


class Section(BaseModel):
    """A section of a config: no key but the known ones, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class OpenSection(Section):
    """A section whose further keys go, as keyword options, to whatever `name` stands for."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The keys that this section passes on."""
        return copy.deepcopy(self.model_extra or {})


class SystemSection(OpenSection):
    """The section [system]: a registered name; all other keys are options of that system's constructor.

    Attributes
    ----------
    name : str
        A registered system (`physics-ep info` lists them); all other keys of the section are its own options.
    weights : str or None
        File of weights to begin with: a run file (.h5), .safetensors, or a state_dict saved by torch (.pt, .pth);
        or the name of a trained network of the zoo, or 'pretrained' (those of efficientnet_lite0).
    """

    weights: str | None = None

    @field_validator("name")
    @classmethod
    def _registered(cls, name: str) -> str:
        if name not in systems():
            raise unknown_name("system.name", name, systems())
        return name

    def build(self, **options: Any) -> PhysicalSystem:
        """Build the system, with the weights of its file if one is named.

        Parameters
        ----------
        **options
            Options that replace the section's.

        Raises
        ------
        InputError
            If the name, an option or the file of weights is refused (`registry.build_system`,
            `storage.weights.put_weights`).
        """
        asked = {**self.options, **options}
        brings_weights = "weights" in inspect.signature(load(systems()[self.name])).parameters
        if not brings_weights:
            require_weights(lambda: build_system(self.name, **asked), asked, WEIGHT_BYTES)
        if self.weights is None:
            return build_system(self.name, **asked)
        if brings_weights:
            return build_system(self.name, **asked, weights=self.weights)  # of a model, before it is converted
        named = self.weights in zoo()
        if not named and names_no_file(self.weights):
            raise unknown_name("weights", self.weights, zoo())
        system = build_system(self.name, **asked)
        put_weights(system, zoo_weights(self.weights) if named else read_weights(self.weights), self.weights)
        return system


class DataSection(Section):
    """The section [data]: which examples to learn from.

    Attributes
    ----------
    name : str
        A data set of `physics_ep.data.datasets`, or 'imagenet' or 'image-folder', which are streamed from their
        files (`physics_ep.data.image_folders` tells how these lie).
    folder : str or None
        Folder of the data set's files. None: the environment variable PHYSICS_EP_DATA.
    file, test_file : str or None
        For 'npz', 'csv' and 'parquet': your own file of examples; and a second file, of examples to test on.
    target : str, list of str or None
        Column (or array of an npz file) of the targets; several are measured numbers, an output each. None: the
        last column, or the array y or labels.
    task : {'classification', 'regression'} or None
        Whether targets are classes or measured numbers. None: what they look like: texts and whole numbers name
        classes, numbers with a fraction are measured.
    target_scaling : {'standard', 'range', 'none'} or None
        What becomes of each measured target, by the examples to train on: mean 0 and deviation 1, the range 0 to 1,
        or nothing. None: 'range' for 'csv' and 'parquet', since class targets are 0 and 1 too; 'none' for arrays,
        and where the system is a netlist, which has volts.
    columns : list of str or None
        Columns to learn from. None: all but the target.
    scaling : {'standard', 'range', 'none'} or None
        What becomes of each feature, by the examples to train on: mean 0 and deviation 1, the range 0 to 1, or
        nothing. None: 'standard' for 'csv' and 'parquet', 'none' for 'npz', whose bytes (uint8) become [0, 1], and
        where the system is a netlist.
    validation : float or int or None
        Share (below 1) or number of the training examples that are held out, each class in its proportion. The
        epoch that is kept, early stopping and schedulers that watch a figure go by the error on these; the test set
        is read once, after the last epoch. None: none are; the test error is measured after each epoch.
    seed : int
        Seed of the random draws of examples that are held out to choose by, or held back to test on.
    layout : {'flat', 'image'}
        Examples as vectors (N, n) or as images (N, channels, rows, columns).
    pad_to : int or None
        Rows and columns to which an image is padded with zeros. None: no padding.
    augmentation : str or None
        A name in `physics_ep.data.augmentation`: 'shift' (up to a pixel), 'flip', 'crop', 'flip-crop'.
        Photographs have their own: 'resized-crop' (random resized crops and flips; what None means for them) or
        'centre' (each epoch the same central crop).
    train_examples, test_examples : int or None
        Number of examples to use: the first ones; so many drawn once and for all, with the shares of all classes,
        where examples lie class by class, as in folders of images and in sorted tables. None: all.
    normalise : bool
        Whether to subtract the training set's mean from grey images (MNIST, Fashion-MNIST) and to divide by its
        standard deviation, after padding. Images in colour always are normalised.
    download : bool
        Whether to fetch files that are missing, and to check them against known hashes.
    size : int
        Rows and columns to which photographs are cropped; for 'imagenet' and 'image-folder'.
    means, deviations : list of float or None
        Mean and deviation of red, green and blue in [0, 1], to normalise photographs and 'imagenet32' with. None:
        ImageNet's; for 'imagenet32' those of its training images.
    n_classes : int or None
        Number of classes. None: as many as there are class folders or names, or the largest label and one.
    mapping : str or None
        File that gives each image of a flat folder its class: two columns, in data.folder. None: the one that fits.
    test_fraction : float
        Share of a folder of images, or of each class of a table, without a test part to be held back as one.
    on_broken : {'refuse', 'skip'}
        What becomes of an image that cannot be decoded: it stops training, or is left out and counted.
    workers : int or None
        Processes that decode photographs; images do not depend on it. None: one a core, at most 16; 0: none.
    """

    name: str = "digits"
    folder: str | None = None
    file: str | None = None
    test_file: str | None = None
    target: str | list[str] | None = None
    task: Literal["classification", "regression"] | None = None
    target_scaling: Literal["standard", "range", "none"] | None = None
    columns: list[str] | None = None
    scaling: Literal["standard", "range", "none"] | None = None
    validation: int | FiniteFloat | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    layout: Literal["flat", "image"] = "flat"
    pad_to: PositiveInt | None = None
    augmentation: str | None = None
    train_examples: PositiveInt | None = None
    test_examples: PositiveInt | None = None
    normalise: bool = False
    download: bool = False
    size: PositiveInt = 224
    means: list[FiniteFloat] | None = Field(default=None, min_length=3, max_length=3)
    deviations: list[PositiveFloat] | None = Field(default=None, min_length=3, max_length=3)
    n_classes: PositiveInt | None = None
    mapping: str | None = None
    test_fraction: FiniteFloat = Field(default=0.2, gt=0, lt=1)
    on_broken: Literal["refuse", "skip"] = "refuse"
    workers: NonNegativeInt | None = None

    @field_validator("validation")
    @classmethod
    def _share_or_number(cls, validation: float | int | None) -> float | int | None:
        whole = isinstance(validation, int)
        if validation is not None and not (validation >= 1 if whole else 0 < validation < 1):
            raise argument_error("data.validation", "be a share in (0, 1), or a number of examples", validation)
        return validation

    @field_validator("target")
    @classmethod
    def _named_once(cls, target: str | list[str] | None) -> str | list[str] | None:
        if isinstance(target, list) and (not target or len(set(target)) < len(target)):
            raise argument_error("data.target", "name at least one column, and each once", target)
        return target


class TrainingSection(Section):
    """The section [training]: how long, in batches of what size, and what to do where equilibria fail.

    Attributes
    ----------
    epochs : int
        Passes over the examples to train on.
    batch_size, evaluation_batch_size : int
        Examples of a batch in training, and in tests; of all ranks together, where several processes train one
        system.
    on_unconverged : {'skip', 'raise', 'warn'}
        What becomes of examples without an equilibrium: they are left out, stop the training, or are used with a
        warning.
    max_skipped : float
        Training stops once this fraction of an epoch's examples was skipped.
    seed : int
        Seed of the initial weights, the order of examples and random nudging signs.
    threads : int or None
        Threads of torch. None: as many as the process uses. Small products gain nothing from a second thread, and
        lose much where another process wants the core.
    checkpoint_minutes : float or None
        The run file is also written within an epoch, once this time has passed since it was written last, after a
        multiple of 64 batches. None: after each epoch only. Random signs and an automatic beta then begin anew
        every 64 batches, whether or not the file is written, so that a run that was killed has the bits of one
        that was not.
    loggers : list of str
        Loggers that write the figures of each epoch beside the run file: 'csv', 'tensorboard', 'wandb' (offline),
        or one of another package.
    clip_norm : float or None
        Largest norm of a batch's gradient, of all parameters together; a larger one is scaled down to it. None: no
        gradient is changed.
    patience : int or None
        Training stops after so many epochs in a row without a smaller error on the examples held out. None: it goes
        on to its last epoch.
    seeds : int
        Number of trainings with the seeds seed, seed + 1, ...; the result is the mean with its 95 % interval, and
        each has its own run file, RUN.seed0.h5 and so on.
    device : str
        Where torch computes: 'cpu', 'cuda' or 'cuda:N'.
    dtype : {'float32', 'float64', 'bfloat16'} or None
        Precision. None: the system's own, float32 for all but those that work in float64 alone. bfloat16:
        parameters and gradients in float32, all else in bfloat16 (predictive coding networks).
    """

    epochs: PositiveInt = 10
    batch_size: PositiveInt = 32
    evaluation_batch_size: PositiveInt = 1000
    on_unconverged: Literal["skip", "raise", "warn"] = "skip"
    max_skipped: FiniteFloat = Field(default=0.01, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    threads: PositiveInt | None = None
    checkpoint_minutes: PositiveFloat | None = None
    loggers: list[str] = Field(default_factory=list)
    clip_norm: PositiveFloat | None = None
    patience: PositiveInt | None = None
    seeds: PositiveInt = 1
    device: str = "cpu"
    dtype: Literal["float32", "float64", "bfloat16"] | None = None

    @field_validator("loggers")
    @classmethod
    def _known_loggers(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in loggers():
                raise unknown_name("training.loggers", name, loggers())
            if names.count(name) > 1:
                raise argument_error("training.loggers", "name each logger once", names)
        return names


class OptimizerSection(OpenSection):
    """The section [optimizer]: a class of torch.optim by name, its options, and groups of parameters with other
    options.

    Attributes
    ----------
    name : str
        A class of torch.optim; all other keys of the section are its options, such as lr. Left out, the recipe of
        the system is taken, and the keys given replace those of the recipe.
    groups : dict
        Parameter-name prefix to the options of the parameters whose names begin so (the longest prefix counts).
    """

    name: str = "SGD"
    groups: dict[str, dict[str, Any]] = Field(default_factory=dict)


class SchedulerSection(OpenSection):
    """The section [scheduler]: a class of torch.optim.lr_scheduler by name, and its options.

    Attributes
    ----------
    name : str
        A class of torch.optim.lr_scheduler; all other keys of the section are its options.
    per : {'epoch', 'batch'}
        How often it steps. Lengths such as T_max count these steps.
    warmup : int
        Number W of steps before its first, during which the learning rate rises in equal steps: from 1 / (W + 1) of
        it to W / (W + 1) (Goyal et al. 2017, arXiv 1706.02677). A length that is left out is that of the rest.
    """

    per: Literal["epoch", "batch"] = "epoch"
    warmup: NonNegativeInt = 0


class PropagationSection(Section):
    """The section [ep]: how gradients are estimated.

    Attributes
    ----------
    estimator : {'ep', 'backprop'}
        How gradients are estimated: by EP, or by autograd of the forward pass under the same recipe ('backprop'),
        for comparison. 'backprop' is only for systems whose free state is a forward pass (predictive coding
        networks).
    scheme : str
        Nudging scheme: 'positive', 'negative', 'random', 'centered', 'holomorphic:N', or one that is registered.
    beta : float or 'auto'
        Nudging strength, in units of energy over cost. 'auto' takes it from the measured stability limit.
    lower_beta : bool
        Whether beta gives way, to 0.3 of the limit, where negative nudges of it have no equilibrium. False: stop.
    solver : str or None
        Solver of the free and the nudged phases. None: the system's default.
    tolerance : float or None
        Dimensionless residual that counts as converged. None: the system's default.
    max_iterations : int or None
        Iterations of a phase, at most. None: the system's default.
    gates : {'held', 'live'} or None
        Predictive coding networks only: whether nudged phases hold ReLU gates and pooling routes (held), or not
        (live).
    starts : int
        Number of free phases an example, over which gradients and predictions are averaged.
    method : {'energy', 'vector-field', 'asymmetric', 'dyadic', 'auto'} or None
        What nudged phases follow. None: the system's default, 'energy' where there is one.
    branches : {'check', 'ignore'} or None
        Whether nudged states must continue their free states. None: where the system is multistable.
    cost : str
        The cost to minimise: 'squared_error' or 'cross_entropy'; 'phase_error' or 'log_phase_error' where outputs
        are angles.
    target : float
        Target of the output of an example's class under the squared error, in the unit of the outputs (volts, say);
        that of all others is 0. Measured targets are in units of it.
    """

    estimator: Literal["ep", "backprop"] = "ep"
    scheme: str = "centered"
    beta: FiniteFloat | Literal["auto"] = 0.1
    lower_beta: bool = False
    solver: str | None = None
    tolerance: FiniteFloat | None = Field(default=None, gt=0)
    max_iterations: PositiveInt | None = None
    gates: Literal["held", "live", "frozen", "free"] | None = None
    starts: PositiveInt = 1
    method: Literal["energy", "vector-field", "asymmetric", "dyadic", "auto"] | None = None
    branches: Literal["check", "ignore"] | None = None
    cost: str = "squared_error"
    target: PositiveFloat = 1.0

    @field_validator("scheme")
    @classmethod
    def _known_scheme(cls, scheme: str) -> str:
        scheme_from_name(scheme)
        return scheme

    @model_validator(mode="after")
    def _method_of_scheme(self) -> Self:
        require_method(self.method, scheme_from_name(self.scheme))
        return self

    @field_validator("beta")
    @classmethod
    def _positive_beta(cls, beta: float | str) -> float | str:
        if not isinstance(beta, str) and beta <= 0:
            raise argument_error("ep.beta", "be positive (scheme 'negative' has the sign inside) or 'auto'", beta)
        return beta

    @field_validator("solver")
    @classmethod
    def _known_solver(cls, solver: str | None) -> str | None:
        if solver is not None and solver not in known_solvers():
            raise unknown_name("ep.solver", solver, known_solvers())
        return solver

    @field_validator("cost")
    @classmethod
    def _known_cost(cls, cost: str) -> str:
        if cost not in COSTS:
            raise unknown_name("ep.cost", cost, COSTS)
        return cost

    @field_validator("target")
    @classmethod
    def _of_the_squared_error(cls, target: float, found: ValidationInfo) -> float:
        cost = found.data.get("cost", SquaredError.name)
        if target != 1 and cost != SquaredError.name:
            raise argument_error("ep.target", f"be left out for the cost {cost!r}, which has none", target)
        return target

    def new_cost(self, name: str | None = None) -> Cost:
        """The cost that `cost` and `target` stand for; `name` in the place of `cost`."""
        name = name or self.cost
        return SquaredError(self.target) if name == SquaredError.name else COSTS[name]()


class Config(Section):
    """A training config: all its sections, checked."""

    system: SystemSection
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    optimizer: OptimizerSection = OptimizerSection()
    scheduler: SchedulerSection | None = None
    ep: PropagationSection = PropagationSection()

    @model_validator(mode="after")
    def _patience_by_held_out(self) -> Self:
        if self.training.patience is not None and self.data.validation is None:
            must = "come with data.validation, whose examples it watches"
            raise argument_error("training.patience", must, self.training.patience)
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain dict of all sections with all defaults filled in, as stored in run files."""
        return self.model_dump(mode="json")

    def as_given(self) -> dict[str, Any]:
        """Plain dict of the entries that were given, without defaults."""
        return self.model_dump(mode="json", exclude_unset=True)

    def as_stored(self) -> dict[str, Any]:
        """`as_dict` as run files have it: options of the system whose defaults have changed once are told."""
        table = self.as_dict()
        table["system"] = told_options(self.system.name, table["system"])
        return table

    def updated(self, **sections: dict[str, Any]) -> Config:
        """The config with some keys of some sections replaced, checked again."""
        table = self.as_given()
        for section, keys in sections.items():
            table[section] = {**(table.get(section) or {}), **keys}
        return parse_config(table)


def load_config(
    config: str | os.PathLike[str] | Mapping[str, Any] | Config, overrides: Iterable[str] = ()
) -> Config:
    """Read and check a config.

    Parameters
    ----------
    config : path, str, mapping or Config
        A TOML file, the name of a bundled config, FILE.py:factory (which runs that file's code, and leaves all but
        the system to defaults), or the sections themselves.
    overrides : iterable of str
        'section.key=value' with a TOML value; bare words are strings.

    Returns
    -------
    Config

    Raises
    ------
    InputError
        If there is no such config or anything in it is wrong.
    """
    if isinstance(config, Config):
        table: dict[str, Any] = config.as_given()
    elif isinstance(config, Mapping):
        require_plain(config)
        table = copy.deepcopy(dict(config))
    else:
        table = _read(config)
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise argument_error("overrides", "be a list of texts 'section.key=value'", repr(overrides))
    for override in overrides:
        if not isinstance(override, str):
            raise argument_error("overrides", "be a list of texts 'section.key=value'", repr(override))
        set_entry(table, override)
    return parse_config(table)


def _in_own_units(table: Mapping[str, Any]) -> dict[str, Any]:
    """A config's sections; where its system is one of `IN_OWN_UNITS`, a table that nobody scales stays as it is."""
    system, data = (table.get(name) for name in ("system", "data"))
    if not isinstance(system, Mapping) or system.get("name") not in IN_OWN_UNITS:
        return dict(table)
    if not isinstance(data, Mapping) or data.get("name") not in ("csv", "parquet"):
        return dict(table)
    plain = {name: "none" for name in ("scaling", "target_scaling") if data.get(name) is None}
    return {**table, "data": {**data, **plain}}


def parse_config(table: Mapping[str, Any]) -> Config:
    """Check the sections of a config that is a dict, as `load_config` does, and return the config."""
    require_plain(table)
    for section, keys in table.items():
        require_finite(str(section), keys)
    try:
        return Config.model_validate(_in_own_units(table))
    except ValidationError as error:
        _complain(error)


def load_subject(spec: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None) -> Config:
    """Config of what SYSTEM or NETWORK names on a command line.

    Parameters
    ----------
    spec : str or path
        A registered name (which means the bundled config NAME-digits, where there is one), a bundled config, a TOML
        file (which needs no section but [system]), a run file (its system with its trained weights), a name of the
        zoo, FILE.py:factory, which runs that file's code (`physics_ep.own_code`), or a netlist, FILE.cir.
    weights : path, optional
        File, or network of the zoo, whose weights the system begins with.

    Returns
    -------
    Config

    Raises
    ------
    InputError
        If there is no such system or file, or anything in it is wrong.
    """
    found = _subject(os.fspath(checked_path(spec, "SYSTEM")))
    return found if weights is None else found.updated(system={"weights": weights_named(weights)})


def names_no_file(given: str) -> bool:
    """Whether what was given is a name alone, without a file's ending, and no file or folder bears it."""
    return not Path(given).suffix and len(Path(given).parts) == 1 and not Path(given).exists()


def weights_named(weights: str | os.PathLike[str]) -> str:
    """What a config says of the weights that a user names.

    It is the whole path of a file. A name without an ending, which no file of weights has, stays as it is: of a
    network of the zoo, or 'pretrained'.
    """
    path = checked_path(weights, "weights")
    return str(path.resolve()) if path.suffix and str(path) not in zoo() else str(path)


def _subject(name: str) -> Config:
    if names_factory(name):
        return load_config(name)
    if name in zoo():
        return parse_config(zoo_config(name))
    if name in systems():
        standard = bundled().get(f"{name}-digits")
        return parse_config(_read(standard) if standard else {"system": {"name": name}})
    if Path(name).suffix in RUN_FILES:
        run = open_run(name)
        if "system" not in run.config:
            raise argument_error("SYSTEM", "be a run file of one system", f"{name!r}, which has no [system]")
        sections = {key: value for key, value in run.config.items() if key in Config.model_fields}
        return parse_config({**sections, "system": {"name": RUN, "file": str(Path(name).resolve())}})
    if name not in bundled() and names_no_file(name):
        raise unknown_name("system", name, {*systems(), *bundled(), *zoo()}, "physics-ep info")
    return load_config(name)


def load_system(
    spec: str | os.PathLike[str], *, weights: str | os.PathLike[str] | None = None, **options: Any
) -> PhysicalSystem:
    """Build a system by its name, as commands do with SYSTEM and NETWORK.

    Parameters
    ----------
    spec : str or path
        A registered name, a bundled config, a TOML file, a run file, a name of the zoo, FILE.py:factory (which runs
        that file's code), or a netlist, FILE.cir.
    weights : path, optional
        File of weights to load: a run file (.h5), .safetensors, or a state_dict saved by torch (.pt, .pth); or the
        name of a network of the zoo. Models (FILE.py:factory, resnet18) take them by their own names; 'pretrained'
        are those of efficientnet_lite0 that were trained on ImageNet.
    **options
        Options of the system's constructor that replace those found.

    Returns
    -------
    EnergySystem

    Raises
    ------
    InputError
        If there is no such system or file, an option is wrong, or weights do not fit.

    Examples
    --------
    >>> from physics_ep import load_system
    >>> load_system("hopfield", sizes=[64, 20, 10]).sizes
    (64, 20, 10)
    """
    return load_subject(spec, weights).system.build(**options)


def _read(config: str | os.PathLike[str]) -> dict[str, Any]:
    given = os.fspath(checked_path(config, "config"))
    if names_factory(given):
        file, _, name = given.rpartition(":")
        return {"system": {"name": OWN_CODE, "factory": f"{Path(file).resolve()}:{name}"}}
    known = bundled()
    path = Path(known.get(given, Path(given)))
    if path.suffix.lower() in files():
        system = {"name": files()[path.suffix.lower()], "file": str(path.resolve())}
        return {"system": system, "ep": {"beta": "auto"}}  # in whatever unit the file has
    if not path.is_file():
        if path.suffix == ".toml" or len(path.parts) > 1:
            raise argument_error("config", "be a TOML file or a bundled name", f"{given!r}, which is no file")
        raise unknown_name("config", given, known)
    text = read_text(path, "config")
    try:
        return beside(parse_toml(text), path.parent)
    except ValueError as error:
        if path.suffix.lower() != ".toml":
            must = f"be a TOML file, a netlist ({', '.join(files())}), a bundled name or FILE.py:factory"
            raise argument_error("config", must, f"{given!r}, which is none: {error}") from error
        raise InputError(f"Config {str(path)!r} is not valid TOML: {error}.") from error


def _complain(error: ValidationError) -> NoReturn:
    """Turn pydantic's first complaint into one line."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        raise cause from None
    model: Any = Config
    path: list[str] = []
    # A location may go on, into the branches of a union, after the key that the user wrote.
    for part in map(str, first["loc"]):
        if model is None:
            break
        owner, path = model, [*path, part]
        model = _section(model, part)
    name = ".".join(path)
    if first["type"] == "extra_forbidden":
        within = f"key of [{'.'.join(path[:-1])}]" if path[:-1] else "section of the config"
        raise unknown_name(within, path[-1], owner.model_fields)
    if first["type"] == "missing":
        raise InputError(f"Argument {name} must be given in the config.")
    raise argument_error(name, _requirement(error, first), shortened(first["input"]))


def _requirement(error: ValidationError, first: Any) -> str:
    if first["loc"][:2] == ("ep", "beta"):
        return "be a positive number or 'auto'"
    message = str(first["msg"])
    for start in ("Input should ", "Value error, "):
        message = message.removeprefix(start)
    return message[:1].lower() + message[1:]


def _section(model: Any, part: str) -> Any:
    fields = getattr(model, "model_fields", {})
    if part not in fields:
        return None
    annotation = fields[part].annotation
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def known_solvers() -> tuple[str, ...]:
    """Names of the solvers that some system or other has."""
    return tuple(dict.fromkeys([*SOLVERS, *PREDICTIVE]))
