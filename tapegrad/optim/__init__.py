"""Optimizers, named as in PyTorch; schedules of learning rates; averages and limits of parameters."""

from . import lr_scheduler
from .adadelta import Adadelta
from .adagrad import Adagrad
from .adam import Adam, AdamW
from .averaging import ExponentialMovingAverage
from .grad_scaler import GradScaler
from .groups import groups
from .lbfgs import LBFGS
from .lion import Lion
from .modifiers import Clip, MaxNorm, Scale
from .nadam import NAdam, RAdam
from .optimizer import Optimizer
from .rmsprop import RMSprop
from .sgd import SGD

__all__ = [
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Clip",
    "ExponentialMovingAverage",
    "GradScaler",
    "Lion",
    "MaxNorm",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Scale",
    "groups",
    "lr_scheduler",
]
