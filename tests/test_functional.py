"""grad, value_and_grad, vjp, jvp, jacobian, hessian and hvp, alone and inside each other, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

import tapegrad as tg
from tapegrad.errors import DtypeError, ShapeError, TapegradError

F64 = tg.float64
V = np.array([0.5, -1.5, 2.0])


def vector(values=V) -> tg.Tensor:
    return tg.tensor(np.asarray(values, dtype=np.float64))


def close(t, wanted, tolerance=1e-10) -> None:
    np.testing.assert_allclose(t.numpy(), np.asarray(wanted), rtol=tolerance, atol=tolerance)


def test_grad_of_numbers_arrays_and_tensors():
    f = lambda x: (x * x * x).sum()  # noqa: E731
    close(tg.grad(f)(2.0), 12.0)
    close(tg.grad(f)(np.array(2.0)), 12.0)
    close(tg.grad(f)(vector()), 3 * V**2)
    close(tg.grad(f)([1.0, 2.0]), [3.0, 12.0])


def test_grad_leaves_its_arguments_alone():
    x = vector()
    p = tg.tensor(V, requires_grad=True)
    tg.grad(lambda a, b: (a * b).sum(), (0, 1))(x, p)
    assert not x.requires_grad and p.grad is None


def test_results_do_not_require_gradients_at_the_outermost_level():
    x = vector()
    y, pull = tg.vjp(lambda v: v * v, x)
    results = [
        tg.grad(lambda v: (v**3).sum())(x),
        *tg.value_and_grad(lambda v: (v**3).sum())(x),
        y,
        *pull(vector()),
        *tg.jvp(lambda v: v**3, (x,), (x,)),
        tg.jacobian(lambda v: v**3)(x),
        tg.hessian(lambda v: (v**3).sum())(x),
        tg.hvp(lambda v: (v**3).sum(), x, x),
    ]
    assert not any(r.requires_grad for r in results)


@pytest.mark.parametrize(
    ("argnums", "names"), [(0, "a"), (1, "b"), (-1, "c"), ((0, 2), "ac"), ((-1, 0), "ca"), ([1], ["b"]), ((0, 0), "aa")]
)
def test_argnums(argnums, names):
    args = {n: vector(V + i) for i, n in enumerate("abc")}
    a, b, c = (t.numpy() for t in args.values())
    slopes = {"a": b, "b": a + 2 * b * c, "c": b**2}
    value, grads = tg.value_and_grad(lambda x, y, z: (x * y + y * y * z).sum(), argnums)(*args.values())
    close(value, (a * b + b * b * c).sum())
    if not isinstance(argnums, int):
        assert isinstance(grads, tuple) and len(grads) == len(names)
    for g, n in zip(grads if isinstance(grads, tuple) else [grads], names, strict=True):
        close(g, slopes[n])


def test_keywords_defaults_and_aux():
    def f(x, scale=2.0, *, power):
        return (x**power * scale).sum(), {"seen": x, "power": power}

    value, g = tg.value_and_grad(f, has_aux=True)(vector(), power=3)
    close(value[0], 2 * (V**3).sum())
    assert value[1]["power"] == 3 and value[1]["seen"].shape == (3,) and not value[1]["seen"].requires_grad
    close(g, 6 * V**2)
    g, aux = tg.grad(f, has_aux=True)(vector(), power=2)
    close(g, 4 * V)
    assert aux["power"] == 2
    close(tg.grad(lambda x, p: (x * p["w"]).sum())(vector(), {"w": 3.0}), [3.0] * 3)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: tg.grad(lambda x: x)(vector()), ShapeError, r"grad: the function returned shape \(3,\)"),
        (lambda: tg.grad(lambda x: 1.0)(1.0), DtypeError, "grad: the function returned float"),
        (lambda: tg.grad(lambda x: (x, 1))(1.0), DtypeError, "has_aux"),
        (lambda: tg.grad(lambda x: x > 0)(1.0), DtypeError, "grad: the function returned dtype bool"),
        (lambda: tg.grad(lambda x: x)(1), DtypeError, "argument 0 has dtype int64"),
        (lambda: tg.grad(lambda x: x, 1)(1.0), ShapeError, "argnums names argument 1"),
        (lambda: tg.grad(lambda x: x, -2)(1.0), ShapeError, "argnums"),
        (lambda: tg.grad(lambda x: x, "x")(1.0), DtypeError, "argnums"),
        (lambda: tg.grad(lambda x: x, 0.5)(1.0), DtypeError, "argnums"),
        (lambda: tg.grad(lambda x: x, has_aux=True)(1.0), TapegradError, "has_aux|pair"),
        (lambda: tg.vjp(lambda x: x * 2, vector())[1](tg.ones(2)), ShapeError, r"vjp: gradient has shape \(2,\)"),
        (lambda: tg.jvp(lambda x: x, (vector(),), ()), ShapeError, "1 primals and 0 tangents"),
        (
            lambda: tg.jvp(lambda x: x, (vector(),), (tg.ones(2),)),
            ShapeError,
            r"jvp: gradient has shape \(2,\)|tangent",
        ),
        (lambda: tg.hvp(lambda x: x.sum(), (vector(),), (vector(), vector())), ShapeError, "1 primals and 2 tangents"),
        (lambda: tg.hessian(lambda x: x, (0, 1)), DtypeError, "argnums"),
        (lambda: tg.jacobian(lambda x: None)(1.0), DtypeError, "NoneType"),
    ],
)
def test_wrong_uses(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_vjp_may_be_called_repeatedly():
    x, w = vector(), vector(V + 3)
    y, pull = tg.vjp(lambda a, b: a * b, x, w)
    close(y, V * (V + 3))
    for scale in (1.0, 10.0):
        left, right = pull(vector([scale, 0, 2 * scale]))
        close(left, (V + 3) * [scale, 0, 2 * scale])
        close(right, V * [scale, 0, 2 * scale])


def test_jvp():
    y, d = tg.jvp(lambda x, w: tg.sin(x) * w, (vector(), vector(V + 3)), (vector([1, 2, 3]), vector([4, 5, 6])))
    close(y, np.sin(V) * (V + 3))
    close(d, np.cos(V) * (V + 3) * [1, 2, 3] + np.sin(V) * [4, 5, 6])


def test_jvp_of_a_matrix_product(rng):
    a, b, ta, tb = (rng.normal(size=s) for s in [(2, 3), (3, 4), (2, 3), (3, 4)])
    y, d = tg.jvp(lambda x, w: x @ w, (tg.tensor(a), tg.tensor(b)), (tg.tensor(ta), tg.tensor(tb)))
    close(y, a @ b)
    close(d, ta @ b + a @ tb)


def test_jacobian(rng):
    m = rng.normal(size=(2, 3))
    close(tg.jacobian(lambda x: tg.tensor(m) @ x)(vector()), m)
    assert tg.jacobian(lambda x: x.reshape((3, 1)) * x)(vector()).shape == (3, 3, 3)
    close(tg.jacobian(lambda x: (x * x).sum())(vector()), 2 * V)
    a, b = tg.jacobian(lambda x, y: x * y, (0, 1))(vector(), vector(V + 3))
    close(a, np.diag(V + 3))
    close(b, np.diag(V))
    assert tg.jacobian(lambda x: x[:0])(vector()).shape == (0, 3)
    assert tg.jacobian(lambda x: x * 2)(tg.zeros(0)).shape == (0, 0)


def test_hessian_and_hvp(rng):
    a = rng.normal(size=(3, 3))
    f = lambda x: (x * (tg.tensor(a) @ x)).sum() + (x**4).sum()  # noqa: E731
    wanted = a + a.T + np.diag(12 * V**2)
    close(tg.hessian(f)(vector()), wanted)
    t = rng.normal(size=3)
    close(tg.hvp(f, (vector(),), (tg.tensor(t),)), wanted @ t)
    close(tg.jacobian(tg.grad(f))(vector()), wanted)
    close(tg.jvp(tg.grad(f), (vector(),), (tg.tensor(t),))[1], wanted @ t)
    close(tg.grad(lambda x: (tg.grad(f)(x) * tg.tensor(t)).sum())(vector()), wanted @ t)
    close(tg.grad(lambda x: tg.jvp(f, (x,), (tg.tensor(t),))[1])(vector()), wanted @ t)
    close(tg.vjp(tg.grad(f), vector())[1](tg.tensor(t))[0], wanted @ t)


def test_hvp_of_several_primals():
    f = lambda x, y: (x * x * y).sum()  # noqa: E731
    x, y, s, t = V, V + 3, np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
    left, right = tg.hvp(f, (vector(x), vector(y)), (vector(s), vector(t)))
    close(left, 2 * y * s + 2 * x * t)
    close(right, 2 * x * s)


def test_repeated_grad():
    f = lambda x: x**5  # noqa: E731
    close(tg.grad(tg.grad(tg.grad(f)))(tg.tensor(2.0, dtype=F64)), 60 * 4.0)
    g, x = tg.sin, tg.tensor(0.7, dtype=F64)
    for wanted in (np.cos(0.7), -np.sin(0.7), -np.cos(0.7), np.sin(0.7)):
        g = tg.grad(g)
        close(g(x), wanted)
    h = lambda x: tg.exp(-x * x) / (1 + x * x)  # noqa: E731
    step, third = 1e-3, tg.grad(tg.grad(tg.grad(h)))
    second = tg.grad(tg.grad(h))
    at = lambda v: second(tg.tensor(v, dtype=F64)).item()  # noqa: E731
    assert abs(third(x).item() - (at(0.7 + step) - at(0.7 - step)) / (2 * step)) < 1e-4


def test_third_derivatives_by_jvp_of_jvp():
    one = tg.tensor(1.0, dtype=F64)
    d = lambda f: lambda x: tg.jvp(f, (x,), (one,))[1]  # noqa: E731
    close(d(d(d(lambda x: x**5)))(tg.tensor(2.0, dtype=F64)), 240.0)
    close(d(tg.grad(d(lambda x: x**5)))(tg.tensor(2.0, dtype=F64)), 240.0)
    close(tg.grad(d(tg.grad(lambda x: x**5)))(tg.tensor(2.0, dtype=F64)), 240.0)


def test_perturbations_are_not_confused():
    def outer(x):
        return x * tg.grad(lambda y: x * y)(tg.tensor(3.0, dtype=F64))

    close(tg.grad(outer)(tg.tensor(5.0, dtype=F64)), 10.0)
    inner = lambda x: tg.grad(lambda y: x + y)(tg.tensor(1.0, dtype=F64))  # noqa: E731
    close(tg.grad(lambda x: x * inner(x))(tg.tensor(1.0, dtype=F64)), 1.0)
    forward = lambda x: x * tg.jvp(lambda y: x * y, (tg.tensor(3.0, dtype=F64),), (tg.tensor(1.0, dtype=F64),))[1]  # noqa: E731
    close(tg.jvp(forward, (tg.tensor(5.0, dtype=F64),), (tg.tensor(1.0, dtype=F64),))[1], 10.0)
    same = lambda x: tg.grad(lambda y: y * y * x)(x)  # noqa: E731  2x², of which the derivative is 4x
    close(tg.grad(same)(tg.tensor(3.0, dtype=F64)), 12.0)


def test_no_grad_inside():
    def f(x):
        with tg.no_grad():
            frozen = x * x
        return (x * frozen).sum()

    close(tg.grad(f)(vector()), V**2)
    close(tg.hessian(f)(vector()), np.zeros((3, 3)))


def test_under_no_grad_derivatives_still_work():
    with tg.no_grad():
        close(tg.grad(lambda x: (x**3).sum())(vector()), 3 * V**2)
        close(tg.jvp(lambda x: x**3, (vector(),), (tg.ones(3),))[1], 3 * V**2)
        close(tg.hessian(lambda x: (x**3).sum())(vector()), np.diag(6 * V))
        y, pull = tg.vjp(lambda x: x**3, vector())
        close(pull(tg.ones(3))[0], 3 * V**2)
        assert not (tg.tensor(1.0, requires_grad=True) * 2).requires_grad


def test_closing_over_a_parameter():
    p = tg.tensor(V + 3, requires_grad=True)
    x, t = vector(), vector([1, 2, 3])
    made = tg.hvp(lambda v: (v**3 * p).sum(), (x,), (t,))
    close(made, 6 * V * (V + 3) * [1, 2, 3])
    made.sum().backward()
    close(p.grad, 6 * V * [1, 2, 3])
    p.grad = None
    g = tg.grad(lambda v: (v * v * p).sum())(x)
    close(g, 2 * V * (V + 3))
    (g * g).sum().backward()
    close(p.grad, 8 * V**2 * (V + 3))
    p.grad = None
    tg.jacobian(lambda v: v * p)(x).sum().backward()
    close(p.grad, np.ones(3))
    p.grad = None
    tg.jvp(lambda v: v * v * p, (x,), (t,))[1].sum().backward()
    close(p.grad, 2 * V * [1, 2, 3])


def test_gradient_penalty_by_backward():
    w = tg.tensor(V, requires_grad=True)
    x = vector([1, 2, 3])
    slope = tg.grad(lambda v: tg.tanh((w * v).sum()))(x)
    penalty = (slope * slope).sum()
    penalty.backward()

    def closed(w):
        s = 1 - np.tanh((w * [1, 2, 3]).sum()) ** 2
        return (w**2).sum() * s**2

    step = 1e-6
    wanted = [(closed(V + step * e) - closed(V - step * e)) / (2 * step) for e in np.eye(3)]
    close(w.grad, wanted, 1e-6)


def test_an_argument_that_is_itself_recorded():
    w = tg.tensor(V, requires_grad=True)
    g = tg.grad(lambda v: (v**3).sum())(w * 2)
    close(g, 12 * V**2)
    g.sum().backward()
    close(w.grad, 24 * V)


def test_the_value_of_value_and_grad_carries_gradients_to_what_it_closes_over():
    w = tg.tensor(V, requires_grad=True)
    value, g = tg.value_and_grad(lambda v: (v * v * w).sum())(vector())
    value.backward()
    close(w.grad, V**2)


def test_aux_keeps_gradients_of_what_it_closes_over():
    w = tg.tensor(V, requires_grad=True)
    g, (inner, outer) = tg.grad(lambda x: ((x * x).sum(), (x * 2, [x * w])), has_aux=True)(vector())
    assert not g.requires_grad and not inner.requires_grad
    outer[0].sum().backward()
    close(w.grad, V)
    second = tg.grad(lambda x: tg.grad(lambda y: ((y * y).sum(), y**3), has_aux=True)(x)[1].sum())
    close(second(vector()), 3 * V**2)


def test_seeds_and_tangents_that_require_gradients():
    for f in (
        lambda s: tg.hvp(lambda v: (v**3).sum(), vector(), s),
        lambda s: 2 * tg.jvp(lambda v: v**3, (vector(),), (s,))[1] / vector(),
        lambda s: 2 * tg.vjp(lambda v: v**3, vector())[1](s)[0] / vector(),
    ):
        s = tg.tensor(np.ones(3), requires_grad=True)
        f(s).sum().backward()
        close(s.grad, 6 * V)


def test_independence_gives_zeros():
    x, y = vector(), vector(V + 1)
    close(tg.grad(lambda a, b: (a * a).sum(), 1)(x, y), np.zeros(3))
    close(tg.grad(lambda a: tg.tensor(1.0))(x), np.zeros(3))
    close(tg.grad(lambda a: tg.tensor(1.0, requires_grad=True))(x), np.zeros(3))
    close(tg.jacobian(lambda a: tg.ones(2))(x), np.zeros((2, 3)))
    close(tg.hessian(lambda a: a.sum())(x), np.zeros((3, 3)))
    close(tg.hvp(lambda a: a.sum(), (x,), (x,)), np.zeros(3))
    close(tg.jvp(lambda a: tg.ones(2), (x,), (x,))[1], np.zeros(2))
    close(tg.jvp(lambda a, b: a * 2, (x, y), (x, y))[1], 2 * V)
    close(tg.vjp(lambda a: tg.ones(2), x)[1](tg.ones(2))[0], np.zeros(3))
    close(tg.grad(tg.grad(lambda a: a * 3))(1.0), 0.0)
    close(tg.grad(tg.grad(tg.grad(lambda a: a * a)))(1.0), 0.0)
    close(tg.grad(lambda a: (a > 0).astype(F64).sum())(x), np.zeros(3))
    close(tg.grad(lambda a: tg.floor(a).sum())(x), np.zeros(3))


def test_the_identity():
    x = vector()
    close(tg.jacobian(lambda a: a)(x), np.eye(3))
    close(tg.grad(lambda a: a)(1.5), 1.0)
    close(tg.jvp(lambda a: a, (x,), (tg.ones(3),))[1], np.ones(3))
    close(tg.vjp(lambda a: a, x)[1](x)[0], V)
    close(tg.jvp(lambda a, b: b, (x, x), (tg.zeros(3), tg.ones(3)))[1], np.ones(3))
    close(tg.grad(tg.grad(lambda a: a))(1.5), 0.0)


def test_multi_output_ops_inside(rng):
    a = rng.normal(size=(3, 3)) + 3 * np.eye(3)
    inverse = np.linalg.inv(a)
    close(tg.grad(lambda m: tg.linalg.slogdet(m)[1])(tg.tensor(a)), inverse.T)
    wanted = -np.einsum("jk,li->ijkl", inverse, inverse).transpose(0, 1, 2, 3)
    got = tg.hessian(lambda m: tg.linalg.slogdet(m)[1])(tg.tensor(a)).numpy()
    # d(inv(A)ᵀ)_ij / dA_kl = -inv(A)_jk inv(A)_li
    np.testing.assert_allclose(got, wanted, atol=1e-9)
    parts = lambda x: (tg.split(x, 3)[0] * tg.split(x, 3)[2]).sum()  # noqa: E731
    close(tg.hessian(parts)(vector()), [[0, 0, 1], [0, 0, 0], [1, 0, 0]])


def test_float32_stays_float32():
    x = tg.tensor([1.0, 2.0])
    for t in (
        tg.grad(lambda v: (v * v).sum())(x),
        tg.jacobian(lambda v: v * v)(x),
        tg.hvp(lambda v: (v**3).sum(), x, x),
        tg.hessian(lambda v: (v**3).sum())(x),
    ):
        assert t.dtype is tg.float32


def test_an_exception_inside_leaves_recording_as_it_was():
    def broken(x):
        raise ZeroDivisionError

    with tg.no_grad():
        for call in (
            lambda: tg.grad(broken)(1.0),
            lambda: tg.jvp(broken, (1.0,), (1.0,)),
            lambda: tg.jacobian(broken)(1.0),
            lambda: tg.vjp(broken, 1.0),
        ):
            with pytest.raises(ZeroDivisionError):
                call()
            assert not (tg.tensor(1.0, requires_grad=True) * 2).requires_grad


def test_backward_inside_a_differentiated_function():
    def f(x):
        w = tg.tensor([2.0, 3.0, 4.0], dtype=F64, requires_grad=True)
        (w * w).sum().backward()
        return (x * w.grad).sum()

    close(tg.grad(f)(vector()), [4.0, 6.0, 8.0])
