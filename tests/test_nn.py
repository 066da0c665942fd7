"""Modules: how they find their parts, their modes, their state; layers and losses; sentences for wrong uses."""

from __future__ import annotations

import copy
import math
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn, optim
from tapegrad.errors import CheckpointError, IndexOutOfRange, ShapeError, TapeError, TapegradError
from tapegrad.testing import check_grads


class Block(nn.Module):
    """A layer, a scale, a counter."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.scale = nn.Parameter([2.0])
        self.register_buffer("count", tg.tensor(0))
        self.register_buffer("mask", tg.ones(2), persistent=False)
        self.note = "plain"

    def forward(self, x):
        return self.layer(x) * self.scale * self.mask


class Net(nn.Module):
    """Two blocks, and one module under two names."""

    def __init__(self):
        super().__init__()
        self.first = Block()
        self.rest = nn.ModuleList([Block(), nn.ReLU()])
        self.again = self.first

    def forward(self, x):
        return self.first(x) + self.again(x)


# what belongs to a module


def test_names_of_parameters_modules_and_buffers():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == [
        "first.scale",
        "first.layer.weight",
        "first.layer.bias",
        "rest.0.scale",
        "rest.0.layer.weight",
        "rest.0.layer.bias",
    ]
    assert [n for n, _ in net.named_modules()] == [
        "",
        "first",
        "first.layer",
        "rest",
        "rest.0",
        "rest.0.layer",
        "rest.1",
    ]
    assert [n for n, _ in net.named_buffers()] == ["first.count", "first.mask", "rest.0.count", "rest.0.mask"]
    assert [n for n, _ in net.first.named_parameters("p")] == ["p.scale", "p.layer.weight", "p.layer.bias"]
    assert len(list(net.parameters())) == 6 and len(list(net.modules())) == 7 and len(list(net.buffers())) == 4
    assert [type(m) for m in net.children()] == [Block, nn.ModuleList, Block]


def test_attributes_come_and_go():
    block = Block()
    assert block.scale is dict(block.named_parameters())["scale"] and {"scale", "layer", "count"} <= set(dir(block))
    block.scale = nn.Parameter([3.0])
    assert block.scale.tolist() == [3.0] and len(list(block.parameters())) == 3
    block.scale = None
    assert block.scale is None and len(list(block.parameters())) == 2
    block.scale = nn.Parameter([4.0])
    del block.layer
    assert [n for n, _ in block.named_parameters()] == ["scale"]
    block.count = tg.tensor(5)
    assert [b.tolist() for b in block.buffers()] == [5, [1.0, 1.0]]
    block.plain = tg.ones(2)  # neither a parameter nor a buffer
    assert len(list(block.buffers())) == 2
    with pytest.raises(AttributeError, match="'Block' object has no attribute 'layer'"):
        block.layer


def owned(module: nn.Module) -> dict:
    """All that stands in the rooms of a module."""
    return {**module._parameters, **module._buffers, **module._modules}


def test_what_a_module_owns_is_a_plain_attribute():
    block = Block()
    plain = vars(block)
    assert set(owned(block)) == {"layer", "scale", "count", "mask"}
    assert all(plain[name] is value for name, value in owned(block).items())
    block.count, block.scale, block.layer = tg.tensor(7), nn.Parameter([1.0]), nn.ReLU()
    assert all(plain[name] is value for name, value in owned(block).items())
    block.layer, block.mask, block.scale = 3, None, nn.Tanh()
    assert (block.layer, block.mask, type(block.scale)) == (3, None, nn.Tanh)
    assert list(block._modules) == ["scale"] and list(block._parameters) == [] and block._buffers["mask"] is None
    del block.scale, block.count, block.layer
    assert not hasattr(block, "scale") and not hasattr(block, "count") and not hasattr(block, "layer")
    assert list(owned(block)) == ["mask"]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_own_what_they_show(copied):
    block = Block()
    other = copied(block)
    assert all(vars(other)[name] is value for name, value in owned(other).items())
    assert list(owned(other)) == list(owned(block))
    other.scale, kept = nn.Parameter([5.0]), block.scale
    del other.layer
    assert block.scale is kept is dict(block.named_parameters())["scale"]
    assert dict(other.named_parameters())["scale"].tolist() == [5.0]
    assert "layer.weight" in block.state_dict() and "layer.weight" not in other.state_dict()


def test_a_second_init_starts_anew():
    block = Block()
    nn.Module.__init__(block)
    assert not hasattr(block, "scale") and list(block.parameters()) == [] and block.note == "plain"


def test_methods_of_every_module_are_not_hidden_but_class_attributes_are():
    class Named(nn.Module):
        weight = None

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter([1.0])
            self.parameters = nn.Linear(2, 2)

    named = Named()
    assert named.weight.tolist() == [1.0]
    assert [n for n, _ in named.named_parameters()] == ["weight", "parameters.weight", "parameters.bias"]
    assert len(list(named.parameters())) == 3


def test_modules_take_any_arguments():
    class Join(nn.Module):
        def forward(self, *args, **kwargs):
            return args, kwargs

    join = Join()
    assert join() == ((), {}) and join(None) == ((None,), {}) and join(1, 2) == ((1, 2), {})
    assert join(x=1) == ((), {"x": 1}) and join(1, x=3) == ((1,), {"x": 3})


def test_a_parameter_is_not_lost_by_accident():
    layer = nn.Linear(2, 2)
    with pytest.raises(TapeError, match=r"Linear.weight is a parameter.*nn.Parameter"):
        layer.weight = layer.weight * 0.5
    with pytest.raises(TapeError, match="is a parameter"):
        layer.weight = tg.ones((2, 2))
    layer.weight = nn.Parameter(np.ones((2, 2)))
    assert layer.weight.dtype is tg.float64


def test_parameter_is_a_leaf_on_a_copy():
    source = tg.ones(2)
    p = nn.Parameter(source)
    with tg.no_grad():
        p.copy_(0.0)
    assert p.is_leaf and p.requires_grad and source.tolist() == [1.0, 1.0]
    assert not nn.Parameter(source, requires_grad=False).requires_grad


def test_a_tensor_shared_by_two_modules_is_one_parameter(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert [n for n, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]  # as in PyTorch
    model.to(tg.float64)
    assert model[0].weight is model[1].weight and model[0].weight.dtype is tg.float64
    model(tg.ones((1, 3), dtype=tg.float64)).sum().backward()
    optim.SGD(model.parameters(), lr=0.1).step()
    model.load_state_dict(model.state_dict())


def test_modes_apply_freeze_and_zero_grad():
    net, seen = Net(), []
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())
    assert net.apply(lambda m: seen.append(type(m).__name__)) is net
    assert seen[-1] == "Net" and seen[0] == "Linear"
    net(tg.ones((1, 3))).sum().backward()
    assert net.first.scale.grad is not None
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.requires_grad_(False)
    assert len(list(net.parameters())) == 6 and not net(tg.ones((1, 3))).requires_grad
    net.requires_grad_()
    assert net(tg.ones((1, 3))).requires_grad


def test_optimizers_pass_over_frozen_layers():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    before = model[0].weight.tolist()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    model(tg.ones((1, 2))).sum().backward()
    optimizer.step()
    assert model[0].weight.tolist() == before


def test_to_converts_in_place_and_optimizers_go_on():
    model = Block()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    assert model.to(tg.float64) is model
    assert {p.dtype.name for p in model.parameters()} == {"float64"} and model.count.dtype is tg.int64
    before = model.scale.item()
    model(tg.ones((1, 3), dtype=tg.float64)).sum().backward()
    optimizer.step()
    assert model.scale.item() != before
    weight = model.layer.weight
    loss = model(tg.ones((1, 3), dtype=tg.float64, requires_grad=True)).sum()
    model.to(tg.float32)
    assert model.layer.weight is weight
    with pytest.raises(TapeError, match="overwritten"):
        loss.backward()


def test_copies_are_apart():
    net = Net()
    other = copy.deepcopy(net)
    with tg.no_grad():
        other.first.scale.copy_(7.0)
    assert net.first.scale.item() == 2.0 and other.again is other.first
    assert [n for n, _ in other.named_parameters()] == [n for n, _ in net.named_parameters()]


def test_repr_reads_as_in_pytorch():
    assert repr(nn.Linear(3, 2, bias=False)) == "Linear(in_features=3, out_features=2, bias=False)"
    assert repr(nn.LeakyReLU(0.2)) == "LeakyReLU(negative_slope=0.2)"
    assert (
        repr(Net())
        == """Net(
  (first): Block(
    (layer): Linear(in_features=3, out_features=2, bias=True)
  )
  (rest): ModuleList(
    (0): Block(
      (layer): Linear(in_features=3, out_features=2, bias=True)
    )
    (1): ReLU()
  )
  (again): Block(
    (layer): Linear(in_features=3, out_features=2, bias=True)
  )
)"""
    )


# state


def test_state_goes_round_and_is_a_copy():
    net, other = Net(), Net()
    state = net.state_dict()
    assert "first.mask" not in state and "first.count" in state and "again.scale" in state
    assert other.load_state_dict(state) == ([], [])
    x = tg.normal(size=(4, 3))
    assert net(x).numpy().tobytes() == other(x).numpy().tobytes()
    with tg.no_grad():
        net.first.scale.copy_(9.0)
    assert state["first.scale"].item() == 2.0 and other.first.scale.item() == 2.0
    assert other.first.scale.requires_grad


def test_state_of_arrays_and_other_dtypes():
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": np.array([[1, 2]]), "bias": tg.tensor([3.0], dtype=tg.float64)})
    assert layer.weight.tolist() == [[1.0, 2.0]] and layer.weight.dtype is layer.bias.dtype is tg.float32


def test_a_state_that_does_not_fit_is_listed_and_changes_nothing():
    layer = nn.Linear(2, 2)
    before = layer.weight.numpy()
    state = {"weight": tg.zeros((2, 2)), "bias": tg.ones(3), "extra": tg.ones(1)}
    with pytest.raises(CheckpointError, match=r"Linear.*bias \(saved \(3,\), here \(2,\)\).*unexpected: extra"):
        layer.load_state_dict(state)
    with pytest.raises(CheckpointError, match="missing: bias"):
        layer.load_state_dict({"weight": tg.zeros((2, 2))})
    with pytest.raises(CheckpointError, match="bias is a float"):
        layer.load_state_dict({"weight": tg.zeros((2, 2)), "bias": 1.0})
    with pytest.raises(CheckpointError, match="got Linear"):
        layer.load_state_dict(layer)
    with pytest.raises(CheckpointError, match="shapes differ"):
        layer.load_state_dict(state, strict=False)
    np.testing.assert_array_equal(layer.weight.numpy(), before)
    found = layer.load_state_dict({"weight": tg.zeros((2, 2)), "extra": tg.ones(1)}, strict=False)
    assert found.missing_keys == ["bias"] and found.unexpected_keys == ["extra"] and not layer.weight.numpy().any()


# layers


def test_initial_values_are_fixed_by_the_seed_and_bounded_as_in_pytorch():
    def drawn():
        tg.seed(3)
        return [nn.Linear(50, 40), nn.Conv2d(4, 8, 3), nn.Conv1d(4, 8, 5, groups=2), nn.Embedding(30, 20)]

    for one, two in zip(drawn(), drawn()):
        for p, q in zip(one.parameters(), two.parameters()):
            assert p.numpy().tobytes() == q.numpy().tobytes()
    for layer, fan in zip(drawn(), (50, 36, 10)):
        for p in layer.parameters():
            assert abs(p.numpy()).max() <= 1 / math.sqrt(fan)
        assert abs(layer.weight.numpy()).max() > 0.9 / math.sqrt(fan)
        assert abs(layer.weight.numpy().std() * math.sqrt(3 * fan) - 1) < 0.1
    assert abs(nn.Embedding(100, 100).weight.numpy().std() - 1) < 0.05


@pytest.mark.parametrize(
    ("layer", "given", "wanted"),
    [
        (lambda: nn.Linear(3, 2), (5, 3), (5, 2)),
        (lambda: nn.Linear(3, 2, bias=False), (4, 5, 3), (4, 5, 2)),
        (lambda: nn.Linear(3, 2), (3,), (2,)),
        (lambda: nn.Conv2d(3, 4, 3), (2, 3, 6, 5), (2, 4, 4, 3)),
        (
            lambda: nn.Conv2d(4, 4, (3, 1), stride=(2, 1), padding=(1, 0), groups=2, bias=False),
            (2, 4, 6, 5),
            (2, 4, 3, 5),
        ),
        (lambda: nn.Conv2d(1, 2, 3, padding="same", dilation=2), (1, 1, 7, 7), (1, 2, 7, 7)),
        (lambda: nn.Conv1d(3, 4, 3, stride=2, padding=1), (2, 3, 9), (2, 4, 5)),
        (lambda: nn.Conv1d(3, 4, (3,)), (2, 3, 9), (2, 4, 7)),
        (lambda: nn.MaxPool2d(2), (1, 2, 5, 6), (1, 2, 2, 3)),
        (lambda: nn.AvgPool2d(3, stride=1, padding=1), (1, 2, 5, 6), (1, 2, 5, 6)),
        (lambda: nn.Flatten(), (2, 3, 4), (2, 12)),
        (lambda: nn.Flatten(0, 1), (2, 3, 4), (6, 4)),
        (lambda: nn.Dropout(0.3), (2, 3), (2, 3)),
        (lambda: nn.Sequential(), (2, 3), (2, 3)),
        (lambda: nn.Softmax(0), (2, 3), (2, 3)),
        (lambda: nn.LayerNorm(3), (2, 4, 3), (2, 4, 3)),
        (lambda: nn.LayerNorm((4, 3), eps=0.1, bias=False), (2, 4, 3), (2, 4, 3)),
        (lambda: nn.LayerNorm(3, elementwise_affine=False), (2, 3), (2, 3)),
    ],
    ids=range(18),
)
def test_shapes_and_gradients_of_layers(layer, given, wanted):
    made = layer().to(tg.float64).eval()
    x = tg.normal(size=given, dtype=tg.float64)
    assert made(x).shape == wanted
    check_grads(lambda v, *_: made(v), x, *made.parameters())
    (made(x) ** 2).sum().backward() if list(made.parameters()) else None
    assert all(p.grad is not None for p in made.parameters())


def test_dropout_drops_in_training_only():
    drop, x = nn.Dropout(0.25), tg.ones(10_000)
    y = drop(x).numpy()
    assert abs((y == 0).mean() - 0.25) < 0.02 and set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert drop.eval()(x) is x or drop(x).tolist() == x.tolist()
    assert not nn.Dropout(1.0)(x).numpy().any()


def test_layer_norm_makes_rows_of_mean_0_and_variance_1(rng):
    x = rng.normal(3.0, 5.0, (6, 4, 8))
    for shape, axes in ((8, (2,)), ((4, 8), (1, 2))):
        norm = nn.LayerNorm(shape, eps=1e-3, dtype=tg.float64)
        wanted = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-3)
        np.testing.assert_allclose(norm(tg.tensor(x)).numpy(), wanted, rtol=1e-12, atol=1e-12)
        scale, shift = rng.normal(size=(2, *x.shape[1:][-len(axes) :]))
        norm.load_state_dict({"weight": scale, "bias": shift})
        np.testing.assert_allclose(norm(tg.tensor(x)).numpy(), wanted * scale + shift, rtol=1e-12, atol=1e-12)
    assert [p.shape for p in norm.parameters()] == [(4, 8), (4, 8)]
    assert not list(nn.LayerNorm(8, elementwise_affine=False).parameters())
    assert [n for n, _ in nn.LayerNorm(8, bias=False).named_parameters()] == ["weight"]


def test_sequential_is_a_list_of_modules():
    model = nn.Sequential(OrderedDict(inner=nn.Linear(2, 3), act=nn.Tanh()))
    assert [n for n, _ in model.named_parameters()] == ["inner.weight", "inner.bias"]
    assert model.append(nn.Linear(3, 1)) is model and len(model) == 3
    assert model[-1] is list(model)[2] and model.inner is model[0]
    assert model[:2](tg.ones((1, 2))).shape == (1, 3) and type(model[1:]) is nn.Sequential
    with pytest.raises(IndexError):
        model[3]


def test_parameters_of_a_module_list_train():
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    assert len(layers) == 3 and len(list(layers.parameters())) == 6
    assert [type(layer) for layer in layers[1:]] == [nn.Linear] * 2


# losses and functions


def test_losses_have_the_reductions():
    x, t = tg.tensor([[1.0, -2.0], [0.5, 3.0]]), tg.tensor([[0.0, 1.0], [1.0, 1.0]])
    each = {
        F.mse_loss: (x.numpy() - t.numpy()) ** 2,
        F.l1_loss: abs(x.numpy() - t.numpy()),
        F.binary_cross_entropy_with_logits: np.logaddexp(0, x.numpy()) - x.numpy() * t.numpy(),
    }
    for loss, want in each.items():
        np.testing.assert_allclose(loss(x, t, reduction="none").numpy(), want, rtol=1e-6)
        np.testing.assert_allclose(loss(x, t).item(), want.mean(), rtol=1e-6)
        np.testing.assert_allclose(loss(x, t, reduction="sum").item(), want.sum(), rtol=1e-6)
    assert nn.MSELoss("sum")(x, t).item() == F.mse_loss(x, t, "sum").item()
    assert nn.CrossEntropyLoss()(x, tg.tensor([0, 1])).item() == F.cross_entropy(x, tg.tensor([0, 1])).item()
    assert math.isfinite(F.binary_cross_entropy_with_logits(tg.tensor([1e4, -1e4]), tg.tensor([1.0, 0.0])).item())


@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss])
def test_losses_of_unsigned_integers_do_not_wrap(loss):
    a, b = tg.tensor([0, 200], dtype=tg.uint8), tg.tensor([20, 100], dtype=tg.uint8)
    assert loss(a, b).item() == loss(a.astype(tg.float32), b.astype(tg.float32)).item() > 50.0


MODULES = [
    (nn.LeakyReLU(0.5), F.leaky_relu, dict(negative_slope=0.5)),
    (nn.ELU(0.5), F.elu, dict(alpha=0.5)),
    (nn.GELU("tanh"), F.gelu, dict(approximate="tanh")),
    (nn.Softmax(0), F.softmax, dict(dim=0)),
    (nn.LogSoftmax(dim=0), F.log_softmax, dict(dim=0)),
    (nn.Softplus(), F.softplus, {}),
]


@pytest.mark.parametrize(("module", "fn", "settings"), MODULES, ids=[repr(m) for m, _, _ in MODULES])
def test_activations_have_the_settings_of_their_functions(module, fn, settings):
    x = tg.tensor([[-1.0, 2.0], [0.5, -3.0]])
    assert module(x).tolist() == fn(x, **settings).tolist() and (not settings or module(x).tolist() != fn(x).tolist())


CRITERIA = [
    (nn.CrossEntropyLoss(ignore_index=1, reduction="sum"), F.cross_entropy, dict(ignore_index=1, reduction="sum")),
    (nn.NLLLoss(reduction="sum"), F.nll_loss, dict(reduction="sum")),
    (nn.MSELoss("sum"), F.mse_loss, dict(reduction="sum")),
    (nn.L1Loss("none"), F.l1_loss, dict(reduction="none")),
    (nn.BCEWithLogitsLoss(reduction="sum"), F.binary_cross_entropy_with_logits, dict(reduction="sum")),
]


@pytest.mark.parametrize(("module", "fn", "settings"), CRITERIA, ids=[repr(m) for m, _, _ in CRITERIA])
def test_criteria_have_the_settings_of_their_functions(module, fn, settings):
    x = tg.tensor([[-1.0, 2.0, 0.5], [0.5, -3.0, 1.0]])
    target = tg.tensor([1, 2]) if fn in (F.cross_entropy, F.nll_loss) else tg.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    got, plain = module(x, target), fn(x, target)
    assert got.tolist() == fn(x, target, **settings).tolist() != plain.tolist()
    assert module(input=x, target=target).tolist() == got.tolist()


def test_nll_of_log_softmax_is_cross_entropy():
    x, t = tg.normal(size=(5, 4)), tg.tensor([0, 3, -100, 1, 2])
    np.testing.assert_allclose(F.nll_loss(F.log_softmax(x, dim=1), t).item(), F.cross_entropy(x, t).item(), rtol=1e-6)
    check_grads(lambda v: F.nll_loss(v, t), tg.normal(size=(5, 4), dtype=tg.float64))
    assert F.nll_loss(x, t, reduction="none").numpy()[2] == 0


@pytest.mark.parametrize("index", ["int32", "int64"])
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("shape", [(1, 1), (37, 10), (5, 1500)])
def test_cross_entropy_slope(shape, dtype, rtol, index, rng):
    values, classes = rng.normal(size=shape) * 5, rng.integers(0, shape[1], shape[0]).astype(index)
    classes[shape[0] // 2] = -100
    x = tg.tensor(values.astype(dtype), requires_grad=True)
    F.cross_entropy(x, tg.tensor(classes), reduction="sum").backward()
    share = np.exp(values - values.max(1, keepdims=True))
    want = share / share.sum(1, keepdims=True) - (classes[:, None] == np.arange(shape[1]))
    want[shape[0] // 2] = 0
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=rtol, atol=rtol)
    other = x.detach().to("reference").requires_grad_()
    F.cross_entropy(other, tg.tensor(classes, device="reference"), reduction="sum").backward()
    np.testing.assert_allclose(other.grad.numpy(), want, rtol=rtol, atol=rtol)


def test_cross_entropy_of_one_sample_and_of_images():
    x, t = tg.normal(size=(2, 4, 3, 5), dtype=tg.float64), tg.randint(0, 4, (2, 3, 5))
    each = F.cross_entropy(x, t, reduction="none")
    assert each.shape == (2, 3, 5)
    one = F.cross_entropy(x[1, :, 2, 3], t[1, 2, 3], reduction="none")
    assert one.shape == () and math.isclose(one.item(), each[1, 2, 3].item(), rel_tol=1e-12)
    assert math.isclose(F.cross_entropy(x[..., 0], t[..., 0]).item(), each[..., 0].mean().item(), rel_tol=1e-12)
    empty = F.cross_entropy(tg.zeros((0, 4, 2)), tg.zeros((0, 2), dtype=tg.int64), reduction="none")
    assert empty.shape == (0, 2)


def test_cross_entropy_twice_differentiable():
    x, t = tg.normal(size=(5, 4), dtype=tg.float64), tg.tensor([0, 3, -100, 1, 2])
    for reduction in ("mean", "sum", "none"):
        check_grads(lambda v: F.cross_entropy(v, t, reduction=reduction), x)  # noqa: B023
        slope = tg.grad(lambda v: (F.cross_entropy(v, t, reduction=reduction) ** 2).sum())  # noqa: B023
        check_grads(slope, x)


@pytest.mark.parametrize(
    "call",
    [
        lambda bad: F.nll_loss(tg.zeros((2, 3)), bad),
        lambda bad: F.cross_entropy(tg.zeros((2, 3)), bad),
        lambda bad: F.embedding(bad, tg.zeros((3, 2))),
    ],
)
@pytest.mark.parametrize("bad", [[0, -1], [0, 3], [0, 2**40]])
def test_classes_and_rows_out_of_range_do_not_wrap(call, bad):
    with pytest.raises(IndexOutOfRange):
        call(tg.tensor(bad))


def test_pad_takes_pytorchs_order():
    x = tg.ones((2, 3))
    assert F.pad(x, (1, 2)).shape == (2, 6) and F.pad(x, (1, 2, 3, 0)).shape == (5, 6)
    assert F.pad(x, (1, 0), value=5.0).tolist()[0] == [5.0, 1.0, 1.0, 1.0]
    for bad in ((1,), (1, 1, 1, 1, 1, 1)):
        with pytest.raises(ShapeError, match="two for each axis"):
            F.pad(x, bad)


def test_the_public_names_of_functional_are_there():
    assert all(callable(getattr(F, name)) for name in F.__all__)
    assert all(
        isinstance(getattr(nn, name), type)
        or name in ("functional", "init", "utils", "Parameter", "causal_mask", "summary")
        for name in nn.__all__
    )


# wrong uses


class Forgetful(nn.Module):
    """Has no super().__init__()."""

    def __init__(self, how):
        how(self)


@pytest.mark.parametrize(
    "how",
    [
        lambda self: setattr(self, "layer", nn.Linear(2, 2)),
        lambda self: self.add_module("layer", nn.Linear(2, 2)),
        lambda self: self.register_buffer("b", tg.ones(1)),
        lambda self: list(self.parameters()),
        lambda self: self.train(),
        repr,
    ],
    ids=range(6),
)
def test_forgotten_super_init_is_named(how):
    with pytest.raises(TapeError, match=r"Forgetful: call super\(\).__init__\(\)"):
        Forgetful(how)


BAD = [
    (lambda: nn.Linear(2, 0), r"Linear: out_features is a whole number from 1, not 0"),
    (lambda: nn.Linear(2.0, 3), "in_features"),
    (lambda: nn.Conv2d(3, 4, 3, groups=2), "groups=2 must divide in_channels=3"),
    (lambda: nn.Conv2d(3, 4, 0), "kernel_size"),
    (lambda: nn.Conv2d(3, 4, (1, 2, 3)), "kernel_size"),
    (lambda: nn.Conv1d(3, 4, (1, 2)), "kernel_size"),
    (lambda: nn.Dropout(1.5), "probability"),
    (lambda: nn.LayerNorm(0), "normalized_shape is a whole number from 1, or some of them, not 0"),
    (lambda: nn.LayerNorm(()), "normalized_shape"),
    (lambda: nn.LayerNorm((3, 2.0)), "normalized_shape"),
    (
        lambda: nn.LayerNorm(4)(tg.ones((4, 3))),
        r"shape \(4, 3\); its last axes must be normalized_shape, which is \(4,\)",
    ),
    (lambda: F.layer_norm(tg.ones((2, 3)), 3, tg.ones(2)), "weight has shape"),
    (lambda: nn.Sequential([nn.ReLU()]), "'0' is a list, wanted a Module"),
    (lambda: nn.Sequential(nn.ReLU, nn.Tanh()), "wanted a Module"),
    (lambda: nn.Sequential({"a.b": nn.ReLU()}), "without dots"),
    (lambda: nn.Sequential({"forward": nn.ReLU()}), "already has an attribute 'forward'"),
    (lambda: nn.Module().register_buffer("x", 3), "wanted a tensor"),
    (lambda: nn.Module().register_parameter("x", tg.ones(1)), "nn.Parameter"),
    (lambda: nn.Module()(1), "Module has no forward method"),
    (lambda: nn.ModuleList([nn.ReLU()])(tg.ones(1)), "ModuleList has no forward method"),
    (lambda: F.mse_loss(tg.ones((3, 1)), tg.ones(3)), r"\(3, 1\).*\(3,\)"),
    (lambda: F.l1_loss(tg.ones(3), tg.ones(3), "avg"), "reduction is"),
    (lambda: F.nll_loss(tg.ones((2, 3)), tg.tensor([0.0, 1.0])), "of integers"),
    (lambda: F.pad(tg.ones(3), (1, 1), mode="reflect"), "constant"),
]


@pytest.mark.parametrize(("call", "says"), BAD, ids=range(len(BAD)))
def test_wrong_uses_get_a_sentence(call, says):
    with pytest.raises(TapegradError, match=says):
        call()


def test_unknown_settings_of_an_activation():
    with pytest.raises(TypeError, match=r"nn.ELU\(alpha=1.0\): .*'slope'"):
        nn.ELU(slope=1.0)


def test_a_wrong_shape_names_the_layer():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(ShapeError, match=r"linear: input has shape \(4, 2\)") as caught:
        model(tg.ones((4, 3)))
    assert caught.value.__notes__ == [
        "in Linear(in_features=3, out_features=2, bias=True)",
        "which is '2' of Sequential",
    ]
    with pytest.raises(ShapeError) as caught:
        Net()(tg.ones((4, 2)))
    assert caught.value.__notes__ == ["in Linear(in_features=3, out_features=2, bias=True)"]
