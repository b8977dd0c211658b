import math
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from mm_keras.model.torch_file import TorchFileError, read_torch_file

STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "int64": "LongStorage"}
STORAGES |= {
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
MAGIC = 0x1950A86A20F9469CFC6C


class Global(str):
    """The name of a function or class, "module name", as a pickle has it."""


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = Global(function), arguments


class Storage:
    def __init__(self, array, key, legacy=False, kind=None):
        self.array, name = array, Global(f"torch {kind or STORAGES[str(array.dtype)]}")
        self.id = ("storage", name, key, "cpu", array.size) + ((None,) if legacy else ())


def dump(value) -> bytes:
    """A pickle that needs no class or function to exist here."""
    return b"\x80\x02" + _encode(value) + b"."


def _encode(value) -> bytes:
    if isinstance(value, Global):
        module, _, name = value.partition(" ")
        return b"c%s\n%s\n" % (module.encode(), name.encode())
    if isinstance(value, Call):
        return _encode(value.function) + _encode(value.arguments) + b"R"
    if isinstance(value, Storage):
        return _encode(value.id) + b"Q"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_encode, value)) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(_encode(key) + _encode(each) for key, each in value.items()) + b"u"
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    return pickle.dumps(value, protocol=2)[2:-1]


def tensor(storage, shape, stride=None, offset=0):
    stride = stride or tuple(math.prod(shape[index + 1 :]) for index in range(len(shape)))
    return Call("torch._utils _rebuild_tensor_v2", storage, offset, shape, stride, False, Call("collections OrderedDict"))


def write_zip(path, content, storages=(), extra=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", dump(content))
        for storage in storages:
            archive.writestr(f"weights/data/{storage.id[2]}", storage.array.tobytes())
        for name, value in extra:
            archive.writestr(f"weights/{name}", value)
    return path


def write_legacy(path, content, storages):
    keys = [storage.id[2] for storage in storages]
    pickles = [MAGIC, 1001, {"little_endian": True}, content, keys]
    bodies = [struct.pack("<q", storage.array.size) + storage.array.tobytes() for storage in storages]
    path.write_bytes(b"".join(map(dump, pickles)) + b"".join(bodies))
    return path


@pytest.fixture
def array():
    return np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


@pytest.mark.parametrize("dtype", sorted(STORAGES))
def test_tensors_of_every_type_are_read(tmp_path, dtype):
    values = np.arange(6).reshape(2, 3).astype(dtype)
    storage = Storage(values.reshape(-1), "0")
    found = read_torch_file(write_zip(tmp_path / "net.pth", {"a.weight": tensor(storage, (2, 3))}, [storage]))
    np.testing.assert_array_equal(found["a.weight"], values)
    assert found["a.weight"].dtype == values.dtype


def test_bfloat16_is_read(tmp_path):
    storage = Storage(np.array([0x3F80, 0xC020], "uint16"), "0", kind="BFloat16Storage")
    found = read_torch_file(write_zip(tmp_path / "net.pth", {"a": tensor(storage, (2,))}, [storage]))
    np.testing.assert_array_equal(found["a"].astype("float32"), [1, -2.5])


@pytest.mark.parametrize("legacy", [False, True])
def test_views_of_a_storage_are_read(tmp_path, array, legacy):
    storage = Storage(array.reshape(-1), "0", legacy)
    views = {
        "whole": tensor(storage, (3, 4)),
        "transposed": tensor(storage, (4, 3), (1, 4)),
        "row": tensor(storage, (4,), offset=4),
        "scalar": tensor(storage, (), offset=11),
        "none": tensor(storage, (0, 4)),
        "parameter": Call("torch._utils _rebuild_parameter", tensor(storage, (3, 4)), True, Call("collections OrderedDict")),
    }
    write = write_legacy if legacy else write_zip
    found = read_torch_file(write(tmp_path / "net.pth", views, [storage]))
    wanted = {"whole": array, "transposed": array.T, "row": array[1], "scalar": array[2, 3], "none": array[:0]}
    for name, expected in (wanted | {"parameter": array}).items():
        np.testing.assert_array_equal(found[name], expected)


def test_big_endian_files_are_read(tmp_path, array):
    storage = Storage(array.astype(">f4").reshape(-1), "0", kind="FloatStorage")
    path = write_zip(tmp_path / "net.pth", {"a": tensor(storage, (3, 4))}, [storage], [("byteorder", "big")])
    np.testing.assert_array_equal(read_torch_file(path)["a"], array)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_state_dict_within_a_checkpoint_is_found(tmp_path, array, key):
    storage = Storage(array.reshape(-1), "0")
    state = {"module.a.weight": tensor(storage, (3, 4)), "module.b": tensor(storage, (4,))}
    found = read_torch_file(write_zip(tmp_path / "net.pt", {"epoch": 3, key: state}, [storage]))
    assert sorted(found) == ["a.weight", "b"]


@pytest.mark.parametrize("content", [{"epoch": 3}, {"optimizer": {}}, 7])
def test_file_without_a_state_dict_is_an_error(tmp_path, content):
    with pytest.raises(TorchFileError, match=r"net.pth holds no state dict.*'state_dict'.*Received: .*(epoch|optimizer|int)"):
        read_torch_file(write_zip(tmp_path / "net.pth", content))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("module", ["os system", "posix system", "builtins eval", "builtins getattr", "torch.nn Module"])
def test_pickled_code_is_refused_by_name_and_not_run(tmp_path, module, legacy):
    content = {"a": Call(module, f"touch {tmp_path / 'run'}")}
    path = write_legacy(tmp_path / "evil.pth", content, []) if legacy else write_zip(tmp_path / "evil.pth", content)
    with pytest.raises(TorchFileError, match=rf"evil.pth names {module.replace(' ', '.')}, .*nothing of it was run"):
        read_torch_file(path)
    assert not (tmp_path / "run").exists()


def test_pickle_made_to_run_a_command_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'run'}",)

    with zipfile.ZipFile(tmp_path / "evil.pth", "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps({"a": Evil()}))
    with pytest.raises(TorchFileError, match=r"names \w+\.system"):
        read_torch_file(tmp_path / "evil.pth")
    assert not (tmp_path / "run").exists()


def test_whole_models_and_programs_are_refused(tmp_path):
    class Module:
        id = ("module", Global("collections OrderedDict"), "net.py", "class Net: ...")

    path = tmp_path / "net.pth"
    path.write_bytes(b"".join(map(dump, [MAGIC, 1001, {}])) + b"\x80\x02" + _encode(Module.id) + b"Q.")
    with pytest.raises(TorchFileError, match="holds a whole model"):
        read_torch_file(path)
    with pytest.raises(TorchFileError, match="is a TorchScript program"):
        read_torch_file(write_zip(tmp_path / "net.pt", {}, extra=[("constants.pkl", b"")]))


@pytest.mark.parametrize(
    ("shape", "stride", "offset"),
    [((3, 5), None, 0), ((3, 4), None, 1), ((2, 2), (-1, 1), 4), ((4,), (1,), -1), ((1000000, 4), (0, 1), 0)],
)
def test_tensor_beyond_its_storage_is_an_error(tmp_path, array, shape, stride, offset):
    storage = Storage(array.reshape(-1), "0")
    path = write_zip(tmp_path / "net.pth", {"a": tensor(storage, shape, stride, offset)}, [storage])
    with pytest.raises(TorchFileError, match=r"net.pth holds a tensor of (impossible )?size"):
        read_torch_file(path)


def test_damaged_files_are_errors(tmp_path, array):
    storage, legacy = Storage(array.reshape(-1), "0"), Storage(array.reshape(-1), "0", legacy=True)
    short = Storage(array.reshape(-1), "0")
    short.array = short.array[:5]
    with pytest.raises(TorchFileError, match=r"storage 0 of .*short.pth has 20 bytes, not 12 elements of float32"):
        read_torch_file(write_zip(tmp_path / "short.pth", {"a": tensor(short, (3, 4))}, [short]))
    with pytest.raises(TorchFileError, match=r"missing.pth is damaged.*weights/data/0"):
        read_torch_file(write_zip(tmp_path / "missing.pth", {"a": tensor(storage, (3, 4))}))
    whole = write_legacy(tmp_path / "legacy.pth", {"a": tensor(legacy, (3, 4))}, [legacy]).read_bytes()
    for length in (len(whole) - 1, len(whole) - 49, 20, 60):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(TorchFileError, match=r"cut.pth"):
            read_torch_file(tmp_path / "cut.pth")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x80\x02K\x05.", b"\x89HDF\r\n"])
def test_file_of_another_format_is_an_error(tmp_path, content):
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(TorchFileError, match=r"net.pth is no file of torch.save"):
        read_torch_file(tmp_path / "net.pth")


def test_zip_of_something_else_is_an_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(TorchFileError, match=r"a zip archive without data.pkl"):
        read_torch_file(tmp_path / "net.pth")


@pytest.mark.slow
@pytest.mark.parametrize("new", [True, False])
def test_files_of_pytorch_itself_are_read(tmp_path, new):
    pytest.importorskip("torch")
    script = f"""
import numpy as np, torch
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2).half())
state = net.state_dict() | {{"t": torch.arange(6.).reshape(2, 3).t(), "b": torch.ones(2).bfloat16()}}
state["p"] = torch.nn.Parameter(torch.ones(2))
torch.save({{"state_dict": state, "epoch": 1}}, "net.pth", _use_new_zipfile_serialization={new})
np.savez("net.npz", **{{name: tensor.detach().float().numpy() for name, tensor in state.items()}})
"""
    # PyTorch and TensorFlow do not always get along in one process.
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    found, wanted = read_torch_file(tmp_path / "net.pth"), np.load(tmp_path / "net.npz")
    assert set(found) == set(wanted)
    for name, array in found.items():
        np.testing.assert_array_equal(array.astype("float32"), wanted[name])


def test_archive_that_unpacks_to_far_more_than_it_is_is_not_unpacked(tmp_path):
    storage = Storage(np.zeros(2**23, "float32"), "0")
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/data.pkl", dump({"a": tensor(storage, (2**23,))}))
        archive.writestr("weights/data/0", storage.array.tobytes())
    with pytest.raises(TorchFileError, match=r"bomb\.pth has \d\d,\d+ bytes and would unpack to 33,554,"):
        read_torch_file(path)
