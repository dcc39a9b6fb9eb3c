"""ONNX: one file that onnxruntime and others run without torch."""

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

INPUT, OUTPUT = "pictures", "probabilities"
"""Names of the output and, where the input is one tensor and not a dict of them, of the input."""
KEY = "headstart"
"""The key of the description in the file's metadata, as JSON."""
OPSET = 18  # the first whose Resize is antialiased
LARGEST = 2 * 10**9  # bytes: protobuf's limit
PILLOWS_CUBIC = -0.5  # torch's antialiased kernel, Pillow's too; its plain one has -0.75


def write(model: nn.Module, example: Any, axes: Any, path: Path, about: dict[str, Any]) -> None:
    """Writes the network as one file.

    Args:
        model: a batch of inputs -> probabilities.
        example: a batch of at least two inputs.
        axes: names of its dimensions that may have another size (`Preprocess.export_example`).
        path: the file.
        about: the description, plain data; it goes into the metadata of the file.

    Raises:
        UsageError: the network is larger than such a file can be.
    """
    import onnx

    if sum(p.numel() * p.element_size() for p in model.parameters()) > LARGEST:
        raise UsageError("format=onnx: the network has more than 2 GB, too much for one ONNX file: format=torch_export")
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own ways; what matters, the parity check finds
        # {}: the exporter would take a dict at the end for named arguments
        program = torch.onnx.export(
            model, (example, {}), dynamo=True, dynamic_shapes=(dynamic_shapes(axes),),
            input_names=input_names(example, INPUT), output_names=[OUTPUT], opset_version=OPSET, verbose=False,
        )  # fmt: skip
    proto = program.model_proto
    _mend(proto)
    onnx.helper.set_model_props(proto, {KEY: json.dumps(about)})
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def _mend(proto: Any) -> None:
    """Removes what the exporter tells of its own source files, and sets the constant it has wrong."""
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
    """Replaces all metadata of a file by a description."""
    import onnx

    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {KEY: json.dumps(about)})
    onnx.save(proto, path)


def load(path: Path, model: nn.Module) -> Callable[[Any], Tensor]:
    """A function that runs the file: batch -> probabilities. `model` is not used: the file is all that is needed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # as many as what it is compared with
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run([OUTPUT], feed(batch))[0])


def feed(batch: Any) -> dict[str, np.ndarray]:
    """A batch as onnxruntime takes it."""
    names = input_names(batch, INPUT)
    return {name: tensor.contiguous().numpy() for name, tensor in zip(names, leaves(batch), strict=True)}
