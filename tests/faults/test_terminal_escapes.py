"""Labels and texts of others that carry control sequences of terminals: what one sees is their names, on one line."""

import pytest

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.printable import printable
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources.example import Source, SourceExample

CASES = {  # what stands in the data -> what one sees
    "\x1b[31mred": "\\x1b[31mred",
    "\x1b]0;title\x07": "\\x1b]0;title\\x07",
    "two\nlines\r": "two\\nlines\\r",
    "\x9b2J": "\\x9b2J",
    "abc\u202egpj": "abc\\u202egpj",
    "half \ud83d": "half \\ud83d",
    "del\x7f": "del\\x7f",
    "标题 naïve 👩\u200d🚀 می\u200cخواهم": "标题 naïve 👩\u200d🚀 می\u200cخواهم",
}


@pytest.mark.parametrize("text", CASES)
def test_text_is_shown_and_not_obeyed(text):
    assert printable(text) == CASES[text]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    examples = [
        SourceExample(
            f"e{i}\x1b[2J", f"rows:{i}", texts={"title": [f"\x1b[31mred\nlabels  fake {i}"]}, labels=[f"mug\x1b[{i}m"]
        )
        for i in range(4)
    ]
    folder = tmp_path_factory.mktemp("escapes") / "data"
    source = Source("rows", lambda: iter(examples), {"title": False}, False)
    pack(source, folder, PackOptions(fractions={"train": 1.0}, workers=1), progress=False)
    return folder


@pytest.mark.parametrize(
    "command", [("inspect",), ("stats",), ("stats", "--json"), ("verify", "--leaks"), ("inspect", "--id=\x1b[7m")]
)
def test_commands_print_no_control_characters(folder, call, command):
    name, *options = command
    _, out, err = call(main, name, folder, *options)
    assert not set(out + err.replace("\r", "")) & set("\x1b\x07\r")
    if command == ("inspect",):
        assert "\\x1b[31mred\\nlabels  fake 0" in out
        assert "mug\\x1b[0m" in out


def test_errors_print_none_either(folder, call):
    status, _, err = call(main, "inspect", folder, "--split=\x1b[7mtrain")
    assert status == 2
    assert "\\x1b[7mtrain" in err.replace("\\\\", "\\")
    assert "\x1b" not in err
