"""A config runs no code: gin's import statements are refused, and so nothing of the working folder is run by one."""

import pytest

from mm_keras.config.parse import ConfigError, parse_file, parse_lines

IMPORTS = [
    "import evil",
    "import evil as mm",
    "from evil import payload",
    "import os.path",
    "import __gin__.dynamic_registration",
]


@pytest.mark.parametrize("line", IMPORTS)
@pytest.mark.parametrize("where", ["file", "included file", "command line"])
def test_import_is_refused_with_its_place(tmp_path, monkeypatch, line, where):
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a.gin").write_text(f"train.epochs = 3\n{line}\n")
    (tmp_path / "b.gin").write_text('include "a.gin"\n')
    with pytest.raises(ConfigError, match=r"(a\.gin, line 2|gin_bindings, line 1): a config imports nothing"):
        list(
            parse_lines([line]) if where == "command line" else parse_file(tmp_path / ("b.gin" if "inc" in where else "a.gin"))
        )
