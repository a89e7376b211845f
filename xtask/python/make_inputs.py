"""Writes inputs and reference outputs beside models.

    python make_inputs.py FOLDER NAME...

    FOLDER/NAME.inputs/<i>.npy       in the order of the graph's inputs
    FOLDER/NAME.expected/<i>.npy     in the order of the graph's outputs

The reference is ONNX Runtime on one thread with its optimisations off, and OpenVINO on one thread
in f32 for IR. A sequence of maps becomes one array: a row per map, columns in the order of keys.
"""

import pathlib
import shutil
import sys

import numpy

import feeds

ONNX_TYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}


class OnnxModel:
    def __init__(self, path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        self.ports = [(i.name, self._type(i.type), self._shape(i.shape)) for i in self.session.get_inputs()]

    @staticmethod
    def _type(name):
        return ONNX_TYPES.get(name) or name.removeprefix("tensor(").removesuffix(")")

    @staticmethod
    def _shape(shape):
        return [size if isinstance(size, int) and size >= 0 else None for size in shape]

    def run(self, arrays):
        named = {port[0]: array for port, array in zip(self.ports, arrays)}
        return [self._array(value) for value in self.session.run(None, named)]

    @staticmethod
    def _array(value):
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = [[row[key] for key in sorted(row)] for row in value]
            return numpy.array(rows, dtype=numpy.float32)
        return numpy.asarray(value)


class IrModel:
    def __init__(self, path):
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        self.model = openvino.Core().compile_model(path, "CPU", settings)
        self.ports = [
            (
                i.get_any_name(),
                i.get_element_type().to_dtype().name,
                [d.get_length() if d.is_static else None for d in i.get_partial_shape()],
            )
            for i in self.model.inputs
        ]

    def run(self, arrays):
        result = self.model(arrays)
        return [result[index] for index in range(len(self.model.outputs))]


def save(folder, arrays):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for index, array in enumerate(arrays):
        numpy.save(folder / f"{index}.npy", numpy.asarray(array, order="C"))


def weaknesses(outputs):
    """What would make a reference a poor test."""
    for index, array in enumerate(outputs):
        if array.dtype.kind != "f" or array.size < 2:
            continue
        if not numpy.isfinite(array).all():
            yield f"output {index} is not finite"
        elif (array == array.flat[0]).all():
            yield f"output {index} is constant"


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: make_inputs.py FOLDER NAME...")
    folder = pathlib.Path(sys.argv[1])
    failed = 0
    for name in sys.argv[2:]:
        try:
            xml = folder / f"{name}.xml"
            model = IrModel(xml) if xml.exists() else OnnxModel(folder / f"{name}.onnx")
            inputs = feeds.values(name, model.ports)
            outputs = model.run(inputs)
            save(folder / f"{name}.inputs", inputs)
            save(folder / f"{name}.expected", outputs)
            print(name, *weaknesses(outputs), sep="; ", file=sys.stderr, flush=True)
        except Exception as error:
            failed += 1
            print(f"{name}: no reference ({str(error)[:300]})", file=sys.stderr, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
