"""Training: the loop, hooks, commands from other threads, checkpoints, sweeps."""

from . import hub
from .checkpoint import names as checkpoints
from .commands import Receipt
from .control import Checkpoint, EarlyStopping, NaNGuard, Schedule, StopOn
from .criteria import Criterion, Extremum, Repeated, Threshold
from .history import History
from .hook import Call, Hook, Snapshot
from .logs import CSVLog, JSONLog, LivePlot, Pace, Resources, Statistics, TensorBoardLog
from .metrics import F1, MAE, R2, Accuracy, ConfusionMatrix, Mean, Metric, TopK
from .progress import Lines, ProgressBar
from .sweep import Results, grid, sweep
from .trainer import Trainer
from .triggers import After, Every, On
from .validation import Validation

__all__ = [
    "F1",
    "MAE",
    "R2",
    "Accuracy",
    "After",
    "CSVLog",
    "Call",
    "Checkpoint",
    "ConfusionMatrix",
    "Criterion",
    "EarlyStopping",
    "Every",
    "Extremum",
    "History",
    "Hook",
    "JSONLog",
    "Lines",
    "LivePlot",
    "Mean",
    "Metric",
    "NaNGuard",
    "On",
    "Pace",
    "ProgressBar",
    "Receipt",
    "Repeated",
    "Resources",
    "Results",
    "Schedule",
    "Snapshot",
    "Statistics",
    "StopOn",
    "TensorBoardLog",
    "Threshold",
    "TopK",
    "Trainer",
    "Validation",
    "checkpoints",
    "grid",
    "hub",
    "sweep",
]
