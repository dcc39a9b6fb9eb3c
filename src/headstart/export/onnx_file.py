"""ONNX files, which onnxruntime and other programs run without torch."""

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.errors import UsageError
from headstart.export.network import dynamic_shapes, input_names
from headstart.inputs.base import leaves

KEY = "headstart"
"""The key of the description in the file's metadata, as JSON."""
OPSET = 18  # the first opset with an antialiased Resize
LARGEST = 2 * 10**9  # bytes; the limit of protobuf
PILLOWS_CUBIC = -0.5  # coefficient of the antialiased kernels of torch and Pillow; torch's plain kernel has -0.75


def write(model: nn.Module, example: Any, axes: Any, path: Path, about: dict[str, Any]) -> None:
    """Writes the network as one file.

    Args:
        model: a batch of inputs -> probabilities.
        example: a batch of at least two inputs.
        axes: names of its dynamic dimensions (`Preprocess.export_example`).
        path: the file.
        about: the description as plain data; saved in the metadata of the file.

    Raises:
        UsageError: the network is too large for an ONNX file.
    """
    import onnx

    if sum(p.numel() * p.element_size() for p in model.parameters()) > LARGEST:
        raise UsageError(
            "format=onnx: the network has more than 2 GB, too much for one ONNX file: use format=torch_export"
        )
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about torch's own code; the parity check finds real errors
        # {}: the exporter takes a dict in last place as named arguments
        program = torch.onnx.export(
            model, (example, {}), dynamo=True, dynamic_shapes=(dynamic_shapes(axes),),
            input_names=input_names(example, about["input"]["name"]), output_names=[about["output"]["name"]],
            opset_version=OPSET, verbose=False,
        )  # fmt: skip
    proto = program.model_proto
    _clean(proto)
    onnx.helper.set_model_props(proto, {KEY: json.dumps(about)})
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def _clean(proto: Any) -> None:
    """Removes the notes about source files of the exporter, and corrects its constant of the cubic kernel."""
    import onnx

    proto.doc_string = ""
    del proto.metadata_props[:]
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.initializer, proto.graph):
        part.doc_string = ""
        del part.metadata_props[:]
    for function in proto.functions:
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]
    for node in proto.graph.node:
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Resize" and given.get("antialias") and given.get("mode") == b"cubic":
            for attribute in node.attribute:
                if attribute.name == "cubic_coeff_a":
                    attribute.f = PILLOWS_CUBIC


def replace_metadata(path: Path, about: dict[str, Any]) -> None:
    """Replaces all metadata of a file with a description."""
    import onnx

    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {KEY: json.dumps(about)})
    onnx.save(proto, path)


def load(path: Path, model: nn.Module) -> Callable[[Any], Tensor]:
    """A function that runs the file: batch -> probabilities. `model` is not used."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # the same number as the checkpoint that it is compared with
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (first, *_) = session.get_inputs()
    return lambda batch: torch.from_numpy(session.run(None, feed(batch, first.name))[0])


def feed(batch: Any, name: str) -> dict[str, np.ndarray]:
    """A batch as input for onnxruntime: name -> array; `name` is the one of the input if it is one tensor."""
    names = input_names(batch, name)
    return {name: tensor.contiguous().numpy() for name, tensor in zip(names, leaves(batch), strict=True)}
