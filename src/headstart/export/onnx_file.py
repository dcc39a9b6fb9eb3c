"""ONNX: one file that onnxruntime and others run without torch."""

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.errors import UsageError

INPUT, OUTPUT = "pictures", "probabilities"
KEY = "headstart"
"""Where the facts are in the file's metadata, as JSON."""
OPSET = 18  # the first whose Resize is antialiased
LARGEST = 2 * 10**9  # bytes: protobuf's limit
PILLOWS_CUBIC = -0.5  # torch's antialiased kernel, Pillow's too; its plain one has -0.75


def write(model: nn.Module, example: Tensor, dynamic: dict[int, Any], path: Path, facts: dict[str, Any]) -> None:
    """Writes the network as one file.

    Args:
        model: pictures -> probabilities.
        example: a batch of at least two pictures.
        dynamic: which dimensions of it may have another size.
        path: the file.
        facts: plain data to put beside the network.

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
        program = torch.onnx.export(
            model, (example,), dynamo=True, dynamic_shapes=(dynamic,), input_names=[INPUT], output_names=[OUTPUT],
            opset_version=OPSET, verbose=False,
        )  # fmt: skip
    proto = program.model_proto
    _mend(proto)
    onnx.helper.set_model_props(proto, {KEY: json.dumps(facts)})
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


def replace_facts(path: Path, facts: dict[str, Any]) -> None:
    """Puts the facts into a file that is there, in place of all other metadata."""
    import onnx

    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {KEY: json.dumps(facts)})
    onnx.save(proto, path)


def load(path: Path, model: nn.Module) -> Callable[[Tensor], Tensor]:
    """What runs the file: uint8 pictures -> probabilities. `model` is not used: the file is all that is needed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # as many as what it is compared with
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda pictures: torch.from_numpy(session.run([OUTPUT], {INPUT: pictures.contiguous().numpy()})[0])
