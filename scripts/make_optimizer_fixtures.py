#!/usr/bin/env python3
"""Write tests/fixtures/optimizers.npz: 20 steps of each optimizer and the rates of each schedule, as PyTorch has them.

Needs torch; made with 2.13.0.

    python scripts/make_optimizer_fixtures.py

Each step's loss is Σ (noise[step] · p + p² / 2): its gradient is exact in every library and depends on the parameter.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

TARGET = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "optimizers.npz"
STEPS, SIZE = 20, 7  # an odd size, so that vector kernels meet their tail
CASES: dict[str, dict] = {
    "sgd": dict(optimizer="SGD", lr=0.1),
    "sgd-decay": dict(optimizer="SGD", lr=0.1, weight_decay=0.05),
    "sgd-momentum": dict(optimizer="SGD", lr=0.05, momentum=0.9),
    "sgd-dampening": dict(optimizer="SGD", lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.01),
    "sgd-nesterov": dict(optimizer="SGD", lr=0.05, momentum=0.9, nesterov=True),
    "sgd-nesterov-decay": dict(optimizer="SGD", lr=0.02, momentum=0.8, weight_decay=0.1, nesterov=True),
    "adam": dict(optimizer="Adam", lr=0.01),
    "adam-settings": dict(optimizer="Adam", lr=0.03, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1),
    "adam-beta-zero": dict(optimizer="Adam", lr=0.01, betas=(0.0, 0.9)),
    "adamw": dict(optimizer="AdamW", lr=0.01),
    "adamw-settings": dict(optimizer="AdamW", lr=0.03, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.3),
    "adagrad": dict(optimizer="Adagrad", lr=0.1),
    "adagrad-settings": dict(
        optimizer="Adagrad", lr=0.2, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.5, eps=1e-4
    ),
    "adadelta": dict(optimizer="Adadelta"),
    "adadelta-settings": dict(optimizer="Adadelta", lr=0.5, rho=0.8, eps=1e-3, weight_decay=0.1),
    "rmsprop": dict(optimizer="RMSprop", lr=0.01),
    "rmsprop-momentum": dict(optimizer="RMSprop", lr=0.01, alpha=0.9, momentum=0.8, weight_decay=0.1),
    "rmsprop-centered": dict(optimizer="RMSprop", lr=0.01, eps=1e-2, centered=True),
    "rmsprop-centered-momentum": dict(optimizer="RMSprop", lr=0.01, eps=1e-2, momentum=0.5, centered=True),
    "nadam": dict(optimizer="NAdam", lr=0.02),
    "nadam-settings": dict(
        optimizer="NAdam", lr=0.03, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1, momentum_decay=0.01
    ),
    "nadam-decoupled": dict(optimizer="NAdam", lr=0.03, weight_decay=0.1, decoupled_weight_decay=True),
    "radam": dict(optimizer="RAdam", lr=0.02),
    "radam-settings": dict(optimizer="RAdam", lr=0.03, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1),
    "radam-decoupled": dict(optimizer="RAdam", lr=0.03, weight_decay=0.1, decoupled_weight_decay=True),
    "sgd-falling-rate": dict(optimizer="SGD", lr=0.1, momentum=0.9, decay_rate=0.9),
    "adam-falling-rate": dict(optimizer="Adam", lr=0.05, decay_rate=0.9),
}


def trajectory(case: dict, start: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The parameter after each step, (STEPS, SIZE). decay_rate multiplies the learning rate after each step."""
    settings = {k: v for k, v in case.items() if k not in ("optimizer", "decay_rate")}
    p = torch.tensor(start, requires_grad=True)
    optimizer = getattr(torch.optim, case["optimizer"])([p], **settings)
    found = []
    for row in torch.tensor(noise):
        optimizer.zero_grad()
        (row * p + p * p / 2).sum().backward()
        optimizer.step()
        found.append(p.detach().numpy().copy())
        optimizer.param_groups[0]["lr"] *= case.get("decay_rate", 1.0)
    return np.stack(found)


# name of a class of torch.optim.lr_scheduler and its arguments; "then": others, for those that combine
SCHEDULES: dict[str, dict] = {
    "step": dict(name="StepLR", step_size=4, gamma=0.5),
    "multi-step": dict(name="MultiStepLR", milestones=[3, 4, 11], gamma=0.3),
    "constant": dict(name="ConstantLR", factor=0.25, total_iters=6),
    "linear": dict(name="LinearLR", start_factor=0.1, end_factor=0.8, total_iters=7),
    "polynomial": dict(name="PolynomialLR", total_iters=15, power=2.0),
    "exponential": dict(name="ExponentialLR", gamma=0.9),
    "cosine": dict(name="CosineAnnealingLR", T_max=12, eta_min=0.01),
    "restarts": dict(name="CosineAnnealingWarmRestarts", T_0=3, T_mult=2, eta_min=0.01),
    "cyclic": dict(name="CyclicLR", base_lr=0.01, max_lr=0.2, step_size_up=3, step_size_down=5),
    "cyclic2": dict(name="CyclicLR", base_lr=0.01, max_lr=0.2, step_size_up=4, mode="triangular2"),
    "cyclic-exp": dict(name="CyclicLR", base_lr=0.01, max_lr=0.2, step_size_up=4, mode="exp_range", gamma=0.9),
    "one-cycle": dict(name="OneCycleLR", max_lr=0.3, total_steps=30),
    "one-cycle-linear": dict(name="OneCycleLR", max_lr=0.3, total_steps=30, anneal_strategy="linear", pct_start=0.4),
    "one-cycle-three": dict(name="OneCycleLR", max_lr=0.3, total_steps=30, three_phase=True),
    "sequential": dict(name="SequentialLR", milestones=[5, 12], then=["linear", "exponential", "cosine"]),
    "chained": dict(name="ChainedScheduler", then=["linear", "exponential"]),
    "plateau": dict(name="ReduceLROnPlateau", factor=0.5, patience=2, cooldown=1, min_lr=0.005),
    "plateau-max": dict(
        name="ReduceLROnPlateau", mode="max", factor=0.5, patience=1, threshold=0.1, threshold_mode="abs"
    ),
}
LBFGS: dict[str, dict] = {
    "plain": dict(lr=0.01, max_iter=5, history_size=3),
    "wolfe": dict(max_iter=6, line_search_fn="strong_wolfe"),
    "wolfe-short": dict(lr=0.5, max_iter=4, history_size=2, line_search_fn="strong_wolfe"),
}


def schedule(optimizer, case: dict):
    """The scheduler of a case."""
    settings = {k: v for k, v in case.items() if k not in ("name", "then")}
    made = getattr(torch.optim.lr_scheduler, case["name"])
    if "then" not in case:
        return made(optimizer, **settings)
    parts = [schedule(optimizer, SCHEDULES[name]) for name in case["then"]]
    return made(optimizer, parts, **settings) if settings else made(parts)


def rates(case: dict, values: np.ndarray) -> np.ndarray:
    """(learning rate, momentum) after each of 25 steps, the start included. values: what a plateau looks at."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    made = schedule(optimizer, case)
    found = []
    for value in values:
        group = optimizer.param_groups[0]
        found.append((group["lr"], group["momentum"]))
        optimizer.step()
        made.step(*([float(value)] if case["name"] == "ReduceLROnPlateau" else []))
    return np.array(found)


def quasi_newton(case: dict) -> np.ndarray:
    """The point after each of 8 steps on Rosenbrock's function, float64."""
    x = torch.tensor([-1.5, 2.0, 0.5], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([x], **case)

    def closure():
        optimizer.zero_grad()
        loss = ((1.0 - x[:-1]) ** 2 + 100.0 * (x[1:] - x[:-1] ** 2) ** 2).sum()
        loss.backward()
        return loss

    found = []
    for _ in range(8):
        optimizer.step(closure)
        found.append(x.detach().numpy().copy())
    return np.stack(found)


def main() -> None:
    rng = np.random.default_rng(20240229)
    start, noise = rng.normal(size=SIZE), rng.normal(size=(STEPS, SIZE))
    arrays = {
        "start": start,
        "noise": noise,
        "cases": np.array(json.dumps(CASES)),
        "torch": np.array(str(torch.__version__)),
    }
    for name, case in CASES.items():
        for dtype in ("float32", "float64"):
            torch.set_default_dtype(getattr(torch, dtype))  # in which NAdam keeps its product of momenta
            arrays[f"{name}/{dtype}"] = trajectory(case, start.astype(dtype), noise.astype(dtype))
    values = np.concatenate([np.linspace(3, 1, 8), np.full(9, 1.0), np.linspace(0.9, 1.2, 8)])
    arrays["schedules"], arrays["values"] = np.array(json.dumps(SCHEDULES)), values
    arrays["lbfgs"] = np.array(json.dumps(LBFGS))
    for name, case in SCHEDULES.items():
        arrays[f"schedule/{name}"] = rates(case, values)
    for name, case in LBFGS.items():
        arrays[f"lbfgs/{name}"] = quasi_newton(case)
    TARGET.parent.mkdir(exist_ok=True)
    np.savez_compressed(TARGET, **arrays)
    print(f"{TARGET.name}: {len(CASES)} cases, {TARGET.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
