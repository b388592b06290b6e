"""In which keys two configs differ."""

from visionsweep.config.difference import difference


def test_every_leaf_that_differs_is_named() -> None:
    nan = float("nan")
    previous = {"a": {"b": 1, "c": [1, 2]}, "d": 0, "nan": nan}
    assert difference(previous, {"a": {"b": 1, "c": [1, 2]}, "d": 0, "nan": float("nan")}) == {}
    assert difference(previous, {"a": {"b": 2, "c": [1]}, "e": None, "nan": nan}) == {
        "a.b": (1, 2),
        "a.c": ([1, 2], [1]),
        "d": (0, "(not set)"),
        "e": ("(not set)", None),
    }
    assert difference({"a": 1}, {"a": True}) == {"a": (1, True)}
