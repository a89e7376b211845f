"""Converts ONNX cases to OpenVINO IR, where OpenVINO does that and then passes them.

    python ir_cases.py ONNX_FOLDER FOLDER

A case keeps its place and layout, with `model.xml` and `model.bin` in place of `model.onnx`.
`input_<i>.pb` belongs to the i-th Parameter, `output_<i>.pb` to the i-th Result: the converter
drops inputs that nothing uses, so these can be fewer than the ONNX case has. Each case is converted
in a process of a pool that is replaced when one dies.
"""

import concurrent.futures
import json
import pathlib
import shutil
import sys

import numpy
import onnx
from onnx import numpy_helper

SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
# OpenVINO's names of element types, with ONNX's.
TYPES = {
    "f64": "DOUBLE",
    "f32": "FLOAT",
    "f16": "FLOAT16",
    "bf16": "BFLOAT16",
    "f8e4m3": "FLOAT8E4M3FN",
    "f8e5m2": "FLOAT8E5M2",
    "f8e8m0": "FLOAT8E8M0",
    "f4e2m1": "FLOAT4E2M1",
    "boolean": "BOOL",
    "string": "STRING",
    **{f"{sign}{bits}": f"{word}{bits}" for sign, word in (("i", "INT"), ("u", "UINT")) for bits in (4, 8, 16, 32, 64)},
}


def load(path):
    return onnx.TensorProto.FromString(path.read_bytes())


def to_openvino(proto):
    """A tensor, and the array to keep as long as it: OpenVINO only borrows the bytes.

    Handed over by bytes, so that types which numpy lacks go too.
    """
    import openvino

    array = numpy_helper.to_array(proto)
    if proto.data_type == onnx.TensorProto.STRING:
        return openvino.Tensor(array.astype(str)), array
    onnx_name = onnx.TensorProto.DataType.Name(proto.data_type)
    element_type = getattr(openvino.Type, {theirs: ours for ours, theirs in TYPES.items()}[onnx_name])
    raw = numpy_helper.from_array(array).raw_data
    shape = openvino.Shape(list(proto.dims))
    if not raw:
        return openvino.Tensor(element_type, shape), None
    data = numpy.frombuffer(raw, numpy.uint8).copy()
    return openvino.Tensor(data, shape, element_type), data


def from_openvino(tensor):
    name = tensor.element_type.get_type_name()
    if name == "string":
        return numpy.array(tensor.str_data)
    raw = numpy.ascontiguousarray(tensor.data).tobytes() if tensor.size else b""
    data_type = onnx.TensorProto.DataType.Value(TYPES[name])
    return numpy_helper.to_array(onnx.TensorProto(data_type=data_type, dims=list(tensor.shape), raw_data=raw))


def agrees(got, wanted, rtol, atol):
    if got.shape != wanted.shape:
        return False
    if wanted.dtype.kind in "OSU":
        return bool((got.astype(str) == wanted.astype(str)).all())
    if got.dtype != wanted.dtype:
        return False
    wide = numpy.longdouble if wanted.dtype.kind in "iu" else numpy.float64
    return bool(numpy.allclose(got.astype(wide), wanted.astype(wide), rtol=rtol, atol=atol, equal_nan=True))


def kept_inputs(graph, model):
    """Places in the ONNX graph of the inputs that the converter kept."""
    names = [value.name for value in graph.input]
    if len(names) == len(model.inputs):
        return list(range(len(names)))
    return [next(i for i, name in enumerate(names) if name in port.get_names()) for port in model.inputs]


def convert(source, target):
    """Writes the case and gives True when OpenVINO passes the IR as it reads it back."""
    import openvino

    core = openvino.Core()
    graph = onnx.load(source / "model.onnx").graph
    if any(v.type.WhichOneof("value") != "tensor_type" for v in (*graph.input, *graph.output)):
        return False
    model = core.read_model(source / "model.onnx")
    kept = kept_inputs(graph, model)
    rtol, atol = map(float, (source / "tol").read_text().split())
    target.mkdir(parents=True)
    openvino.save_model(model, target / "model.xml", compress_to_fp16=False)
    shutil.copy(source / "tol", target)
    request = core.compile_model(target / "model.xml", "CPU", SETTINGS).create_infer_request()
    for data in sorted(source.glob("test_data_set_*")):
        (target / data.name).mkdir()
        feed = [to_openvino(load(data / f"input_{index}.pb")) for index in kept]
        for place, index in enumerate(kept):
            request.set_input_tensor(place, feed[place][0])
            shutil.copy(data / f"input_{index}.pb", target / data.name / f"input_{place}.pb")
        request.infer()
        for place in range(len(graph.output)):
            expected = data / f"output_{place}.pb"
            got = from_openvino(request.get_output_tensor(place))
            if not agrees(got, numpy_helper.to_array(load(expected)), rtol, atol):
                return False
            shutil.copy(expected, target / data.name)
    return True


def attempt(source, target):
    shutil.rmtree(target, ignore_errors=True)
    try:
        return convert(source, target)
    except Exception:
        return False


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: ir_cases.py ONNX_FOLDER FOLDER")
    onnx_folder, folder = map(pathlib.Path, sys.argv[1:])
    cases = json.loads((onnx_folder / "manifest.json").read_text())["cases"]
    pool = concurrent.futures.ProcessPoolExecutor(1)
    passed = []
    for case in cases:
        target = folder / case["path"]
        try:
            good = not case["random"] and pool.submit(attempt, onnx_folder / case["path"], target).result(60)
        except (concurrent.futures.process.BrokenProcessPool, TimeoutError):
            pool.shutdown(wait=False, cancel_futures=True)
            pool = concurrent.futures.ProcessPoolExecutor(1)
            good = False
        if good:
            passed.append(case)
        else:
            shutil.rmtree(target, ignore_errors=True)
    pool.shutdown()
    keys = ("name", "kind", "path", "data_sets", "rtol", "atol")
    lines = (json.dumps({key: case[key] for key in keys}) for case in passed)
    text = '{"cases": [\n%s\n]}\n' % ",\n".join(lines)
    (folder / "manifest.json").write_text(text)
    print(f"{len(passed)} of {len(cases)} cases as IR", file=sys.stderr)


if __name__ == "__main__":
    main()
