"""The picture of all heads' patterns."""

import numpy as np

from microformer.inspection import mosaic


def pixels(patterns):
    """The picture in red, green and blue."""
    points, palette = mosaic.mosaic(patterns)
    return palette[points]


def test_a_square_a_head_a_row_of_them_a_layer():
    patterns = np.tril(np.full((2, 3, 64, 64), 1 / 64))
    picture = pixels(patterns)

    assert picture.dtype == np.uint8
    assert picture.shape == (2 * (64 * 3 + 6) + 6, 3 * (64 * 3 + 6) + 6, 3)


def test_what_is_looked_at_is_bright_what_is_not_black_and_what_comes_later_white():
    patterns = np.zeros((1, 1, 8, 8))
    patterns[0, 0, 3, 1] = 1.0
    picture = pixels(patterns)
    at = lambda query, key: picture[6 + query * 24 + 12, 6 + key * 24 + 12].tolist()  # noqa: E731

    assert at(3, 1) == [252, 255, 164]
    assert at(3, 2) == [0, 0, 4]
    assert at(3, 4) == [255, 255, 255]
    assert sum(at(3, 2)) < sum(at(3, 1))


def test_columns_of_a_memory_stand_before_the_text_and_are_always_seen():
    picture = pixels(np.zeros((1, 1, 4, 10)))
    size = (picture.shape[1] - 12) // 10

    assert picture[6 + 1, 6 + 5 * size + 1].tolist() == [0, 0, 4]  # of the memory
    assert picture[6 + 1, 6 + 8 * size + 1].tolist() == [255, 255, 255]


def test_a_layer_without_a_pattern_is_grey():
    patterns = np.zeros((2, 1, 8, 8))
    patterns[1] = np.nan
    picture = pixels(patterns)

    assert picture[-10, 10].tolist() == [200, 200, 200]


def test_heads_are_named_where_there_is_room():
    named, plain = pixels(np.zeros((1, 2, 64, 64))), pixels(np.zeros((1, 40, 16, 16)))

    assert (named == 90).all(-1).sum() > 100
    assert not (plain == 90).all(-1).any()
    assert max(plain.shape) <= 1600
