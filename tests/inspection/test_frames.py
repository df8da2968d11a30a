"""What goes over the wire comes out as it went in."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from microformer.inspection import frames

ARRAYS = arrays_of.arrays(
    st.sampled_from([np.float32, np.uint8, np.int32]), arrays_of.array_shapes(min_dims=0, min_side=0)
)


@given(st.dictionaries(st.text(max_size=5), ARRAYS, max_size=4), st.text(max_size=40))
def test_what_is_packed_comes_out_as_it_was(arrays, word):
    data, found = frames.decode(frames.encode({"word": word}, arrays))

    assert data == {"word": word.encode("utf-8", "replace").decode()}
    assert found.keys() == {name.encode("utf-8", "replace").decode() for name in arrays}
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_each_array_begins_where_a_browser_can_look_at_it():
    frame = frames.encode({"é": 1}, {"a": np.zeros(3, np.uint8), "b": np.ones(1, np.float32), "c": [1, 2]})

    size = int.from_bytes(frame[:4], "little")
    header = json.loads(frame[4 : 4 + size])
    assert (4 + size) % 8 == 0
    assert [(one["at"] % 8, one["dtype"]) for one in header["arrays"].values()] == [
        (0, "uint8"),
        (0, "float32"),
        (0, "int32"),
    ]


def test_tensors_travel_in_the_types_that_a_browser_has():
    tensors = {
        "half": torch.ones(2, dtype=torch.float64),
        "ids": torch.arange(3),
        "is": torch.tensor([True]),
        "turned": torch.arange(6.0).view(2, 3).T,
    }

    found = frames.decode(frames.encode({}, tensors))[1]

    assert [one.dtype.name for one in found.values()] == ["float32", "int32", "uint8", "float32"]
    assert found["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_null_in_words_and_themselves_in_arrays(value):
    data, found = frames.decode(frames.encode({"a": [value, {"b": value}]}, {"c": [value]}))

    assert data == {"a": [None, {"b": None}]}
    np.testing.assert_array_equal(found["c"], np.float32([value]))
    assert "NaN" not in frames.to_json(value)
    assert "Infinity" not in frames.to_json(value)
