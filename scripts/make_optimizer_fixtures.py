#!/usr/bin/env python3
"""Write tests/fixtures/optimizers.npz: 20 steps of each optimizer as PyTorch takes them. Needs torch; made with 2.13.0.

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
            arrays[f"{name}/{dtype}"] = trajectory(case, start.astype(dtype), noise.astype(dtype))
    TARGET.parent.mkdir(exist_ok=True)
    np.savez_compressed(TARGET, **arrays)
    print(f"{TARGET.name}: {len(CASES)} cases, {TARGET.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
