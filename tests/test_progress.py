import pytest
from absl import logging

from tfrecords_tools import progress
from tfrecords_tools.progress import are_bars_shown, progress_bar, showing


def _say():
    exec(compile("logging.info('100 % done')", progress.__file__, "exec"), {"logging": logging})  # as of the library
    logging.info("of another package")
    logging.warning("odd")
    with progress_bar("packing", "examples", 2) as bar:
        bar.update(2)
        return bar.disable


def test_lines_are_still_shown_after_another_package_has_set_the_verbosity_back(capsys):
    """As TensorFlow does whenever it saves a model."""
    with showing():
        before = logging.get_verbosity()
        logging.set_verbosity(logging.FATAL)
        logging.set_verbosity(before)
        _say()
    assert capsys.readouterr().out == "100 % done\n"


def test_lines_and_bars_are_shown_as_asked(capsys):
    with showing(0):
        assert _say()
    assert capsys.readouterr() == ("", "odd\n")
    with showing(2):
        assert _say()
    assert capsys.readouterr() == ("100 % done\n", "odd\n")
    with showing(1):
        assert not _say() and are_bars_shown()
    out, err = capsys.readouterr()
    assert out == "100 % done\n"
    assert err.startswith("odd\n") and "packing" in err


def test_shown_within_shown_ends_with_itself(capsys):
    with showing(1):
        with showing(0):
            _say()
        assert capsys.readouterr().out == ""
        _say()
    assert capsys.readouterr().out == "100 % done\n"


def test_lines_outlast_a_verbosity_that_was_set_for_a_moment(capsys):
    with showing(1):
        before = logging.get_verbosity()  # as TensorFlow does in saving
        logging.set_verbosity(logging.FATAL)
        logging.set_verbosity(before)
        _say()
    assert capsys.readouterr().out == "100 % done\n"


def test_library_prints_nothing_by_itself():
    modules = [path for path in _modules() if path.name != "portable_client.py"]  # a program, which exports carry along
    assert not [line for path in modules for line in path.read_text("utf-8").splitlines() if line.lstrip().startswith("print(")]


def _modules():
    from pathlib import Path

    import mm_keras
    import tfrecords_tools

    folders = (Path(mm_keras.__file__).parent, Path(tfrecords_tools.__file__).parent)
    shows = Path(tfrecords_tools.__file__).parent / "progress.py"
    return [path for folder in folders for path in folder.rglob("*.py") if path.parent.name != "cli" and path != shows]


def test_unknown_verbosity_is_an_error():
    with pytest.raises(ValueError, match=r"verbose is 0, 1 or 2\. Received: 3"), showing(3):
        pass
