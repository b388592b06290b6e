"""Functions that are pickled by value keep the file names of their tracebacks."""

import pickle

from visionsweep.sweep.engines.pickling import dumps


def test_a_function_pickled_by_value_keeps_its_file_name() -> None:
    def local() -> int:
        return 1

    copy = pickle.loads(dumps(local))
    assert copy() == 1
    assert copy is not local
    assert copy.__code__.co_filename == __file__
