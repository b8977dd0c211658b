import pytest

from tfrecords_tools.dataset.schema import Record, SchemaError, decode_example, encode_example, parse_example
from tfrecords_tools.dataset.shards import ShardWriter

FULL = Record(
    id="número-7",
    image=b"\xff\xd8\x00jpeg",
    height=30,
    width=40,
    texts={"caption": ("première", "第二", "🙂"), "title": ()},
    label_ids=(0, 7, 9999),
    weight=0.25,
)


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def rewrite(tf):
    """A function: (record, change) -> the record's bytes after `change(feature map)`."""

    def apply(record, change):
        example = tf.train.Example.FromString(encode_example(record))
        change(example.features.feature)
        return example.SerializeToString()

    return apply


@pytest.mark.parametrize("record", [FULL, Record("bare"), Record("no labels", texts={"title": ("x",)})], ids=lambda r: r.id)
def test_record_survives_encoding_and_decoding(record):
    assert decode_example(encode_example(record)) == record


def test_equal_records_give_equal_bytes_whatever_the_order_of_their_texts():
    texts = {f"field_{i}": (str(i),) for i in range(20)}
    backwards = dict(reversed(texts.items()))
    assert encode_example(Record("a", texts=texts)) == encode_example(Record("a", texts=backwards))
    assert encode_example(Record("a", texts=texts)) != encode_example(Record("b", texts=texts))


def test_half_of_a_surrogate_pair_in_a_text_becomes_a_question_mark():
    record = decode_example(encode_example(Record("a", texts={"title": ("x\ud800y",)})))
    assert record.texts == {"title": ("x?y",)}


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff garbage", b"\x0a\x7f", encode_example(FULL)[:-3]])
def test_bytes_that_are_no_example_are_rejected(garbage):
    with pytest.raises(SchemaError, match=r"not a tf\.train\.Example"):
        decode_example(garbage)


def test_empty_bytes_lack_every_feature():
    with pytest.raises(SchemaError, match="feature 'id' is missing; expected a bytes list"):
        decode_example(b"")


def test_tensorflow_reads_our_bytes_as_the_same_features(tf):
    feature = tf.train.Example.FromString(encode_example(FULL)).features.feature
    assert set(feature) == {
        "id", "image/encoded", "image/height", "image/width", "text/caption", "text/title", "label/ids", "weight",
    }  # fmt: skip
    assert feature["id"].bytes_list.value == ["número-7".encode()]
    assert feature["image/encoded"].bytes_list.value == [b"\xff\xd8\x00jpeg"]
    assert (feature["image/height"].int64_list.value, feature["image/width"].int64_list.value) == ([30], [40])
    assert [text.decode() for text in feature["text/caption"].bytes_list.value] == ["première", "第二", "🙂"]
    assert feature["text/title"].WhichOneof("kind") == "bytes_list"
    assert feature["label/ids"].int64_list.value == [0, 7, 9999]
    assert feature["weight"].float_list.value == [0.25]


def test_we_read_bytes_that_tensorflow_wrote(tf):
    theirs = tf.train.Example.FromString(encode_example(FULL)).SerializeToString()
    assert decode_example(theirs) == FULL


@pytest.mark.parametrize("record", [FULL, Record("bare", texts={"caption": (), "title": ("x",)})], ids=lambda r: r.id)
def test_parse_example_agrees_with_decode_example(tf, record):
    serialized = encode_example(record)
    dataset = tf.data.Dataset.from_tensors(serialized).map(lambda s: parse_example(s, ["caption", "title"]))
    parsed = next(iter(dataset))
    decoded = decode_example(serialized)
    assert set(parsed) == {"id", "image", "text/caption", "text/title", "label_ids", "weight"}
    assert parsed["id"].numpy().decode() == decoded.id
    assert parsed["image"].numpy() == decoded.image
    for field, texts in decoded.texts.items():
        assert [text.decode() for text in parsed[f"text/{field}"].numpy()] == list(texts)
    assert tuple(parsed["label_ids"].numpy()) == decoded.label_ids
    assert parsed["weight"].numpy() == decoded.weight


def test_parse_example_reads_only_the_fields_that_are_asked_for(tf):
    assert set(parse_example(encode_example(FULL), ["title"])) == {"id", "image", "text/title", "label_ids", "weight"}


@pytest.mark.parametrize("key", ["id", "image/encoded", "image/height", "image/width", "label/ids", "weight"])
def test_missing_feature_is_named(rewrite, key):
    with pytest.raises(SchemaError, match=f"feature '{key}' is missing"):
        decode_example(rewrite(FULL, lambda feature: feature.pop(key)))


@pytest.mark.parametrize(
    ("key", "change", "found"),
    [
        ("weight", lambda f: f.int64_list.value.append(1), "expected a float list, found int64_list"),
        ("label/ids", lambda f: f.bytes_list.value.append(b"1"), "expected a int64 list, found bytes_list"),
        ("text/caption", lambda f: f.float_list.value.append(1), "expected a bytes list, found float_list"),
        ("id", lambda f: f.Clear(), "expected a bytes list, found nothing"),
    ],
)
def test_wrong_type_is_named_with_what_was_found(rewrite, key, change, found):
    with pytest.raises(SchemaError, match=f"feature '{key}': {found}"):
        decode_example(rewrite(FULL, lambda feature: change(feature[key])))


@pytest.mark.parametrize(("key", "extra"), [("id", [b"second"]), ("image/encoded", [b"", b""])])
def test_wrong_length_is_named_with_what_was_found(rewrite, key, extra):
    serialized = rewrite(FULL, lambda feature: feature[key].bytes_list.value.extend(extra))
    with pytest.raises(SchemaError, match=rf"feature '{key}': expected 1 value\(s\), found {1 + len(extra)}"):
        decode_example(serialized)


@pytest.mark.parametrize("key", ["id", "text/caption"])
def test_text_that_is_not_utf8_is_named(rewrite, key):
    def spoil(feature):
        feature[key].bytes_list.value[0] = b"caf\xe9"

    with pytest.raises(SchemaError, match=f"feature '{key}': not UTF-8"):
        decode_example(rewrite(FULL, spoil))


def test_tensorflow_frames_shards_as_we_do(tf, tmp_path):
    records = [encode_example(FULL), b"", encode_example(Record("bare"))]
    ours = ShardWriter(tmp_path / "ours")
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as theirs:
        for record in records:
            ours.write(record)
            theirs.write(record)
    ours.close()
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / "ours"))] == records
