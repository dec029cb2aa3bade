"""Files that are no models: one sentence, quickly, whatever is in them."""

from __future__ import annotations

import contextlib
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_by_hand import message

from engines import load_classifier, load_detector
from engines.errors import FerError, ModelError
from engines.manifest import MODELS
from engines.onnx_file import labels_in, read_onnx

SHIPPED = (MODELS / "yolo11n_face.onnx").read_bytes()
CONTENT = {
    "empty": b"",
    "text": b"this is not a model\n" * 50,
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "zeros": bytes(100_000),
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
    "zip": b"PK\x03\x04" + bytes(500),
    "cut": SHIPPED[: len(SHIPPED) // 2],
    "head": SHIPPED[:100],
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
    "overlong": b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
}


@pytest.mark.parametrize("load", [load_detector, load_classifier])
@pytest.mark.parametrize("content", CONTENT)
def test_an_onnx_that_is_none(tmp_path, content, load):
    path = tmp_path / "m.onnx"
    path.write_bytes(CONTENT[content])
    started = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        load(path)
    assert time.perf_counter() - started < 5
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", CONTENT)
def test_a_yunet_that_is_none(tmp_path, content):
    path = tmp_path / "face_detection_yunet.onnx"
    path.write_bytes(CONTENT[content])
    with pytest.raises(ModelError):
        load_detector(path)


BOMB = b'<?xml version="1.0"?><!DOCTYPE n [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><net name="&b;" version="11"></net>'
XML = {
    "entities": BOMB,
    "no layers": b'<?xml version="1.0"?><net name="x" version="11"><layers></layers></net>',
    "broken": b'<?xml version="1.0"?><net name="x" version="11"><layers><layer id="0"',
    "no weights": b'<net name="x" version="11"><layers><layer id="0" name="c" type="Const" version="opset1">'
    b'<data element_type="f32" shape="4" offset="0" size="16"/><output><port id="0" precision="FP32"><dim>4</dim></port></output>'
    b'</layer><layer id="1" name="r" type="Result" version="opset1"><input><port id="0"/></input></layer></layers>'
    b'<edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges></net>',
}


@pytest.mark.parametrize("content", [*XML, "empty", "text", "zeros"])
def test_an_xml_that_is_none(tmp_path, content):
    path = tmp_path / "m.xml"
    path.write_bytes(XML.get(content) or CONTENT[content])
    with pytest.raises(ModelError):
        load_detector(path)
    with pytest.raises(FerError):
        load_classifier(path)


def test_a_huge_file_is_refused_at_once(tmp_path):
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)  # sparse
    started = time.perf_counter()
    with pytest.raises(ModelError, match=r"3\.2 GB"):
        load_detector(path)
    with path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ModelError):
        load_detector(path)
    assert time.perf_counter() - started < 2


def test_an_array_of_absurd_size_is_refused(absurd_onnx):
    with pytest.raises(ModelError, match="absurd size"):
        load_detector(absurd_onnx)


def test_weights_in_another_file_are_not_followed(external_onnx):
    with pytest.raises(ModelError, match="in another file"):
        load_classifier(external_onnx)


@pytest.mark.parametrize(
    "content",
    [
        message((14, message((1, 2**28)))),
        message((8, message((1, 2**28)))),
        message((7, message((1, message((4, 2**28)))))),
        message((7, message((1, message((5, message((4, 2**28)))))))),
    ],
    ids=["a key of the metadata", "the domain of an opset", "an operator", "an attribute"],
)
def test_a_number_where_text_should_be_does_not_become_as_many_bytes(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(message((7, b""), (8, message((2, 17)))) + content)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError):
            read_onnx(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_many_tiny_fields_end_early(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x01" * 2_000_000)
    with pytest.raises(ModelError, match="more parts than any network"):
        read_onnx(path)


@given(st.binary(max_size=300), st.integers(0, len(SHIPPED) - 400))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_give_a_model_or_a_model_error(tmp_path, noise, at):
    path = tmp_path / "m.onnx"
    for content in (noise, SHIPPED[:at] + noise + SHIPPED[at + len(noise) :]):
        path.write_bytes(content)
        with contextlib.suppress(ModelError):
            read_onnx(path)


@pytest.mark.parametrize(
    ("metadata", "labels"),
    [
        ({"labels": '["a", "b"]'}, ("a", "b")),
        ({"labels": "a, b"}, ("a", "b")),
        ({"names": "{1: 'b', 0: 'a'}"}, ("a", "b")),
        ({"names": "{'x': 'b'}"}, None),
        ({"labels": '{"b": "1", "a": "0"}'}, ("a", "b")),
        ({"labels": '{"a": [0], "b": [1]}'}, None),
        ({"labels": '{"a": Infinity, "b": 0}'}, None),
        ({"labels": '[["a"], ["b"]]'}, None),
        ({"labels": '[null, "a"]'}, None),
        ({"labels": "0, 1"}, ("0", "1")),
        ({"labels": "x" * 200_000}, None),
        ({"labels": "[" * 5000}, None),
        ({}, None),
    ],
)
def test_labels_from_metadata(metadata, labels):
    assert labels_in(metadata) == labels
