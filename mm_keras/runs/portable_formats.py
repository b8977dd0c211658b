"""Converts models to files of ONNX and LiteRT, and says which of their operations cannot be converted."""

from __future__ import annotations

import importlib.util
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from mm_keras.features import FeatureSpec

Format = Literal["onnx", "litert"]
Precision = Literal["float32", "float16", "int8"]
FILES: Mapping[Format, str] = {"onnx": "model.onnx", "litert": "model.tflite"}

_PACKAGES: Mapping[Format, tuple[str, ...]] = {"onnx": ("onnx", "onnxruntime", "tf2onnx"), "litert": ("ai_edge_litert",)}
_OPSET = 17
_LEAST_HALVED = 1024  # numbers of a weight below which 16 bits save nothing
_LITE_OPERATION = re.compile(r"\btf\.([A-Z]\w+)|\bFlex ops: ([\w, ]+)")


class NotConvertibleError(ValueError):
    """A model with operations that the format does not have; the message lists them."""


def check_packages(form: Format) -> None:
    """Raises ImportError, with the command that installs them, if packages that a format needs are missing."""
    missing = [name for name in _PACKAGES[form] if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"--format={form} needs {', '.join(missing)}: pip install 'mm_keras[{form}]'")


def convert(model: keras.Model, features: FeatureSpec, form: Format, precision: Precision) -> bytes:
    """Converts a model to a function of pixels and token ids, as in a batch of `features`, that gives "scores".

    An ONNX model takes batches of any size, a LiteRT model one example. With int8, the weights of dense layers and
    transformers are quantised; what they are multiplied with is quantised when the model runs (dynamic quantisation).

    Raises:
        NotConvertibleError: if operations of the model cannot be converted.
    """
    size = None if form == "onnx" else 1
    specs = {name: tf.TensorSpec([size, *shape], dtype, name=name) for name, (shape, dtype) in features.inputs().items()}

    def answer(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = model(inputs, training=False)
        return {"scores": tf.sigmoid(logits) if features.multi_label else tf.nn.softmax(logits)}

    return _to_onnx(answer, specs, precision) if form == "onnx" else _to_litert(answer, specs, precision, model)


def _to_litert(answer, specs: Mapping[str, tf.TensorSpec], precision: Precision, model: keras.Model) -> bytes:
    module = tf.Module()
    module.variables_of_model = [variable.value for variable in model.variables]
    module.answer = tf.function(answer, autograph=False)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serving_default": module.answer.get_concrete_function(**specs)})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        try:
            return converter.convert()
        except Exception as error:  # the converter has an exception of its own, in a private module
            parts = [part for match in _LITE_OPERATION.findall(str(error)) for part in match]
            names = {name for part in parts for name in part.split(", ") if name}
            first_line = str(error).strip().split("\n")[0][:200]
            raise NotConvertibleError(
                f"LiteRT has no {', '.join(sorted(names)) or 'operation for a part of this model'}: export a SavedModel, or "
                f"train with another encoder ({first_line})"
            ) from error


def _to_onnx(answer, specs: Mapping[str, tf.TensorSpec], precision: Precision) -> bytes:
    import onnx
    import tf2onnx

    function = tf.function(
        lambda *inputs: answer(**dict(zip(specs, inputs, strict=True))),
        autograph=False,
        input_signature=list(specs.values()),
    )
    proto, _ = tf2onnx.convert.from_function(
        function, input_signature=list(specs.values()), opset=_OPSET, custom_op_handlers={"Erfc": (_convert_erfc, [])}
    )
    nodes = list(proto.graph.node)
    nodes += [inner for node in nodes for attribute in node.attribute if attribute.HasField("g") for inner in attribute.g.node]
    unknown = {node.op_type for node in nodes if not onnx.defs.has(node.op_type, node.domain)}
    if unknown:
        raise NotConvertibleError(
            f"ONNX has no {', '.join(sorted(unknown))}: export a SavedModel, or train with another encoder"
        )
    if precision == "float16":
        _halve_weights(proto)
    return _quantised(proto) if precision == "int8" else proto.SerializeToString()


def _convert_erfc(graph, node, name: str, arguments) -> None:
    """Replaces Erfc, which Keras' GELU is made of and tf2onnx does not know: erfc(x) is 1 - erf(x)."""
    del arguments
    one = graph.make_const(f"{name}/one", np.float32(1)).output[0]
    erf = graph.make_node("Erf", [node.input[0]]).output[0]
    facts = {"outputs": node.output, "dtypes": [graph.get_dtype(node.output[0])], "shapes": [graph.get_shape(node.output[0])]}
    graph.remove_node(node.name)
    graph.make_node("Sub", [one, erf], name=name, **facts)


def _halve_weights(proto) -> None:
    """Stores large weights in 16 bits; what is computed stays in 32, so that any processor can."""
    import onnx

    casts = []
    for weight in proto.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(weight)
        if values.size < _LEAST_HALVED:
            continue
        name = weight.name
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype("float16"), f"{name}/float16"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}/float16"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _quantised(proto) -> bytes:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder, "whole.onnx"), Path(folder, "small.onnx")
        onnx.save(proto, whole)
        quantize_dynamic(whole, small, op_types_to_quantize=["MatMul", "Gemm", "Gather"], weight_type=QuantType.QInt8)
        return small.read_bytes()
