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


def tensor(path):
    proto = onnx.TensorProto()
    proto.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(proto)


def agrees(got, wanted, rtol, atol):
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return False
    if wanted.dtype.kind not in "fc":
        return bool((got == wanted).all())
    return bool(numpy.allclose(got, wanted, rtol=rtol, atol=atol, equal_nan=True))


def convert(source, target):
    """Writes the case and gives True when OpenVINO passes the IR as it reads it back."""
    import openvino

    core = openvino.Core()
    model = core.read_model(source / "model.onnx")
    graph = onnx.load(source / "model.onnx").graph
    kinds = {v.type.WhichOneof("value") for v in [*graph.input, *graph.output]}
    if kinds - {"tensor_type"}:
        return False
    names = [value.name for value in graph.input]
    kept = [next(names.index(n) for n in names if n in port.get_names()) for port in model.inputs]
    rtol, atol = map(float, (source / "tol").read_text().split())
    target.mkdir(parents=True)
    openvino.save_model(model, target / "model.xml", compress_to_fp16=False)
    shutil.copy(source / "tol", target)
    compiled = core.compile_model(target / "model.xml", "CPU", SETTINGS)
    for data in sorted(source.glob("test_data_set_*")):
        feed = [tensor(data / f"input_{index}.pb") for index in kept]
        result = compiled(feed)
        (target / data.name).mkdir()
        for place, index in enumerate(kept):
            shutil.copy(data / f"input_{index}.pb", target / data.name / f"input_{place}.pb")
        for place in range(len(compiled.outputs)):
            expected = data / f"output_{place}.pb"
            if not agrees(numpy.asarray(result[place]), tensor(expected), rtol, atol):
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
