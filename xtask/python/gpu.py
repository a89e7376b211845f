"""What only a GPU can show: the tests of the device on its driver, latencies beside those of PyTorch, accuracy, cold starts.

Needs Python and the programs that `cargo xtask gpu --pack FOLDER` puts into a folder; no network, no cargo, no other file
of the repository but the models under ov-bench/models. Where PyTorch and NumPy are missing, only the tests run, and the
report says so. `report.md` in the output folder is written anew after every step, so that a run that is cut off leaves
what it had."""

import argparse
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

try:
    import numpy
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError as error:
    torch, MISSING = None, str(error)

MODELS = ["mobilenet_v2", "resnet50", "vit_b_16", "bert_base_s128", "gpt2_step", "bert_large_s384"]


def architectures():
    """The models by name: what makes each, with its inputs, in full size or tiny. They hold random weights."""

    def conv(cin, cout, k, stride=1, groups=1, act=None):
        layers = [nn.Conv2d(cin, cout, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(cout)]
        return nn.Sequential(*layers, *([act] if act else []))

    class Bottleneck(nn.Module):
        def __init__(self, cin, width, stride):
            super().__init__()
            relu = nn.ReLU()
            self.way = nn.Sequential(
                conv(cin, width, 1, act=relu), conv(width, width, 3, stride, act=relu), conv(width, 4 * width, 1)
            )
            same = stride == 1 and cin == 4 * width
            self.short = nn.Identity() if same else conv(cin, 4 * width, 1, stride)

        def forward(self, x):
            return F.relu(self.way(x) + self.short(x))

    class Inverted(nn.Module):
        def __init__(self, cin, cout, stride, expand):
            super().__init__()
            inner, act = cin * expand, nn.ReLU6()
            first = [] if expand == 1 else [conv(cin, inner, 1, act=act)]
            self.way = nn.Sequential(*first, conv(inner, inner, 3, stride, inner, act), conv(inner, cout, 1))
            self.same = stride == 1 and cin == cout

        def forward(self, x):
            return x + self.way(x) if self.same else self.way(x)

    class Pooled(nn.Module):
        def __init__(self, body, channels):
            super().__init__()
            self.body, self.head = body, nn.Linear(channels, 1000)

        def forward(self, x):
            return self.head(self.body(x).mean((2, 3)))

    class Layer(nn.Module):
        """A layer of a transformer, normalized before or after its parts, with a past or without."""

        def __init__(self, width, heads, before, causal=False):
            super().__init__()
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
            self.heads, self.before, self.causal = heads, before, causal

        def attend(self, x, mask, past):
            n, length, width = x.shape
            qkv = self.qkv(x).reshape(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
            q, k, v = qkv[0], qkv[1], qkv[2]
            if past is not None:
                k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            return self.out(y.transpose(1, 2).reshape(n, length, width))

        def forward(self, x, mask=None, past=None):
            mlp = lambda x: self.down(F.gelu(self.up(x), approximate="tanh" if self.causal else "none"))
            first, second = self.norms
            if self.before:
                x = x + self.attend(first(x), mask, past)
                return x + mlp(second(x))
            x = first(x + self.attend(x, mask, past))
            return second(x + mlp(x))

    class Vit(nn.Module):
        def __init__(self, image, patch, width, heads, layers):
            super().__init__()
            self.patches = nn.Conv2d(3, width, patch, patch)
            self.first = nn.Parameter(torch.randn(1, 1, width))
            self.places = nn.Parameter(torch.randn(1, (image // patch) ** 2 + 1, width) * 0.02)
            self.layers = nn.ModuleList(Layer(width, heads, True) for _ in range(layers))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

        def forward(self, x):
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.places
            for layer in self.layers:
                x = layer(x)
            return self.head(self.norm(x)[:, 0])

    class Bert(nn.Module):
        def __init__(self, words, length, width, heads, layers):
            super().__init__()
            self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
            self.types, self.norm = nn.Embedding(2, width), nn.LayerNorm(width)
            self.layers = nn.ModuleList(Layer(width, heads, False) for _ in range(layers))
            self.pool = nn.Linear(width, width)
            self.register_buffer("order", torch.arange(length)[None])

        def forward(self, ids, seen):
            x = self.words(ids) + self.places(self.order) + self.types(torch.zeros_like(ids))
            x = self.norm(x)
            mask = (1.0 - seen[:, None, None, :].to(x.dtype)) * -10000.0
            for layer in self.layers:
                x = layer(x, mask)
            return x, torch.tanh(self.pool(x[:, 0]))

    class Step(nn.Module):
        """One token of a decoder with a past of fixed length."""

        def __init__(self, words, past, width, heads, layers):
            super().__init__()
            self.words, self.places = nn.Embedding(words, width), nn.Embedding(past + 1, width)
            self.layers = nn.ModuleList(Layer(width, heads, True, True) for _ in range(layers))
            self.norm, self.past = nn.LayerNorm(width), past

        def forward(self, ids, past):
            x = self.words(ids) + self.places.weight[self.past]
            for layer, kept in zip(self.layers, past):
                x = layer(x, None, kept)
            return self.norm(x) @ self.words.weight.t()

    def resnet(tiny):
        stages = [(8, 1), (16, 1)] if tiny else [(64, 3), (128, 4), (256, 6), (512, 3)]
        layers, cin = [conv(3, stages[0][0], 7, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1)], stages[0][0]
        for index, (width, count) in enumerate(stages):
            for block in range(count):
                layers.append(Bottleneck(cin, width, 2 if index > 0 and block == 0 else 1))
                cin = 4 * width
        return Pooled(nn.Sequential(*layers), cin), image(tiny)

    def mobilenet(tiny):
        rows = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
        layers, cin = [conv(3, 32, 3, 2, act=nn.ReLU6())], 32
        for expand, cout, count, stride in rows[:2] if tiny else rows:
            for block in range(count):
                layers.append(Inverted(cin, cout, stride if block == 0 else 1, expand))
                cin = cout
        layers.append(conv(cin, 1280, 1, act=nn.ReLU6()))
        return Pooled(nn.Sequential(*layers), 1280), image(tiny)

    def image(tiny):
        return [torch.randn(1, 3, *[32 if tiny else 224] * 2)]

    def vit(tiny):
        return Vit(32, 16, 32, 2, 1) if tiny else Vit(224, 16, 768, 12, 12), image(tiny)

    def bert(length, width, heads, layers):
        def make(tiny):
            size = (50, 8, 32, 2, 1) if tiny else (30522, length, width, heads, layers)
            ids = torch.randint(0, size[0], (1, size[1]))
            seen = torch.ones(1, size[1], dtype=torch.int64)
            seen[:, -size[1] // 8 :] = 0
            return Bert(*size), [ids, seen]

        return make

    def step(tiny):
        words, past, width, heads, layers = (50, 8, 32, 2, 2) if tiny else (50257, 128, 768, 12, 12)
        kept = torch.randn(layers, 2, 1, heads, past, width // heads)
        return Step(words, past, width, heads, layers), [torch.randint(0, words, (1, 1)), kept]

    return {
        "resnet50": resnet,
        "mobilenet_v2": mobilenet,
        "vit_b_16": vit,
        "bert_base_s128": bert(128, 768, 12, 12),
        "bert_large_s384": bert(384, 1024, 16, 24),
        "gpt2_step": step,
    }


def build(name, tiny):
    """A model in f32 on the processor, with statistics of its normalizations that are not those of a fresh one."""
    torch.manual_seed(0)
    model, inputs = architectures()[name](tiny)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, 0, 0.02)
    return model.eval(), inputs


def moved(values, **to):
    """Tensors elsewhere; integers keep their type."""
    dtype = to.pop("dtype", None)
    keep = lambda v: v.to(**to) if dtype is None or not v.is_floating_point() else v.to(dtype=dtype, **to)
    return [keep(v) for v in values]


def outputs_of(result):
    return list(result) if isinstance(result, tuple) else [result]


def relative(got, expected):
    """The norm of the difference of all outputs over that of the expected ones."""
    got = torch.cat([g.double().flatten() for g in got])
    expected = torch.cat([e.double().flatten() for e in expected])
    return float((got - expected).norm() / expected.norm())


def export(model, inputs, path):
    names = [f"input{i}" for i in range(len(inputs))]
    options = dict(input_names=names, opset_version=17, do_constant_folding=True)
    try:
        torch.onnx.export(model, tuple(inputs), str(path), dynamo=False, **options)
    except TypeError:
        torch.onnx.export(model, tuple(inputs), str(path), **options)


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure(once, seconds):
    """Medians and tails of a call in microseconds."""
    for _ in range(20):
        once()
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end or len(times) < 200:
        start = time.perf_counter_ns()
        once()
        times.append((time.perf_counter_ns() - start) / 1e3)
        if len(times) >= 5 and time.monotonic() > end + 20:
            break
    return percentile(times, 0.5), percentile(times, 0.99)


class Baseline:
    """PyTorch in bf16: inputs come from pinned memory and results go there, as with ours."""

    def __init__(self, model, inputs, device):
        self.device = device
        self.model = model.to(device, torch.bfloat16)
        if any(isinstance(m, nn.Conv2d) for m in model.modules()):
            self.model = self.model.to(memory_format=torch.channels_last)
        self.host = moved(inputs, dtype=torch.bfloat16)
        if device == "cuda":
            self.host = [h.pin_memory() for h in self.host]
        self.static = moved(self.host, device=device)

    def copy_in(self):
        for to, value in zip(self.static, self.host):
            to.copy_(value, non_blocking=True)

    def finish(self, results):
        """Results on the host."""
        for value, result in zip(self.results, results):
            value.copy_(result, non_blocking=True)
        if self.device == "cuda":
            torch.cuda.synchronize()

    def prepare_results(self, results):
        results = outputs_of(results)
        self.results = [torch.empty_like(r, device="cpu") for r in results]
        if self.device == "cuda":
            self.results = [r.pin_memory() for r in self.results]

    def graph(self, seconds):
        """Eager kernels in one CUDA graph."""
        with torch.inference_mode():
            for _ in range(3):
                results = outputs_of(self.model(*self.static))
            self.prepare_results(tuple(results))
            replay = lambda: outputs_of(self.model(*self.static))
            if self.device == "cuda":
                torch.cuda.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    kept = outputs_of(self.model(*self.static))
                replay = lambda: (graph.replay(), kept)[1]

            def once():
                self.copy_in()
                self.finish(replay())

            return measure(once, seconds)

    def compiled(self, seconds, mode):
        """torch.compile, which makes graphs of its own."""
        with torch.inference_mode():
            run = torch.compile(self.model, mode=mode)
            start = time.monotonic()
            for _ in range(3):
                results = run(*self.static)
            self.prepare_results(results)
            took = time.monotonic() - start

            def once():
                self.copy_in()
                self.finish(outputs_of(run(*self.static)))

            return (*measure(once, seconds), took)


class Report:
    """What came out, written after every step."""

    def __init__(self, folder, commit, gpus):
        self.folder, self.commit, self.gpus = folder, commit, gpus
        self.steps, self.rows, self.notes = [], {}, []

    def step(self, what, passed, result):
        self.steps.append((what, result, passed))
        print(f"{what}: {result}", flush=True)
        self.write()

    def set(self, model, **values):
        self.rows.setdefault(model, {}).update(values)
        print(model, values, flush=True)
        self.write()

    def table(self, title, columns):
        """Rows of models that have one of the columns: (heading, key, format)."""
        rows = [(m, r) for m, r in self.rows.items() if any(k in r for _, k, _ in columns)]
        if not rows:
            return ""
        text = f"\n{title}\n\n| model | " + " | ".join(h for h, _, _ in columns) + " |\n"
        text += "| --- |" + " ---: |" * len(columns) + "\n"
        for model, row in rows:
            cells = [form.format(row[k]) if k in row else "–" for _, k, form in columns]
            text += f"| {model} | " + " | ".join(cells) + " |\n"
        return text

    def markdown(self):
        text = f"Commit {self.commit}, on:\n\n" + "".join(f"- {gpu}\n" for gpu in self.gpus)
        text += "\n| what | result |\n| --- | --- |\n"
        clean = lambda s: str(s).replace("|", "/").replace("\n", " ")
        text += "".join(f"| {clean(what)} | {clean(result)} |\n" for what, result, _ in self.steps)
        text += self.table(
            "Latency of one inference in bf16, copies included, in µs (host clock, synchronous).",
            [
                ("ov p50", "ov", "{:.0f}"),
                ("ov p99", "ov99", "{:.0f}"),
                ("torch graph p50", "graph", "{:.0f}"),
                ("p99", "graph99", "{:.0f}"),
                ("torch.compile p50", "compiled", "{:.0f}"),
                ("p99", "compiled99", "{:.0f}"),
                ("its compile, s", "compile_s", "{:.0f}"),
            ],
        )
        text += self.table(
            "Accuracy: norm of the error over that of PyTorch's results in f64.",
            [
                ("ov f32", "e_ov_f32", "{:.1e}"),
                ("torch f32", "e_torch_f32", "{:.1e}"),
                ("ov bf16", "e_ov_bf16", "{:.1e}"),
                ("torch bf16", "e_torch_bf16", "{:.1e}"),
            ],
        )
        text += self.table(
            "Cold start from a blob in bf16, in ms: a process to its first result (median), and what the device's parts took.",
            [
                ("whole", "cold", "{:.1f}"),
                ("driver", "driver", "{:.1f}"),
                ("context", "context", "{:.1f}"),
                ("weights", "weights", "{:.1f}"),
                ("modules", "modules", "{:.1f}"),
                ("graphs", "graphs", "{:.1f}"),
                ("first run", "first", "{:.2f}"),
            ],
        )
        return text + "".join(f"\n{note}\n" for note in self.notes)

    def write(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "report.md").write_text(self.markdown())
        (self.folder / "report.json").write_text(json.dumps({"steps": self.steps, "rows": self.rows}, indent=1))


def text_of(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def libraries():
    """Where the CUDA compiler of this Python is, for ov."""
    given = os.environ.get("OV_CUDA_LIBRARY_PATH")
    found = [given] if given else []
    found += [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return os.pathsep.join(dict.fromkeys(found))


def program_of(options, name):
    """A program of the packed folder, unpacked when it is compressed."""
    plain, packed = options.bin / name, options.bin / f"{name}.gz"
    if not packed.exists():
        return plain
    unpacked = Path(tempfile.gettempdir()) / "ov-gpu-bin" / name
    if not unpacked.exists() or unpacked.stat().st_mtime < packed.stat().st_mtime:
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(packed) as source, open(unpacked, "wb") as to:
            shutil.copyfileobj(source, to)
        unpacked.chmod(0o755)
    return unpacked


def run_tests(options, report):
    program = program_of(options, "ov-gpu-cuda-tests")
    if not program.exists():
        return report.step("tests of the device on the driver", False, f"{program} is not there")
    environment = {**os.environ, "OV_CUDA_HARDWARE": "1", "OV_CUDA_LIBRARY_PATH": libraries()}
    environment["CARGO_MANIFEST_DIR"] = str(options.repository / "ov-gpu-cuda")
    command = [program, options.filter, "--nocapture", "--test-threads=8"]
    log = options.out / "tests.log"
    options.out.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as file:
        try:
            code = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, timeout=options.limit).returncode
        except subprocess.TimeoutExpired:
            code = f"nothing after {options.limit} s"
    text = log.read_text(errors="replace")
    last = re.findall(r"test result: (.*)", text)
    failed = re.findall(r"^test (\S+) \.\.\. FAILED|^    (\S+::\S+)$", text, re.M)
    names = sorted({a or b for a, b in failed})
    result = last[-1].split(";  ")[0] if last else f"ended with {code}"
    report.step("tests of the device on the driver", code == 0, f"{result} {' '.join(names[:12])}".strip())


class Bench:
    """ov-bench on a model."""

    def __init__(self, options):
        self.program, self.device = program_of(options, "ov-bench"), options.device
        self.environment = {**os.environ, "OV_CUDA_LIBRARY_PATH": libraries()}

    def run(self, *arguments, log=None):
        environment = {**self.environment, **({"OV_LOG": log, "NO_COLOR": "1"} if log else {})}
        command = [self.program, arguments[0], "--device", self.device, *map(str, arguments[1:])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise RuntimeError((done.stderr or done.stdout).strip()[-600:])
        return done.stdout, done.stderr


EVENTS = {
    "the driver is started": "driver",
    "a context is made": "context",
    "weights are on the GPU": "weights",
    "modules are loaded": "modules",
    "graphs are made": "graphs",
    "the first run": "first",
}


def parts_of(log):
    """Milliseconds by part, summed, from the device's log."""
    parts = {}
    for line in re.sub(r"\x1b\[[0-9;]*m", "", log).splitlines():
        for text, part in EVENTS.items():
            found = re.search(r"microseconds=(\d+)", line)
            if text in line and found:
                parts[part] = parts.get(part, 0) + int(found[1]) / 1e3
    return parts


def compare_model(options, report, name):
    """One model: ours and PyTorch's."""
    bench, folder = Bench(options), Path(tempfile.gettempdir()) / "ov-gpu-models" / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "inputs").mkdir(parents=True)
    model, inputs = build(name, options.tiny)
    for i, value in enumerate(inputs):
        numpy.save(folder / "inputs" / f"{i}.npy", value.numpy())
    file = folder / "model.onnx"
    export(model, inputs, file)
    size = ["--model", file, "--inputs", folder / "inputs"]

    def guarded(what, function):
        try:
            function()
        except Exception as error:  # a step that fails leaves the others
            report.step(f"{name}: {what}", False, f"{type(error).__name__}: {error}")

    def latency():
        text, _ = bench.run("bench", *size, "--infer-precision", "bf16", "--time", options.seconds, "--json")
        found = json.loads(text.strip().splitlines()[-1])
        report.set(name, ov=found["median_us"], ov99=found["p99_us"])

    def accuracy():
        device = options.torch
        with torch.inference_mode():
            run = lambda dtype: [
                r.double().cpu()
                for r in outputs_of(model.to(device, dtype)(*moved(inputs, device=device, dtype=dtype)))
            ]
            expected = run(torch.float64)
            errors = {"e_torch_bf16": relative(run(torch.bfloat16), expected)}
        # Weights were rounded on the way: again from the seed.
        again, _ = build(name, options.tiny)
        with torch.inference_mode():
            results = outputs_of(again.to(device)(*moved(inputs, device=device)))
            errors["e_torch_f32"] = relative([r.cpu() for r in results], expected)
        for precision in ["f32", "bf16"]:
            out = folder / precision
            bench.run("infer", *size, "--infer-precision", precision, "--outputs", out)
            got = [torch.from_numpy(numpy.load(out / f"{i}.npy")) for i in range(len(expected))]
            errors[f"e_ov_{precision}"] = relative(got, expected)
        report.set(name, **errors)
        for precision, most in [("f32", 1e-4), ("bf16", 5e-2)]:
            error = errors[f"e_ov_{precision}"]
            if not error <= most:
                report.step(f"{name}: accuracy in {precision}", False, f"{error:.1e} is more than {most:.0e}")

    def cold():
        blob = folder / "model.blob"
        bench.run("compile", "--model", file, "--infer-precision", "bf16", "--output", blob)
        from_blob = ["--model", blob, "--inputs", folder / "inputs"]
        text, _ = bench.run("bench", *from_blob, "--cold", 5, "--json")
        report.set(name, cold=json.loads(text.strip().splitlines()[-1])["start_to_result_ms"])
        _, log = bench.run("infer", *from_blob, log="ov_gpu_cuda=debug")
        report.set(name, **parts_of(log))
        blob.unlink()

    def graph():
        p50, p99 = Baseline(build(name, options.tiny)[0], inputs, options.torch).graph(options.seconds)
        report.set(name, graph=p50, graph99=p99)

    guarded("latency", latency)
    guarded("accuracy", accuracy)
    guarded("cold start", cold)
    guarded("torch in a graph", graph)
    shutil.rmtree(folder)


def compile_model(options, report, name):
    """The model by torch.compile, which may take minutes."""
    model, inputs = build(name, options.tiny)
    try:
        p50, p99, took = Baseline(model, inputs, options.torch).compiled(options.seconds, options.mode)
        report.set(name, compiled=p50, compiled99=p99, compile_s=took)
    except Exception as error:
        report.step(f"{name}: torch.compile", False, f"{type(error).__name__}: {str(error)[:300]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", type=Path, required=True, help="folder that `cargo xtask gpu --pack` filled")
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")
    parser.add_argument("--repository", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--models", default=",".join(MODELS), help="of " + ", ".join(MODELS))
    parser.add_argument("--device", default="CUDA", help="ov's device")
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--limit", type=float, default=540, help="seconds after which no further step begins")
    parser.add_argument("--mode", default="max-autotune", help="of torch.compile")
    parser.add_argument("--filter", default="tests::", help="which tests")
    parser.add_argument("--skip", default="", help="of tests, models, compile")
    parser.add_argument("--tiny", action="store_true", help="small models, PyTorch on the processor: a test of this script")
    options = parser.parse_args()
    start = time.monotonic()
    query = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    gpus = text_of(query).splitlines() or ["no GPU that nvidia-smi finds"]
    report = Report(options.out, options.commit, gpus)
    report.write()
    skip = options.skip.split(",")
    names = [name for name in options.models.split(",") if name]
    unknown = set(names) - set(MODELS)
    if unknown:
        parser.error(f"unknown models: {', '.join(sorted(unknown))}")
    if "tests" not in skip:
        run_tests(options, report)
    if torch is None:
        report.notes.append(f"No latencies, accuracies and cold starts: this Python has no PyTorch or NumPy ({MISSING}).")
    else:
        options.torch = "cpu" if options.tiny or not torch.cuda.is_available() else "cuda"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        report.notes.append(f"PyTorch {torch.__version__} on {options.torch}, weights and inputs from a seed.")
        for what, run in [("models", compare_model), ("compile", compile_model)]:
            for name in names if what not in skip else []:
                if time.monotonic() - start > options.limit:
                    report.notes.append(f"Cut off after {options.limit:.0f} s: {what} from {name} on are missing.")
                    break
                try:
                    run(options, report, name)
                except Exception as error:
                    report.step(name, False, f"{type(error).__name__}: {str(error)[:300]}")
    report.write()
    print("\n" + report.markdown())
    failed = sum(not passed for _, _, passed in report.steps)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
