#!/usr/bin/env python3
"""Write tests/nn/fixtures/*.npz: layers and losses as PyTorch computes them. Needs torch; made with 2.13.0.

Each case holds a module's class and arguments, its parameters and inputs, and what came out: results, buffers, and the gradients
of all parameters and inputs for the gradient cos(0), cos(1), … of the results. All in float64.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "nn" / "fixtures"
WEIGHTS = [0.5, 2.0, 1.5, 1.0, 0.25]


def case(module: str, *args, inputs=(), call=None, name="", **kwargs) -> dict:
    """One case. inputs: shapes, or (kind, shape) of another kind than normal numbers; call: more arguments of the call."""
    return dict(module=module, args=args, kwargs=kwargs, inputs=inputs, call=call or {}, name=name)


def layers() -> list[dict]:
    image, line = (2, 4, 5, 7), (3, 4, 7)
    made = [
        case("BatchNorm1d", 5, inputs=[(7, 5)]),
        case("BatchNorm1d", 4, inputs=[line], momentum=0.3, eps=0.01, name="3d"),
        case("BatchNorm1d", 4, inputs=[line], momentum=None, name="cumulative"),
        case("BatchNorm1d", 4, inputs=[line], affine=False, track_running_stats=False, name="plain"),
        case("BatchNorm1d", 4, inputs=[line], call={"eval": True}, name="eval"),
        case("BatchNorm2d", 4, inputs=[image]),
        case("BatchNorm2d", 4, inputs=[image], call={"eval": True}, name="eval"),
        case("GroupNorm", 2, 4, inputs=[image]),
        case("GroupNorm", 4, 4, inputs=[line], affine=False, eps=0.1, name="plain"),
        case("RMSNorm", 7, inputs=[line], eps=1e-6),
        case("RMSNorm", [4, 7], inputs=[line], name="default_eps"),
        case("LayerNorm", [4, 7], inputs=[line]),
        case("Bilinear", 3, 5, 4, inputs=[(2, 3), (2, 5)]),
        case("Bilinear", 3, 5, 4, inputs=[(2, 3, 3), (2, 3, 5)], bias=False, name="plain"),
        case("ConvTranspose1d", 4, 6, 3, inputs=[line], stride=2, padding=1, output_padding=1, groups=2),
        case("ConvTranspose1d", 4, 3, 2, inputs=[(4, 7)], bias=False, dilation=2, name="single"),
        case("ConvTranspose2d", 4, 2, [3, 2], inputs=[image], stride=[2, 1], padding=1),
        case("MaxPool1d", 3, inputs=[("distinct", line)], stride=2, padding=1),
        case("AvgPool1d", 3, inputs=[line], stride=2, padding=1),
        case("AvgPool1d", 3, inputs=[line], padding=1, count_include_pad=False, name="without_padding"),
    ]
    for kind in ("Avg", "Max"):
        lines, images = ("distinct", line), ("distinct", image)
        made += [
            case(f"Adaptive{kind}Pool1d", 3, inputs=[lines]),
            case(f"Adaptive{kind}Pool1d", 7, inputs=[("distinct", (2, 3, 5))], name="more"),
            case(f"Adaptive{kind}Pool2d", [3, 2], inputs=[images]),
            case(f"Adaptive{kind}Pool2d", [5, 1], inputs=[images], name="even"),
            case(f"Adaptive{kind}Pool2d", 2, inputs=[("distinct", (4, 5, 7))], name="single"),
            case(f"Adaptive{kind}Pool2d", [3, 4], inputs=[("ties", (2, 3, 5, 7))], name="ties"),
        ]
    return made


def recurrent() -> list[dict]:
    made = []
    for kind, states in (("RNN", 1), ("GRU", 1), ("LSTM", 2)):
        x, y = (6, 3, 5), (3, 6, 5)
        made += [
            case(kind, 5, 6, inputs=[x]),
            case(kind, 5, 6, inputs=[x, *[(1, 3, 6)] * states], name="state"),
            case(kind, 5, 3, 2, inputs=[y, *[(4, 3, 3)] * states], bidirectional=True, batch_first=True, name="stacked"),
            case(kind, 5, 3, 2, inputs=[y], batch_first=True, bias=False, name="without_bias"),
            case(kind, 5, 6, inputs=[(6, 5)], name="single"),
            case(kind, 5, 6, inputs=[x], call={"lengths": [4, 6, 1]}, name="lengths"),
            case(
                kind, 5, 3, 2, inputs=[y, *[(4, 3, 3)] * states], batch_first=True, bidirectional=True,
                call={"lengths": [6, 2, 5]}, name="lengths_stacked",
            ),
            case(f"{kind}Cell", 5, 6, inputs=[(3, 5), *[(3, 6)] * states]),
            case(f"{kind}Cell", 5, 6, inputs=[(5,)], bias=False, name="single"),
        ]  # fmt: skip
    return [*made, case("RNN", 5, 17, inputs=[(4, 9, 5)], nonlinearity="relu", name="relu")]


def attention() -> list[dict]:
    x, y = (5, 3, 8), (7, 3, 8)
    small = dict(dropout=0.0, dim_feedforward=11)
    causal = [[j > i for j in range(5)] for i in range(5)]
    padding = [[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]]
    return [
        case("MultiheadAttention", 8, 2, inputs=[x, x, x], call={"same": True}),
        case("MultiheadAttention", 8, 4, inputs=[x, y, y], bias=False, name="cross"),
        case("MultiheadAttention", 8, 2, inputs=[x, (7, 3, 4), (7, 3, 6)], kdim=4, vdim=6, name="widths"),
        case(
            "MultiheadAttention", 8, 2, inputs=[(3, 5, 8)] * 3, batch_first=True, name="masks",
            call={"same": True, "attn_mask": causal, "key_padding_mask": padding, "average_attn_weights": False},
        ),
        case(
            "MultiheadAttention", 8, 2, inputs=[(5, 8)] * 3, name="float_mask",
            call={"same": True, "attn_mask": np.round(np.cos(np.arange(25.0)).reshape(5, 5), 3).tolist()},
        ),
        case("TransformerEncoderLayer", 8, 2, inputs=[x], **small),
        case("TransformerEncoderLayer", 8, 2, inputs=[x], activation="gelu", norm_first=True, name="norm_first", **small),
        case(
            "TransformerEncoderLayer", 8, 4, inputs=[(3, 5, 8)], batch_first=True, name="masks",
            call={"src_mask": causal, "src_key_padding_mask": padding}, **small,
        ),
    ]  # fmt: skip


def activations() -> list[dict]:
    plain = "ReLU ReLU6 LeakyReLU ELU SELU CELU GELU SiLU Mish Sigmoid LogSigmoid Hardsigmoid Hardswish Tanh Hardtanh Tanhshrink"
    made = [
        case(name, inputs=[("wide", (3, 7))]) for name in (plain + " Softplus Softsign Softshrink Hardshrink").split()
    ]
    return [
        *made,
        case("CELU", 0.75, inputs=[("wide", (3, 7))], name="alpha"),
        case("GELU", "tanh", inputs=[("wide", (3, 7))], name="tanh"),
        case("Hardtanh", -0.3, 1.7, inputs=[("wide", (3, 7))], name="limits"),
        case("Threshold", 0.4, 9.0, inputs=[("wide", (3, 7))]),
        case("PReLU", inputs=[(3, 7)]),
        case("PReLU", 4, inputs=[(3, 4, 5)], name="channels"),
        case("GLU", 1, inputs=[(3, 4, 5)]),
        case("Softmax", -1, inputs=[(3, 7)]),
        case("Softmax", 1, inputs=[(3, 4, 5)], name="middle"),
        case("Softmin", -1, inputs=[(3, 7)]),
        case("LogSoftmax", -1, inputs=[(3, 7)]),
    ]


def losses() -> list[dict]:
    made = []
    classes, many = [(5, 5), ("classes", (5,))], [(3, 5, 4), ("classes", (3, 4))]
    logs = [("logs", (5, 5)), ("classes", (5,))]
    for reduction in ("mean", "sum", "none"):
        pair = [(3, 5), (3, 5)]
        made += [
            case(name, inputs=pair, name=reduction, reduction=reduction) for name in ("MSELoss", "L1Loss", "HuberLoss")
        ]
        made += [
            case("SmoothL1Loss", inputs=pair, name=reduction, reduction=reduction, beta=0.5),
            case("BCELoss", inputs=[("shares", (3, 5))] * 2, name=reduction, reduction=reduction),
            case(
                "BCEWithLogitsLoss", inputs=[("wide", (3, 5)), ("shares", (3, 5))], name=reduction, reduction=reduction
            ),
            case("KLDivLoss", inputs=[("logs", (3, 5)), ("shares", (3, 5))], name=reduction, reduction=reduction),
            case("CrossEntropyLoss", inputs=classes, name=reduction, reduction=reduction),
            case("NLLLoss", inputs=logs, name=reduction, reduction=reduction),
            case(
                "CosineEmbeddingLoss",
                0.2,
                inputs=[(5, 3), (5, 3), ("signs", (5,))],
                name=reduction,
                reduction=reduction,
            ),
            case(
                "TripletMarginLoss",
                1.5,
                inputs=[(4, 3)] * 3,
                name=reduction,
                reduction=reduction,
                swap=reduction == "sum",
            ),
            case("HingeEmbeddingLoss", 0.7, inputs=[(3, 5), ("signs", (3, 5))], name=reduction, reduction=reduction),
            case("MarginRankingLoss", 0.3, inputs=[(5,), (5,), ("signs", (5,))], name=reduction, reduction=reduction),
            case(
                "MultiMarginLoss", inputs=classes, name=reduction, reduction=reduction, p=2 if reduction == "sum" else 1
            ),
        ]
        full = dict(weight=WEIGHTS, ignore_index=2, label_smoothing=0.1, reduction=reduction)
        made += [
            case("CrossEntropyLoss", inputs=many, name=f"full_{reduction}", **full),
            case("CrossEntropyLoss", inputs=[(5, 5), ("shares", (5, 5))], name=f"shares_{reduction}", **{**full, "ignore_index": -100}),
            case("NLLLoss", inputs=logs, name=f"full_{reduction}", weight=WEIGHTS, ignore_index=2, reduction=reduction),
            case(
                "BCEWithLogitsLoss", inputs=[("wide", (3, 5)), ("shares", (3, 5))], name=f"full_{reduction}",
                weight=WEIGHTS, pos_weight=WEIGHTS[::-1], reduction=reduction,
            ),
        ]  # fmt: skip
    made += [
        case("CrossEntropyLoss", inputs=[(3, 5, 4), ("shares", (3, 5, 4))], weight=WEIGHTS, name="shares_of_images"),
        case("CrossEntropyLoss", inputs=[(5,), ("classes", ())], label_smoothing=0.2, name="single"),
        case("CrossEntropyLoss", inputs=classes, weight=WEIGHTS, name="weights"),
        case("CrossEntropyLoss", inputs=classes, label_smoothing=0.2, name="smoothing"),
        case("KLDivLoss", inputs=[("logs", (3, 5))] * 2, reduction="batchmean", log_target=True, name="logs"),
        case("BCELoss", inputs=[("shares", (3, 5)), ("zeros_and_ones", (3, 5))], weight=WEIGHTS, name="weights"),
        case("SmoothL1Loss", inputs=[(3, 5), (3, 5)], beta=0.0, name="sharp"),
    ]
    return made


def drawn(rng: np.random.Generator, spec) -> np.ndarray:
    """An input of that shape and kind."""
    kind, shape = spec if len(spec) == 2 and isinstance(spec[0], str) else ("normal", tuple(spec))
    if kind == "classes":
        return rng.integers(0, 5, shape)
    if kind == "signs":
        return rng.choice([-1.0, 1.0], shape)
    if kind == "ties":
        return rng.integers(0, 3, shape).astype(float)
    if kind == "distinct":  # so that no maximum is shared
        return rng.permutation(int(np.prod(shape))).reshape(shape) / 64.0
    if kind == "zeros_and_ones":
        return rng.integers(0, 2, shape).astype(float)
    if kind == "shares":
        x = rng.uniform(0.05, 0.95, shape)
        return np.round(x / x.sum(1, keepdims=True), 6)
    if kind == "logs":
        return np.round(np.log(rng.dirichlet(np.ones(shape[1]), shape[0])), 6)
    return np.round(rng.normal(size=shape) * (3.0 if kind == "wide" else 1.0), 3)


def module_for(c: dict) -> nn.Module:
    kwargs = {k: torch.tensor(v) if k in ("weight", "pos_weight") else v for k, v in c["kwargs"].items()}
    args = [tuple(a) if isinstance(a, list) else a for a in c["args"]]
    kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in kwargs.items()}
    return getattr(nn, c["module"])(*args, **kwargs)


def called(module: nn.Module, c: dict, inputs: list) -> list:
    """What the module returns, as a flat list of tensors."""
    call = dict(c["call"])
    if call.pop("eval", False):
        module.eval()
    if call.pop("same", False):
        inputs = [inputs[0]] * 3
    lengths = call.pop("lengths", None)
    call = {k: as_mask(v) if isinstance(v, list) else v for k, v in call.items()}
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        x, *state = inputs
        state = tuple(state) if len(state) == 2 else state[0] if state else None
        if lengths is None:
            found = module(x, state)
        else:
            packed = pack_padded_sequence(x, torch.tensor(lengths), module.batch_first, enforce_sorted=False)
            out, last = module(packed, state)
            out, _ = pad_packed_sequence(out, module.batch_first, total_length=x.shape[int(module.batch_first)])
            found = (out, last)
    else:
        found = module(*inputs, **call)
    return flat(found)


def as_mask(rows: list) -> torch.Tensor:
    """Booleans stay booleans, numbers become float64."""
    return torch.tensor(rows, dtype=torch.bool if isinstance(rows[0][0], bool) else torch.float64)


def flat(found) -> list:
    return [found] if isinstance(found, torch.Tensor) else [t for part in found if part is not None for t in flat(part)]


def compute(c: dict, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The arrays of one case, by name."""
    torch.manual_seed(0)
    module = module_for(c).double()
    for name, p in module.named_parameters():
        scale = 0.5 if p.ndim > 1 else 0.3
        p.data = torch.tensor(np.round(rng.normal(size=tuple(p.shape)) * scale + ("norm" in name), 3))
    for name, b in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            b.data = torch.tensor(np.round(rng.uniform(0.5, 1.5, tuple(b.shape)), 3))
    found = {f"p/{n}": p.detach().numpy().copy() for n, p in module.named_parameters()}
    found |= {f"b/{n}": b.numpy().copy() for n, b in module.named_buffers() if "weight" not in n}
    arrays = [drawn(rng, spec) for spec in c["inputs"]]
    arrays = arrays[:1] * 3 if c["call"].get("same") else arrays
    fixed = [len(s) == 2 and s[0] in ("classes", "signs", "zeros_and_ones") for s in c["inputs"]]
    inputs = [torch.tensor(a, requires_grad=not f) for a, f in zip(arrays, fixed, strict=True)]
    passes = 2 if c["name"] == "cumulative" else 1
    for _ in range(passes):
        outs = called(module, c, inputs)
    total = sum((o * torch.cos(torch.arange(o.numel(), dtype=torch.float64)).reshape(o.shape)).sum() for o in outs)
    total.backward()
    found |= {f"in{i}": a for i, a in enumerate(arrays[: 1 if c["call"].get("same") else None])}
    found |= {f"gin{i}": t.grad.numpy() for i, t in enumerate(inputs) if t.grad is not None}
    found |= {f"out{i}": o.detach().numpy() for i, o in enumerate(outs)}
    found |= {f"gp/{n}": p.grad.numpy() for n, p in module.named_parameters()}
    found |= {f"after/{n}": b.numpy().copy() for n, b in module.named_buffers() if "weight" not in n}
    return found


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for maker in (layers, recurrent, attention, activations, losses):
        rng, numbers, cases = np.random.default_rng(7), [], {}
        place = 0
        for c in maker():
            name = c["module"] + (f"_{c['name']}" if c["name"] else "")
            assert name not in cases, name
            arrays = {}
            for key, value in compute(c, rng).items():
                arrays[key] = (place, value.shape, value.dtype.kind)
                numbers.append(np.asarray(value, dtype=np.float64).ravel())
                place += value.size
            cases[name] = {**{k: c[k] for k in ("module", "args", "kwargs", "call")}, "arrays": arrays}
        # one vector for all: an entry of its own for each array would take more room than its numbers
        path = FOLDER / f"{maker.__name__}.npz"
        np.savez_compressed(
            path, cases=np.frombuffer(json.dumps(cases).encode(), np.uint8), numbers=np.concatenate(numbers)
        )
        print(maker.__name__, len(cases), path.stat().st_size)


if __name__ == "__main__":
    main()
