"""Makes int8 versions of exported models.

    python quantize_models.py FOLDER NAME...

`static` gives QDQ graphs: uint8 activations per tensor, int8 weights per channel, ranges from
seeded calibration inputs; `static-matmul` does so for matrix products alone; `dynamic` measures
activations at run time (DynamicQuantizeLinear, MatMulInteger).
"""

import logging
import pathlib
import sys
import tempfile

from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

import feeds
from make_inputs import OnnxModel

CALIBRATION_INPUTS = 16
FIRST_CALIBRATION_SEED = 1000


class Calibration(quantization.CalibrationDataReader):
    def __init__(self, name, path):
        ports = OnnxModel(path).ports
        seeds = range(FIRST_CALIBRATION_SEED, FIRST_CALIBRATION_SEED + CALIBRATION_INPUTS)
        names = [port[0] for port in ports]
        self.left = (dict(zip(names, feeds.values(name, ports, seed))) for seed in seeds)

    def get_next(self):
        return next(self.left, None)


def quantize(folder, name, entry):
    source, target = folder / f"{entry['base']}.onnx", folder / f"{name}.onnx"
    signed = quantization.QuantType.QInt8
    if entry["quantize"] == "dynamic":
        quantization.quantize_dynamic(source, target, weight_type=signed, per_channel=True)
        return
    with tempfile.TemporaryDirectory() as scratch:
        prepared = pathlib.Path(scratch) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            target,
            Calibration(entry["base"], source),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=signed,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"] if entry["quantize"] == "static-matmul" else None,
        )


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: quantize_models.py FOLDER NAME...")
    logging.disable(logging.WARNING)
    folder = pathlib.Path(sys.argv[1])
    models = feeds.catalogue()
    failed = 0
    for name in sys.argv[2:]:
        if (folder / f"{name}.onnx").exists():
            continue
        try:
            quantize(folder, name, models[name])
            print(f"quantized {name}", file=sys.stderr, flush=True)
        except Exception as error:
            failed += 1
            print(f"not quantized: {name} ({error!r})", file=sys.stderr, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
