"""More random programs: layers with state, optimizers, more ops, and what is done to a session between its passes."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from programs import DTYPES, Machine, Program, blocks, check, compound, place, simple, summing

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.errors import TapegradError
from tapegrad.nn import functional as F

SHAPED = {  # an array of four columns to another
    "layer_norm": lambda x: F.layer_norm(x, (4,)),
    "variance": lambda x: x / (1 + x.var(1, keepdims=True)),
    "log_softmax": lambda x: tg.log_softmax(x, 1) * 0.3,
    "cumsum": lambda x: tg.cumsum(x, 1) * 0.4,
    "sort": lambda x: tg.sort(x, 1),
    "topk": lambda x: tg.concatenate([tg.topk(x, 2, 1)[0], x[:, 1:3]], 1),
    "take": lambda x: tg.take(x, tg.tensor([3, 1, 0, 0], device=x.device), 1),
    "along": lambda x: tg.take_along_axis(x, tg.argsort(x, 1), 1),
    "indexed": lambda x: x[:, [2, 0, 1, 3]],
    "last": lambda x: x[-1:] + x[:1],
    "masked": lambda x: tg.where(x > x.mean(), x, -x),
    "padded": lambda x: tg.pad(x, ((0, 0), (1, 0)))[:, :4],
    "repeat": lambda x: tg.repeat(x[:, :2], 2, 1),
    "tile": lambda x: tg.tile(x[:, 2:], (1, 2)),
    "einsum": lambda x: tg.einsum("ij,kj->ik", x, x) @ x * 0.1,
    "normalize": lambda x: F.normalize(x),
    "gelu": tg.gelu,
    "silu": tg.silu,
    "softplus": tg.softplus,
    "clip": lambda x: tg.clip(x, -0.5, 0.7),
    "dropout": lambda x: F.dropout(x, 0.3),
    "noise": lambda x: x + tg.normal(size=x.shape, dtype=x.dtype, device=x.device) * 0.1,
    "rows": lambda x: tg.bernoulli(0.5, size=(4,), device=x.device).astype(x.dtype) * x,
    "logsumexp": lambda x: x - tg.logsumexp(x, 1, keepdims=True),
    "largest": lambda x: x * tg.one_hot(tg.argmax(x, 1), 4, dtype=x.dtype),
    "stack": lambda x: tg.stack([x, x * 2, x.detach()]).sum(0) * 0.3,
    "unstacked": lambda x: tg.stack([row * (i + 1) for i, row in enumerate(tg.split(x, 4, 1))]).sum(0) * 0.1 + x,
    "triangle": lambda x: tg.tril(x, 1) + tg.triu(x, 2) * 0.5,
    "outer": lambda x: tg.outer(x[0], x[-1]) * 0.3,
    "prod": lambda x: x * tg.prod(x, 1, keepdims=True),
    "norm": lambda x: x / (1 + tg.norm(x)),
    "pooled": lambda x: tg.repeat(F.max_pool1d(x[:, None], 2)[:, 0], 2, 1),
    "image": lambda x: F.conv1d(x[:, None], x[:1, None, :3] * 0.3, padding=1)[:, 0],
    "glu": lambda x: F.glu(tg.concatenate([x, x * 0.5], 1)),
    "reshaped": lambda x: (
        x.reshape((-1,))[::2].reshape((-1, 2)).sum(0).reshape((1, 2))
        * tg.ones((1, 4), device=x.device)[:, :2]
        @ x[:1, :2].T
        * x
    ),
    "counted": lambda x: x * (x > 0).astype(x.dtype).sum(1, keepdims=True) * 0.25,
}
FUNCTIONAL = {
    "grad": lambda x, w, b: tg.grad(lambda v: (tg.tanh(v @ w) * b).sum())(x),
    "jvp": lambda x, w, b: tg.jvp(lambda v: tg.sin(v @ w + b), (x,), (x * 0.5,))[1],
    "vjp": lambda x, w, b: tg.vjp(lambda v: tg.tanh(v @ w), x)[1](x)[0],
    "hvp": lambda x, w, b: tg.hvp(lambda v: (tg.tanh(v * b) ** 2).sum(), (x,), (tg.ones_like(x),)),
    "jacobian": lambda x, w, b: tg.jacobian(lambda v: tg.sin(v) * b)(x[0]),
    "second": lambda x, w, b: tg.grad(lambda v: (tg.grad(lambda u: tg.exp(-u * u).sum())(v) * b).sum())(x),
}
LAYERS = ("linear", "batch", "layer", "dropout", "gru", "embedding", "attention", "conv")
LOSSES = {
    "mse": lambda y, t: F.mse_loss(y, tg.tanh(t)),
    "huber": lambda y, t: F.huber_loss(y, tg.sin(t)),
    "cross": lambda y, t: F.cross_entropy(y, tg.argmax(t, 1)),
    "soft": lambda y, t: F.cross_entropy(y, tg.softmax(t, 1)),
    "binary": lambda y, t: F.binary_cross_entropy_with_logits(y, tg.sigmoid(t)),
    "square": lambda y, t: ((y - t) ** 2).sum(1).mean() * 0.5,
}
OPTIMIZERS = {  # with an eps that keeps a gradient that is rounding alone from being blown up to one that counts
    "sgd": lambda p: optim.SGD(p, lr=0.02, momentum=0.8, nesterov=True),
    "plain": lambda p: optim.SGD(p, lr=0.02, weight_decay=0.01),
    "adam": lambda p: optim.Adam(p, lr=0.01, eps=1e-3),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1, eps=1e-3),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.02, eps=1e-3),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.005, eps=1e-3),
    "nadam": lambda p: optim.NAdam(p, lr=0.01, eps=1e-3),
}
BETWEEN = {
    "clear": lambda m, session: session.clear(),
    "write": lambda m, session: m.write_("parameter", 0),
    "load": lambda m, session: m.model.load_state_dict(m.saved),
    "seed": lambda m, session: tg.seed(11),
    "read": lambda m, session: m.outside.extend(t.numpy() for t in [*m.held, *m.params, m.carried, m.hidden]),
    "use": lambda m, session: m.held.append(m.carried * 2 + m.twin),
    "step": lambda m, session: m.update_(True),
    "drop": lambda m, session: m.adaptive.zero_grad(),
    "halve": lambda m, session: m.gradient_("halve"),
    "train": lambda m, session: m.model.train(),
    "eval": lambda m, session: m.model.eval(),
    "freeze": lambda m, session: m.model.linear.requires_grad_(False),
    "thaw": lambda m, session: m.model.linear.requires_grad_(True),
    "learn": lambda m, session: m.train_("square", 0, None),
    "rate": lambda m, session: m.adaptive.param_groups[0].update(lr=0.003 * (1 + m.i)),
    "forget": lambda m, session: m.held.clear(),
}

modelled = st.one_of(
    st.tuples(st.just("shaped"), st.sampled_from(list(SHAPED)), place),
    st.tuples(st.just("shaped"), st.sampled_from(list(SHAPED)), place),
    st.tuples(st.just("layer"), st.sampled_from(LAYERS), place),
    st.tuples(st.just("layer"), st.sampled_from(LAYERS), place),
    st.tuples(st.just("loss"), st.sampled_from(list(LOSSES)), place, place),
    st.tuples(st.just("train"), st.sampled_from(list(LOSSES)), place, st.sampled_from([None, 0.5, 10.0])),
    st.tuples(st.just("train"), st.sampled_from(list(LOSSES)), place, st.none()),
    st.tuples(st.just("scaled"), st.sampled_from(["float16", "bfloat16"]), st.sampled_from(list(LOSSES)), place),
    st.tuples(st.just("update"), st.booleans()),
    st.tuples(st.just("augment"), st.sampled_from(["add", "multiply", "subtract", "rows", "column"]), place, place),
    st.tuples(st.just("functional"), st.sampled_from(list(FUNCTIONAL)), place),
    st.tuples(st.just("average"), place),
    st.tuples(st.just("save")),
    st.tuples(st.just("mode"), st.booleans()),
)


@dataclass
class Modelled(Program):
    """A program with an optimizer for its layers, and what is done after the passes of given numbers."""

    optimizer: str = "adam"
    between: tuple[tuple[str, tuple[int, ...]], ...] = ()
    scale = 0.1  # the gradient of a softmax against itself is rounding alone

    @property
    def exact(self) -> bool:
        return False

    @property
    def straight(self) -> bool:
        return False


def programs_of_models():
    """Programs for a `ModelMachine`."""
    leaf = st.one_of(simple, summing, modelled, modelled)
    statement = st.one_of(leaf, leaf, leaf, leaf, compound(st.one_of(leaf, compound(leaf))))
    rows = st.sampled_from([(3,), (3,), (3, 3, 2), (1, 4)])
    when = st.sampled_from([(0,), (4,), (7,), (5, 6), tuple(range(10))])
    between = st.lists(st.tuples(st.sampled_from(list(BETWEEN)), when), max_size=3).map(tuple)
    return st.builds(
        Modelled, blocks(statement, 4, 14), rows, st.sampled_from(DTYPES), st.sampled_from(list(OPTIMIZERS)), between
    )


class Layers(nn.Module):
    """One layer of each kind."""

    def __init__(self, dtype):
        super().__init__()
        self.linear, self.more = nn.Linear(4, 4, dtype=dtype), nn.Linear(4, 4, bias=False, dtype=dtype)
        self.batch, self.layer = nn.BatchNorm1d(4, dtype=dtype), nn.LayerNorm(4, dtype=dtype)
        self.dropout, self.gru = nn.Dropout(0.2), nn.GRUCell(4, 4, dtype=dtype)
        self.embedding = nn.Embedding(4, 4, dtype=dtype)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, dtype=dtype)
        self.conv = nn.Conv1d(1, 1, 3, padding=1, dtype=dtype)


class ModelMachine(Machine):
    """Runs a program that has layers and their optimizer."""

    program: Modelled

    def __init__(self, program: Modelled, make, device: str):
        super().__init__(program, make, device)
        self.model = Layers(self.dtype).to(device)
        self.adaptive = OPTIMIZERS[program.optimizer](self.model.parameters())
        self.scaler = optim.GradScaler(init_scale=1024.0, growth_interval=3)
        self.average = optim.ExponentialMovingAverage(self.params, decay=0.7)
        self.params += self.model.parameters()
        self.hidden = tg.zeros((1, 4), dtype=self.dtype, device=device)
        self.saved = self.model.state_dict()
        self.outside: list = []

    def between(self, session, i: int) -> None:
        self.vars = [self.carried.detach()]
        for what, when in self.program.between:
            if i in when:
                try:
                    BETWEEN[what](self, session)
                except TapegradError as error:
                    self.outside.append(self.said(error))
        self.vars.clear()

    def final(self) -> list:
        return [self.outside, self.hidden, dict(self.model.state_dict()), *super().final()]

    # statements

    def shaped_(self, op, a):
        self.give(SHAPED[op](self.pick(a)))

    def layer_(self, kind, a):
        x, model = self.pick(a), self.model
        if kind == "gru":
            self.hidden = model.gru(x[:1], self.hidden.detach())
            self.give(self.hidden)
        elif kind == "embedding":
            self.give(model.embedding(tg.argmax(x, 1)) + x)
        elif kind == "attention":
            self.give(model.attention(x[None], x[None], x[None])[0][0])
        elif kind == "conv":
            self.give(model.conv(x[:, None])[:, 0])
        else:
            self.give(getattr(model, kind)(x))

    def loss_(self, kind, a, b):
        loss = LOSSES[kind](self.pick(a), self.pick(b).detach())
        self.held.append(loss.detach())
        loss.backward(retain_graph=True)

    def train_(self, kind, a, limit):
        x = self.pick(a).detach()
        self.adaptive.zero_grad()
        loss = LOSSES[kind](self.model.more(tg.relu(self.model.linear(x))), x)
        loss.backward()
        if limit is not None:
            self.seen.append(nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        self.adaptive.step()
        self.held.append(loss.detach())

    def scaled_(self, dtype, kind, a):
        """A step with the products in halves and a scaled loss."""
        x = self.pick(a).detach()
        self.adaptive.zero_grad()
        with tg.autocast(dtype):
            loss = LOSSES[kind](self.model.more(tg.relu(self.model.linear(x))), x)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.adaptive)
        self.scaler.update()
        self.seen.append(self.scaler.get_scale())
        self.held.append(loss.detach())

    def update_(self, drop):
        self.adaptive.step()
        if drop:
            self.adaptive.zero_grad()

    def augment_(self, how, a, b):
        """Operators that assign, on a variable that others may know too."""
        x, y = self.pick(a), self.pick(b)[:1]
        if how == "add":
            x += y
        elif how == "multiply":
            x *= 0.5
        elif how == "subtract":
            x -= y.detach() * 0.1
        elif how == "rows":
            x = x.detach().copy()
            x[:1] = y.detach()
        else:
            x = x.detach().copy()
            x[:, 1] = y[0, 2].detach()
        self.give(x)

    def functional_(self, kind, a):
        self.give(FUNCTIONAL[kind](self.pick(a), self.weight, self.bias) * 0.3)

    def average_(self, a):
        self.average.update()
        with self.average.applied():
            self.give(tg.tanh(self.pick(a) @ self.weight + self.bias).detach())

    def save_(self):
        self.saved = self.model.state_dict()

    def mode_(self, training):
        self.model.train(training)


def check_model(program: Modelled, device: str = "cpu") -> int:
    """As `check`, of a program with layers."""
    return check(program, ModelMachine, device)
