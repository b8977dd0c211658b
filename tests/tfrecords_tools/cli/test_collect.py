import functools
import http.server
import threading

import pytest

from tfrecords_tools.cli.main import main


@pytest.fixture
def address(tmp_path, small_jpeg):
    """A local server of one image, photo.jpg."""
    pytest.importorskip("httpx", reason="needs the extra [collect]")
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "photo.jpg").write_bytes(small_jpeg)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    serve = functools.partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_images_of_a_table_are_collected_and_failures_counted(tmp_path, address, small_jpeg, capsys):
    table = tmp_path / "photos.csv"
    table.write_text(f"id,url\na,{address}/photo.jpg\nb,{address}/gone.jpg\n")
    call = ["collect", "images", str(table), "--id=id", "--url=url", f"--output={tmp_path / 'out'}", "--allow_private"]
    assert main(call) == 1
    printed = capsys.readouterr().out
    assert "1  done" in printed and "1  not_found" in printed
    assert (tmp_path / "out" / "a.jpg").read_bytes() == small_jpeg


def test_private_addresses_need_the_flag(tmp_path, address, capsys):
    table = tmp_path / "photos.csv"
    table.write_text(f"id,url\na,{address}/photo.jpg\n")
    assert main(["collect", "images", str(table), "--id=id", "--url=url", f"--output={tmp_path / 'out'}"]) == 1
    assert "1  private_address" in capsys.readouterr().out


def test_table_without_the_column_is_a_wrong_call(tmp_path, capsys):
    table = tmp_path / "photos.csv"
    table.write_text("id,link\n")
    assert main(["collect", "images", str(table), "--id=id", "--url=url", f"--output={tmp_path / 'out'}"]) == 2
    assert "no column 'url'; its columns are ['id', 'link']" in capsys.readouterr().err
    assert not (tmp_path / "out" / "a.jpg").exists()


def test_class_texts_are_checked(tmp_path, capsys):
    texts, names = tmp_path / "texts.csv", tmp_path / "names.csv"
    texts.write_text("LabelName,Definition\n/m/1,A boat floats.\n/m/2,The cat is a small carnivore.\n")
    names.write_text("/m/1,Boat\n/m/2,Goat\n")
    assert main(["collect", "check_texts", str(texts), f"--names={names}"]) == 1
    printed = capsys.readouterr().out
    assert "no_mention" in printed and "Goat: never mentioned" in printed and "2 texts, 1 problem(s)" in printed
    texts.write_text("LabelName,Definition\n/m/1,A boat floats.\n")
    assert main(["collect", "check_texts", str(texts), f"--names={names}"]) == 0


def test_leaks_are_listed_by_verify(tmp_path, small_jpeg, capsys):
    table = tmp_path / "table.csv"
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes(small_jpeg)
    table.write_text("image,label,split\na.jpg,x,train\nb.jpg,x,test\n")
    pack = ["pack", "table", str(table), "--image=image", "--label=label", "--split=split", f"--output={tmp_path / 'data'}"]
    assert main(pack) == 0
    assert main(["verify", str(tmp_path / "data"), "--leaks"]) == 0
    printed = capsys.readouterr().out
    assert "table:2 [train] and table:3 [test], 0 bits, same labels" in printed
    assert "1 pair(s) of near-duplicate images" in printed
