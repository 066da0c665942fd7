"""Learning-rate schedules, named as in `torch.optim.lr_scheduler`.

    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
    for ...: optimizer.step(); scheduler.step()

A schedule writes `param_groups[i]["lr"]`. An optimizer reads that as a number in each step, so a schedule never makes a session
record anew. All but `ReduceLROnPlateau` are functions of the number of steps taken: `value(base, step)` gives the rate from the
one that a group had when the schedule was made.
"""

from .combined import ChainedScheduler, SequentialLR
from .cycles import CyclicLR, OneCycleLR
from .decays import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    InverseTimeLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from .plateau import ReduceLROnPlateau
from .schedule import LRScheduler

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "InverseTimeLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]
