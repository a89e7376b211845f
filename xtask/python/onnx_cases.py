"""Writes the backend test cases of the installed onnx package as folders.

    python onnx_cases.py FOLDER

    FOLDER/<kind>/<name>/model.onnx
    FOLDER/<kind>/<name>/tol                                  "rtol atol"
    FOLDER/<kind>/<name>/test_data_set_<n>/input_<i>.pb       in the order of the graph's inputs
    FOLDER/<kind>/<name>/test_data_set_<n>/output_<i>.pb      in the order of the graph's outputs
    FOLDER/manifest.json                                      written last: complete if it is there

Cases whose expected output was drawn by a random generator are marked `random`: the standard
leaves the generator open, so nobody can be asked to give the same values.
"""

import json
import pathlib
import sys
import warnings

import numpy
import onnx
from onnx import numpy_helper

GENERATORS = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def collect():
    from onnx.backend.test.case.model import collect_testcases as whole_models
    from onnx.backend.test.case.node import collect_testcases as single_nodes

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [*single_nodes(None), *whole_models()]
    return sorted((c for c in found if c.model is not None), key=lambda c: (c.kind, c.name))


def serialize(value):
    if value is None:
        return onnx.OptionalProto().SerializeToString()
    if hasattr(value, "SerializeToString"):
        return value.SerializeToString()
    if isinstance(value, dict):
        return numpy_helper.from_dict(value).SerializeToString()
    if isinstance(value, (list, tuple)):
        return numpy_helper.from_list(list(value)).SerializeToString()
    return numpy_helper.from_array(numpy.asarray(value)).SerializeToString()


def all_nodes(model):
    pending = [*model.graph.node]
    for function in model.functions:
        pending.extend(function.node)
    while pending:
        node = pending.pop()
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                pending.extend(attribute.g.node)
            for graph in attribute.graphs:
                pending.extend(graph.node)


def operator(node):
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def draws_numbers(case):
    inputs = dict(zip((i.name for i in case.model.graph.input), case.data_sets[0][0]))

    def given(node, index, default):
        name = node.input[index] if len(node.input) > index else ""
        return inputs.get(name, default)

    for node in all_nodes(case.model):
        if node.op_type in GENERATORS:
            return True
        # Dropout is random in training mode alone, unless nothing is dropped.
        if node.op_type == "Dropout" and given(node, 2, False) and given(node, 1, 0.5) > 0:
            return True
    return False


def write(case, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(case.model.SerializeToString(deterministic=True))
    (folder / "tol").write_text(f"{case.rtol} {case.atol}")
    for number, data_set in enumerate(case.data_sets):
        data = folder / f"test_data_set_{number}"
        data.mkdir(exist_ok=True)
        for role, values in zip(("input", "output"), data_set):
            for index, value in enumerate(values):
                (data / f"{role}_{index}.pb").write_bytes(serialize(value))


def describe(case):
    return {
        "name": case.name,
        "kind": case.kind,
        "path": f"{case.kind}/{case.name}",
        "opset": {o.domain or "ai.onnx": o.version for o in case.model.opset_import},
        "ops": sorted({operator(node) for node in all_nodes(case.model)}),
        "data_sets": len(case.data_sets),
        "rtol": case.rtol,
        "atol": case.atol,
        "random": draws_numbers(case),
    }


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: onnx_cases.py FOLDER")
    folder = pathlib.Path(sys.argv[1])
    entries = []
    for case in collect():
        entry = describe(case)
        write(case, folder / entry["path"])
        entries.append(json.dumps(entry))
    text = '{"onnx": "%s", "cases": [\n%s\n]}\n' % (onnx.__version__, ",\n".join(entries))
    (folder / "manifest.json").write_text(text)
    print(f"{len(entries)} cases of onnx {onnx.__version__}", file=sys.stderr)


if __name__ == "__main__":
    main()
