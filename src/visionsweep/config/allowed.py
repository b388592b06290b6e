"""What a config may name as `_target_`. A config may come from a stranger, so none can change this.

The lists hold single classes: a package also has functions that write files, private parts, and
what it imported from elsewhere. Only the environment of the program adds to them, and it is read
once, when this module is imported: before any config.
"""

import os
import re
from typing import Any

from visionsweep.errors import ConfigError

VARIABLE = "VISIONSWEEP_ALLOW"
HOW_TO_ALLOW = f"for a package of yours set {VARIABLE}='mypkg.*' in the environment"
_GIVEN = os.environ.get(VARIABLE, "")
_ENTRY = re.compile(r"[A-Za-z_]\w*(\.\w+)*(\.\*)?")


def _below(package: str, names: str) -> frozenset[str]:
    return frozenset(f"{package}.{name}" for name in names.split())


_LAYERS = _below(
    "torch.nn",
    """
    AdaptiveAvgPool2d AdaptiveMaxPool2d AvgPool2d FractionalMaxPool2d LPPool2d MaxPool2d
    BatchNorm1d BatchNorm2d GroupNorm InstanceNorm2d LayerNorm LocalResponseNorm RMSNorm
    AlphaDropout Dropout Dropout1d Dropout2d FeatureAlphaDropout
    Bilinear Conv1d Conv2d ConvTranspose2d Flatten Identity Linear MultiheadAttention Unflatten
    CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax Mish
    PReLU RReLU ReLU ReLU6 SELU SiLU Sigmoid Softmax Softmax2d Softmin Softplus Softshrink Softsign
    Tanh Tanhshrink Threshold
    ChannelShuffle PixelShuffle PixelUnshuffle Upsample UpsamplingBilinear2d UpsamplingNearest2d
    CircularPad2d ConstantPad2d ReflectionPad2d ReplicationPad2d ZeroPad2d
    """,
)
_TORCH_LOSSES = _below(
    "torch.nn",
    """
    BCELoss BCEWithLogitsLoss CrossEntropyLoss GaussianNLLLoss HingeEmbeddingLoss HuberLoss
    KLDivLoss L1Loss MSELoss MultiLabelMarginLoss MultiLabelSoftMarginLoss MultiMarginLoss NLLLoss
    PoissonNLLLoss SmoothL1Loss SoftMarginLoss
    """,
)
_OPTIMIZERS = (
    _below(
        "torch.optim",
        "ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax Muon NAdam RAdam RMSprop Rprop SGD",
    )
    | _below(
        "timm.optim",
        """
        AdaBelief Adadelta Adafactor AdafactorBigVision Adagrad Adam AdamP AdamW AdamWLegacy Adamax
        Adan Adopt LaProp Lamb Lars Lion MADGRAD Mars Muon NAdam NAdamLegacy NAdamW NvNovoGrad RAdam
        RAdamLegacy RMSprop RMSpropTF SGD SGDP SGDW
        """,
    )
    | {"adamp.AdamP"}
)

# By config group. Nodes within a node count as of its group.
_COMPONENTS = {"model": _LAYERS, "loss": _TORCH_LOSSES, "optim": _OPTIMIZERS}
# Our own: public classes, and functions that make a component. A new one needs no entry.
_OWN_COMPONENTS = {
    "model": re.compile(r"visionsweep\.models\.[a-z]\w*\.([A-Z]\w*|create_\w+)"),
    "loss": re.compile(r"visionsweep\.losses\.[a-z]\w*\.[A-Z]\w*"),
    "optim": re.compile(r"visionsweep\.optim\.[a-z]\w*\.([A-Z]\w*|create_\w+)"),
    "scheduler": re.compile(r"visionsweep\.schedulers\.[a-z]\w*\.[A-Z]\w*"),
    "data": re.compile(r"visionsweep\.data\.[a-z]\w*\.load_\w+"),
    "augment": re.compile(r"visionsweep\.data\.augment\.[a-z]\w*\.[A-Z]\w*"),
}

SAMPLERS = (
    _below(
        "optuna.samplers",
        """
        BruteForceSampler CmaEsSampler GPSampler GridSampler NSGAIIISampler NSGAIISampler
        PartialFixedSampler QMCSampler RandomSampler TPESampler
        """,
    )
    | _below(
        "optuna.samplers.nsgaii",
        """
        BLXAlphaCrossover PolynomialMutation SBXCrossover SPXCrossover UNDXCrossover
        UniformCrossover VSBXCrossover
        """,
    )
    | _below(
        "hydra_plugins.hydra_optuna_sweeper",
        "_impl.create_nsgaii_sampler _impl.create_nsgaiii_sampler config.raise_motpe_removed",
    )
)
PRUNERS = _below(
    "optuna.pruners",
    """
    HyperbandPruner MedianPruner NopPruner PatientPruner PercentilePruner SuccessiveHalvingPruner
    ThresholdPruner WilcoxonPruner
    """,
) | {"visionsweep.sweep.thaw.Thaw"}


def hydra_targets() -> list[str]:
    """Return what Hydra may call for our configs; it adds the handlers of its own logging.

    Launchers and sweepers are installed plugins, which Hydra finds itself.
    """
    functions = [f"visionsweep.run.{name}" for name in ("check", "evaluate_test")]
    ours = ["visionsweep.callback.RunCallback", *functions]
    return [*ours, *sorted(SAMPLERS | PRUNERS), *allowed_by_user()]


def allowed_by_user() -> list[str]:
    """Return the entries of VISIONSWEEP_ALLOW as the program was started with it.

    Raises `ConfigError` for an entry that names everything, or nothing.
    """
    entries = [entry.strip() for entry in _GIVEN.split(",") if entry.strip()]
    for entry in entries:
        if not _ENTRY.fullmatch(entry):
            raise ConfigError(
                f"{VARIABLE}: expected names such as mypkg.Net or mypkg.*, got '{entry}'"
            )
    return entries


def is_allowed(path: str, group: str) -> bool:
    """Return whether a node of a config group may name `path`, as far as the name tells."""
    own = _OWN_COMPONENTS.get(group)
    return (
        path in _COMPONENTS.get(group, ())
        or (own is not None and own.fullmatch(path) is not None)
        or is_allowed_by_user(path)
    )


def is_allowed_by_user(path: str) -> bool:
    """Return whether an entry of VISIONSWEEP_ALLOW covers `path`."""
    return any(
        path.startswith(entry[:-1]) if entry.endswith(".*") else path == entry
        for entry in allowed_by_user()
    )


def is_the_named(target: Any, path: str) -> bool:
    """Return whether `target`, imported as `path`, is what the allowed name stands for.

    A module also offers what it imported from elsewhere: `mypkg.run` may be `subprocess.run`.
    """
    if path in allowed_by_user() or any(path in names for names in _COMPONENTS.values()):
        return True
    module = str(getattr(target, "__module__", None))
    if path.startswith("visionsweep."):
        return module == path.rpartition(".")[0]
    return is_allowed_by_user(f"{module}.{getattr(target, '__qualname__', '')}")


def describe_allowed(group: str) -> str:
    """Return what a group may name, for an error."""
    own = {
        "model": "a model of visionsweep.models or a layer of torch.nn",
        "loss": "a loss of visionsweep.losses or torch.nn",
        "optim": "an optimizer of visionsweep.optim, torch.optim or timm.optim",
        "scheduler": "a schedule of visionsweep.schedulers",
        "data": "a load_* function of visionsweep.data",
        "augment": "a step of visionsweep.data.augment",
    }
    return own.get(group, "nothing")
