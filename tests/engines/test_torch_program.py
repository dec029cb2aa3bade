"""The ONNX operators on torch, against ONNX's own definitions."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from engines.backends.torch_ops import OPS, Unknown  # noqa: E402
from engines.backends.torch_program import OnnxProgram  # noqa: E402
from engines.errors import EngineError  # noqa: E402
from engines.onnx_file import Node, OnnxFile, Tensor  # noqa: E402


def t(*values):
    return torch.tensor(values)


def test_operators_by_hand():
    x = torch.arange(6.0).reshape(2, 3)
    assert OPS["Slice"]({}, x, t(1), t(2**62), t(1)).tolist() == [[1, 2], [4, 5]]
    assert OPS["Reshape"]({}, x, t(0, -1)).shape == (2, 3)
    assert OPS["Gather"]({"axis": 1}, x, torch.tensor(-1)).tolist() == [2, 5]
    assert OPS["Div"]({}, t(7, -7), t(2, 2)).tolist() == [3, -3]
    assert OPS["Unsqueeze"]({}, t(1.0, 2.0), t(0, 2)).shape == (1, 2, 1)
    assert OPS["Expand"]({}, torch.ones(3, 1), t(2, 1, 4)).shape == (2, 3, 4)
    assert OPS["Gemm"]({"transB": 1}, torch.ones(1, 2), torch.ones(3, 2), t(1.0, 1.0, 1.0)).tolist() == [[3, 3, 3]]
    assert OPS["ReduceMean"]({"axes": [1], "keepdims": 0}, x).tolist() == [1, 4]
    assert OPS["Flatten"]({}, torch.ones(2, 3, 4)).shape == (2, 12)
    assert [part.tolist() for part in OPS["Split"]({"axis": 1}, x, t(1, 2))] == [[[0], [3]], [[1, 2], [4, 5]]]


def test_uneven_padding_is_padded():
    x, w = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3)
    assert OPS["Conv"]({"pads": [0, 0, 1, 1]}, x, w).shape == (1, 1, 3, 3)
    assert OPS["Conv"]({"auto_pad": b"SAME_UPPER", "strides": [2, 2]}, x, w).tolist() == [[[[9, 6], [6, 4]]]]
    assert OPS["MaxPool"]({"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}, -x).max() == -1


def program(nodes, **weights):
    graph = OnnxFile((Tensor("x", np.float32, (None, 4)),), (Tensor("y", np.float32, (None, None)),), tuple(nodes), weights, 17)
    return OnnxProgram(graph, torch.device("cpu"))


def test_what_depends_on_shapes_alone_is_computed_once():
    made = program([
        Node("Shape", "", ("x",), ("s",), {}), Node("Gather", "", ("s", "zero"), ("n",), {}),
        Node("Concat", "", ("n", "minus"), ("shape",), {"axis": 0}), Node("Reshape", "", ("x", "shape"), ("y",), {}),
    ], zero=np.array([0]), minus=np.array([-1]))  # fmt: skip
    for n in (2, 3):
        plan = made.prepare(((n, 4),))
        assert len(plan) == 1
        assert made.run(plan, [torch.ones(n, 4)])[0].shape == (n, 4)


@pytest.mark.parametrize(
    "node",
    [
        Node("NonMaxSuppression", "", ("x",), ("y",), {}),
        Node("Relu", "", ("x",), ("y",), {}, domain="com.example"),
    ],
)
def test_an_unknown_operator_is_said_at_the_start(node):
    with pytest.raises(EngineError, match="does not know the operators"):
        program([node])


def test_shapes_that_depend_on_the_picture_are_said():
    made = program([Node("Cast", "", ("x",), ("i",), {"to": 7}), Node("Reshape", "", ("x", "i"), ("y",), {})])
    with pytest.raises(EngineError, match="sizes that depend on the picture"):
        made.prepare(((1, 4),))


def test_an_output_without_an_input_is_refused():
    with pytest.raises(EngineError, match="do not depend on the input"):
        program([Node("Identity", "", ("w",), ("y",), {})], w=np.ones(1, np.float32)).prepare(((1, 4),))


LINEAR, FLOOR = {"mode": b"linear"}, {"coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}


@pytest.mark.parametrize(
    ("op", "attributes", "inputs"),
    [
        ("Resize", {"coordinate_transformation_mode": b"align_corners"}, (None, t(1.0, 1.0, 2.0, 2.0))),
        ("Resize", {"coordinate_transformation_mode": b"asymmetric"}, (None, t(1.0, 1.0, 2.0, 2.0))),
        ("Resize", {"nearest_mode": b"ceil"}, (None, t(1.0, 1.0, 2.0, 2.0))),
        ("Resize", FLOOR, (None, t(1.0, 1.0, 1.5, 1.5))),
        ("Resize", LINEAR, (None, t(1.0, 1.0, 1.5, 1.5))),  # to 7.5
        ("Resize", LINEAR, (None, t(1.0, 2.0, 2.0, 2.0))),
        ("Resize", LINEAR | {"coordinate_transformation_mode": b"pytorch_half_pixel"}, (None, None, t(1, 2, 1, 1))),
        ("Resize", LINEAR | {"antialias": 1}, (None, None, t(1, 2, 2, 2))),
        ("MaxPool", {"kernel_shape": [2]}, ()),
        ("AveragePool", {"kernel_shape": [2]}, ()),
        ("AveragePool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, ()),
    ],
)
def test_a_variant_that_torch_would_answer_otherwise_is_refused(op, attributes, inputs):
    with pytest.raises(Unknown):
        OPS[op](attributes, torch.ones(1, 2, 5, 5), *inputs)


def test_enlarging_by_hand():
    x = torch.arange(4.0).reshape(1, 1, 2, 2)
    for attributes in (FLOOR, {}, {"coordinate_transformation_mode": b"pytorch_half_pixel", "nearest_mode": b"round_prefer_ceil"}):
        assert OPS["Resize"](attributes, x, None, t(1.0, 1.0, 1.0, 2.0)).tolist() == [[[[0, 0, 1, 1], [2, 2, 3, 3]]]]
    assert OPS["Resize"](LINEAR, x, None, None, t(1, 1, 2, 4))[0, 0, 0].tolist() == [0, 0.25, 0.75, 1]


def test_axes_that_are_left_out_may_mean_none():
    x = torch.arange(6.0).reshape(2, 3)
    assert OPS["ReduceSum"]({"noop_with_empty_axes": 1}, x).tolist() == x.tolist()
    assert OPS["ReduceSum"]({}, x).tolist() == [[15]]
    assert OPS["GlobalAveragePool"]({}, torch.ones(1, 2, 3, 4, 5)).shape == (1, 2, 1, 1, 1)


def test_a_constant_that_is_text_is_said():
    with pytest.raises(EngineError, match="torch cannot run Constant"):
        program([Node("Constant", "", (), ("c",), {"value_string": b"a"}), Node("Relu", "", ("x",), ("y",), {})])
