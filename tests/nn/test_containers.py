"""ModuleDict, Lambda, Identity, Unflatten, activations with parameters, pooling; graphs of modules; layers that size themselves."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn, optim
from tapegrad.errors import ShapeError, TapeError
from tapegrad.nn.lazy import sized_by


def test_a_module_dict_is_a_dict_of_modules():
    heads = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.ReLU()})
    assert list(heads) == list(heads.keys()) == ["a", "b"] and len(heads) == 2 and "a" in heads and "c" not in heads
    assert [n for n, _ in heads.named_parameters()] == ["a.weight", "a.bias"]
    heads["c"] = nn.Linear(2, 1, bias=False)
    heads.update([("b", nn.Tanh())])
    assert [type(m).__name__ for m in heads.values()] == ["Linear", "Tanh", "Linear"]
    assert [n for n, _ in heads.items()] == ["a", "b", "c"] and heads["a"](tg.ones(2)).shape == (3,)
    del heads["a"]
    assert [n for n, _ in heads.named_parameters()] == ["c.weight"]
    with pytest.raises(KeyError, match="ModuleDict has no module 'a'; it has b, c"):
        heads["a"]
    with pytest.raises(TapeError, match="'d' is a int, wanted a Module"):
        heads["d"] = 3
    with pytest.raises(TapeError, match="ModuleDict already has an attribute 'keys'"):
        heads["keys"] = nn.ReLU()


def test_any_graph_of_modules():
    """A shared module, two inputs, two outputs, a weighted sum of losses."""

    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            self.tower = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
            self.heads = nn.ModuleDict({"same": nn.Bilinear(4, 4, 1), "far": nn.Lambda(F.pairwise_distance)})

        def forward(self, a, b):
            a, b = self.tower(a), self.tower(b)
            return self.heads["same"](a, b), self.heads["far"](a, b)

    net = Twins()
    a, b = tg.normal(size=(5, 3)), tg.normal(size=(5, 3))
    same, far = net(a, b)
    (0.7 * (same**2).mean() + 0.3 * far.mean()).backward()
    shared = net.tower[0].weight.grad.numpy()
    net.zero_grad()
    (0.7 * (net(a, b)[0] ** 2).mean()).backward()
    first = net.tower[0].weight.grad.numpy()
    net.zero_grad()
    (0.3 * net(a, b)[1].mean()).backward()
    np.testing.assert_allclose(shared, first + net.tower[0].weight.grad.numpy(), rtol=1e-5)


def test_small_modules():
    assert nn.Lambda(tg.exp)(tg.zeros(1)).tolist() == [1.0] and repr(nn.Lambda(len)) == "Lambda(len)"
    x = tg.ones((2, 6))
    assert nn.Identity()(x) is x
    assert nn.Unflatten(-1, (2, 3))(x).shape == (2, 2, 3) and nn.Unflatten(1, [-1, 2])(x).shape == (2, 3, 2)
    assert repr(nn.Unflatten(1, (2, 3))) == "Unflatten(dim=1, unflattened_size=(2, 3))"
    assert repr(nn.PReLU(3)) == "PReLU(num_parameters=3)"
    assert repr(nn.Threshold(0.1, 2.0)) == "Threshold(threshold=0.1, value=2.0)"
    assert repr(nn.MaxPool1d(2)) == "MaxPool1d(kernel_size=2, stride=2, padding=0)"
    assert repr(nn.AdaptiveAvgPool2d((1, None))) == "AdaptiveAvgPool2d(output_size=(1, None))"
    assert repr(nn.Bilinear(2, 3, 4)) == "Bilinear(in1_features=2, in2_features=3, out_features=4, bias=True)"
    assert repr(nn.ConvTranspose2d(2, 3, 4, stride=2)) == "ConvTranspose2d(2, 3, kernel_size=(4, 4), stride=2)"


def test_activations_that_hold_ops_are_copied_and_pickled():
    layer = nn.TransformerEncoderLayer(4, 2, 8, activation="gelu")
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.activation is layer.activation is F.gelu
        assert other.linear1.weight is not layer.linear1.weight


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: nn.Unflatten(1, (4, 2))(tg.ones((2, 6))), r"axis 1 of shape \(2, 6\) has 6 elements, which do not become \(4, 2\)"),
        (lambda: nn.Unflatten(1, (-1, -1))(tg.ones((2, 6))), "do not become"),
        (lambda: nn.Bilinear(2, 0, 3), "Bilinear: in2_features is a whole number from 1, not 0"),
        (lambda: nn.Bilinear(2, 3, 4)(tg.ones((5, 2)), tg.ones((5, 2))), r"bilinear: inputs have shapes \(5, 2\) and \(5, 2\)"),
        (lambda: nn.Bilinear(2, 3, 4)(tg.ones((5, 2)), tg.ones((4, 3))), "only their last axes may differ"),
        (lambda: nn.ConvTranspose2d(4, 3, 2, groups=2), "groups=2 must divide in_channels=4 and out_channels=3"),
        (lambda: nn.ConvTranspose1d(4, 3, (2, 2)), "kernel_size is a whole number from 1, or 1 of them"),
        (lambda: nn.AdaptiveAvgPool2d(0)(tg.ones((1, 2, 3, 3))), r"output_size is 0 for an input of shape \(1, 2, 3, 3\)"),
        (lambda: nn.AdaptiveMaxPool1d((1, 2))(tg.ones((1, 2, 3))), "output_size is a number or 1 of them"),
        (lambda: nn.AdaptiveAvgPool2d(1)(tg.ones((2, 3))), r"wanted images \(N, C, H, W\) or \(C, H, W\), got shape \(2, 3\)"),
        (lambda: F.prelu(tg.ones((2, 3)), tg.ones(2)), r"prelu: weight has shape \(2,\), wanted \(1,\) or one slope for each channel"),
        (lambda: F.glu(tg.ones((2, 3))), r"glu: axis 1 of shape \(2, 3\) has an odd length"),
    ],
)  # fmt: skip
def test_sentences(wrong, message):
    with pytest.raises(ShapeError, match=message):
        wrong()


def test_sentences_of_calls():
    with pytest.raises(TypeError, match=r"nn.Threshold\(threshold, value\): missing a required argument: 'threshold'"):
        nn.Threshold()
    with pytest.raises(TapeError, match="Lambda: wanted a function, got 3"):
        nn.Lambda(3)


# layers that size themselves


LAZY = [
    (lambda: nn.BatchNorm1d(None, momentum=0.3), (4, 3), "num_features", 3),
    (lambda: nn.BatchNorm2d(num_features=None), (2, 5, 3, 3), "num_features", 5),
    (lambda: nn.ConvTranspose2d(None, 4, 3), (2, 6, 3, 3), "in_channels", 6),
    (lambda: nn.ConvTranspose1d(None, 4, 3), (6, 5), "in_channels", 6),
    (lambda: nn.LSTM(None, 4, 2, bidirectional=True), (5, 2, 3), "input_size", 3),
    (lambda: nn.RNN(None, 4, nonlinearity="relu"), (5, 2, 3), "input_size", 3),
    (lambda: nn.GRUCell(None, 4), (2, 3), "input_size", 3),
]


@pytest.mark.parametrize("make, shape, size, found", LAZY, ids=[repr(make()) for make, *_ in LAZY])
def test_a_layer_sizes_itself_at_its_first_call(make, shape, size, found):
    layer = make()
    cls = type(layer).__mro__[1]
    assert isinstance(layer, cls) and repr(layer) == f"{cls.__name__}({size}=None)"
    others = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.copy(layer)]
    out = layer.eval()(tg.ones(shape))
    assert type(layer) is cls and getattr(layer, size) == found and not layer.training
    assert all(np.isfinite(p.numpy()).all() for p in layer.parameters()) and list(layer.parameters())
    for other in others:
        assert repr(other) == f"{cls.__name__}({size}=None)"  # they wait for themselves
        again = other.eval()(tg.ones(shape))
        first = [t.shape for t in (again if isinstance(again, tuple) else (again,)) if isinstance(t, tg.Tensor)]
        assert first == [t.shape for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, tg.Tensor)]
        assert type(other) is cls


def test_parameters_that_are_not_there_yet_say_so():
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(None))
    said = "BatchNorm1d: num_features is not known before the first call, so there are no parameters yet; call the model once"
    for use in (
        lambda: [p.shape for p in net.parameters()],
        lambda: net.state_dict(),
        lambda: net.to("float64"),
        lambda: net.zero_grad(),
        lambda: nn.utils.parameters_to_vector(net.parameters()),
        lambda: nn.init.apply(net, {"**": nn.init.constant(0)}),
    ):
        with pytest.raises(TapeError, match=said):
            use()
    with pytest.raises(tg.errors.TapegradError):
        optim.SGD(net.parameters(), lr=0.1)
    assert "before num_features is known" in repr(next(net.parameters()))
    net(tg.normal(size=(3, 2, 2)))
    optim.SGD(net.parameters(), lr=0.1)
    assert next(iter(net.state_dict())) == "1.weight" and net[1].num_features == 4


def test_a_failed_first_call_may_be_tried_again():
    layer = nn.BatchNorm1d(None)
    with pytest.raises(ShapeError, match="num_features is a whole number from 1, not 0"):
        layer(tg.ones((4, 0)))
    assert repr(layer) == "BatchNorm1d(num_features=None)"
    assert layer(tg.normal(size=(4, 3))).shape == (4, 3)


def test_subclasses_keep_what_they_added():
    @sized_by("inputs", lambda layer, x: x.shape[-1])
    class Line(nn.Module):
        def __init__(self, inputs, slope=1.0):
            super().__init__()
            self.weight = tg.full((inputs,), slope, requires_grad=True)

        def forward(self, x):
            return x * self.weight

    class Shifted(Line):
        def __init__(self):
            super().__init__(None, slope=2.0)
            self.shift = nn.Parameter([0.5])
            self.note = "kept"

        def forward(self, x):
            return super().forward(x) + self.shift

    layer = Shifted()
    assert layer(tg.ones(3)).tolist() == [2.5] * 3 and layer.note == "kept"
    assert sorted(n for n, _ in layer.named_parameters()) == ["shift", "weight"]


def test_a_lazy_layer_in_a_session():
    net, session = nn.Sequential(nn.BatchNorm1d(None), nn.PReLU()), tg.Session()
    x = tg.normal(size=(6, 3))
    for _ in range(4):
        with session:
            loss = (net(x) ** 3).sum()
            for p in net.parameters():
                p.grad = None
            loss.backward()
    assert session.stats.replays >= 2 and net[0].num_batches_tracked.item() == 4
