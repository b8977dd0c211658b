from tfrecords_tools.progress import progress_bar


def test_bar_counts_what_is_done_on_standard_error(capsys):
    with progress_bar("packing", "examples", 3) as bar:
        for _ in range(3):
            bar.update()
    out, err = capsys.readouterr()
    assert out == ""
    assert "packing: 100%" in err
    assert "3/3" in err
    assert " examples/s" in err


def test_bar_that_is_not_shown_writes_nothing(capsys):
    with progress_bar("packing", "examples", shown=False) as bar:
        bar.update()
    assert capsys.readouterr() == ("", "")
