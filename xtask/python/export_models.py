"""Exports well-known architectures to ONNX, with seeded weights.

    python export_models.py FOLDER NAME...

Fresh random weights would make poor tests: activations die out or explode, and outputs hardly
depend on the input. So each batch norm is given the statistics of what flows into it, and the last
layer is scaled until the outputs spread by about one. The same versions write the same bytes.
"""

import os
import pathlib
import sys
import warnings

# Read when ultralytics is imported: it must neither download nor install anything.
os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false")
warnings.filterwarnings("ignore")

import onnx
import torch
from torch import nn
from torch.nn import functional

SEED = 0
IMAGE_CLASSIFIERS = (
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_b_16",
)


class Export:
    """A model, what it is traced with, and the names of its ports."""

    def __init__(self, model, arguments, inputs, outputs, keeps_recurrent_ops=False):
        self.model = model.eval()
        self.arguments = arguments
        self.inputs = inputs
        self.outputs = outputs
        self.keeps_recurrent_ops = keeps_recurrent_ops

    def write(self, path):
        names = {"input_names": self.inputs, "output_names": self.outputs}
        with torch.no_grad():
            if self.keeps_recurrent_ops:
                # The older exporter writes LSTM as one operator and traces detection heads.
                torch.onnx.export(self.model, self.arguments, path, opset_version=17, dynamo=False, **names)
            else:
                torch.onnx.export(
                    self.model, self.arguments, path, opset_version=18, dynamo=True, external_data=False, **names
                )
        drop_notes(path)


def drop_notes(path):
    """Removes the exporter's notes, which differ from run to run and hold paths."""
    proto = onnx.load(path)
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    onnx.save(proto, path)


def typical(example, count=8):
    """Inputs like the example: pictures are smooth, other floats normal, integers the same."""
    if not example.is_floating_point():
        return example
    if example.dim() != 4:
        return torch.randn(count, *example.shape[1:])
    coarse = torch.randn(count, example.shape[1], 8, 8)
    smooth = functional.interpolate(coarse, example.shape[2:], mode="bilinear")
    return smooth + 0.3 * torch.randn_like(smooth)


@torch.no_grad()
def settle(model, *examples, scale_last=True):
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    hooks = []
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.8, 1.2)
        nn.init.normal_(norm.bias, std=0.1)
        hooks.append(norm.register_forward_pre_hook(take_statistics))
    if norms:
        model(*map(typical, examples))
    for hook in hooks:
        hook.remove()
    if scale_last:
        last = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
        nn.init.normal_(last.weight, std=last.weight[0].numel() ** -0.5)
        spread = model(*map(typical, examples)).std()
        last.weight.div_(spread)
        if last.bias is not None:
            last.bias.div_(spread)
    return model


def take_statistics(norm, inputs):
    """Half of the mean stays in, or channels that hardly vary would become noise, blown up."""
    axes = [0, *range(2, inputs[0].dim())]
    half_mean = inputs[0].mean(axes) / 2
    norm.running_mean.copy_(half_mean)
    norm.running_var.copy_(inputs[0].var(axes) + half_mean.square())


def image_classifier(name):
    import torchvision

    model = getattr(torchvision.models, name)(weights=None)
    for parameter, value in model.named_parameters():
        # ConvNeXt's blocks start at 1e-6, which is next to doing nothing.
        if parameter.endswith("layer_scale"):
            nn.init.uniform_(value, 0.1, 0.5)
    image = torch.randn(1, 3, 224, 224)
    return Export(settle(model, image), (image,), ["input"], ["output"])


def yolov8n():
    from ultralytics.nn.tasks import DetectionModel

    model = DetectionModel("yolov8n.yaml", verbose=False).float()
    image = torch.rand(1, 3, 640, 640)
    settle(model, image, scale_last=False)
    head = model.model[-1]
    for branch in head.cv3:
        # Scores over the whole of (0, 1); the usual start puts all of them near zero.
        nn.init.normal_(branch[-1].bias)
    head.export, head.format = True, "onnx"
    return Export(model.fuse(verbose=False), (image,), ["images"], ["output0"], keeps_recurrent_ops=True)


class UNet(nn.Module):
    """Four levels of two convolutions each, joined by skip connections."""

    WIDTHS = (32, 64, 128, 256)

    def __init__(self):
        super().__init__()
        self.descend = nn.ModuleList(map(self._stage, (3, *self.WIDTHS), self.WIDTHS))
        steps = list(zip(self.WIDTHS[:0:-1], self.WIDTHS[-2::-1]))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, 2) for wide, narrow in steps)
        self.ascend = nn.ModuleList(self._stage(2 * narrow, narrow) for _, narrow in steps)
        self.classify = nn.Conv2d(self.WIDTHS[0], 2, 1)

    @staticmethod
    def _stage(inputs, outputs):
        layers = []
        for channels in (inputs, outputs):
            layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, x):
        levels = []
        for stage in self.descend:
            x = stage(functional.max_pool2d(x, 2) if levels else x)
            levels.append(x)
        levels.pop()
        for enlarge, stage in zip(self.enlarge, self.ascend):
            x = stage(torch.cat([enlarge(x), levels.pop()], dim=1))
        return self.classify(x)


def unet_256():
    image = torch.randn(1, 3, 256, 256)
    return Export(settle(UNet(), image), (image,), ["input"], ["mask"])


class LastHiddenState(nn.Module):
    """A BERT encoder that gives one tensor instead of a dictionary."""

    def __init__(self, **shape):
        super().__init__()
        from transformers import BertConfig, BertModel

        self.encoder = BertModel(BertConfig(attn_implementation="eager", **shape), add_pooling_layer=False)

    def forward(self, ids, mask, types):
        return self.encoder(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state


def text_encoder(length, **shape):
    model = LastHiddenState(**shape)
    whole = (1, length)
    arguments = (torch.randint(0, 30522, whole), torch.ones(whole, dtype=torch.long), torch.zeros(whole, dtype=torch.long))
    return Export(model, arguments, ["input_ids", "attention_mask", "token_type_ids"], ["last_hidden_state"])


def minilm(length):
    return text_encoder(
        length, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )


class Block(nn.Module):
    """A transformer block of GPT-2 that takes and gives its keys and values."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, x, past_keys, past_values):
        batch, length, width = x.shape
        size = width // self.heads
        parts = self.query_key_value(self.attention_norm(x)).chunk(3, dim=-1)
        query, key, value = (p.view(batch, length, self.heads, size).transpose(1, 2) for p in parts)
        keys = torch.cat([past_keys, key], dim=2)
        values = torch.cat([past_values, value], dim=2)
        weights = torch.softmax(query @ keys.transpose(-1, -2) / size**0.5, dim=-1)
        x = x + self.project((weights @ values).transpose(1, 2).reshape(batch, length, width))
        feed = functional.gelu(self.expand(self.feed_norm(x)), approximate="tanh")
        return x + self.contract(feed), keys, values


class DecoderStep(nn.Module):
    """One token through a decoder of GPT-2's size; the caller keeps the cache."""

    def __init__(self, layers, width, heads, vocabulary, positions):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.tokens.weight, std=0.05)

    def forward(self, ids, pos, *past):
        x = self.tokens(ids) + self.positions(pos)
        present = []
        for block, keys, values in zip(self.blocks, past[::2], past[1::2]):
            x, *grown = block(x, keys, values)
            present += grown
        return self.norm(x) @ self.tokens.weight.T, *present


def gpt2_decode(past_length):
    layers = 12
    model = DecoderStep(layers, width=768, heads=12, vocabulary=50257, positions=1024)
    past = [torch.randn(1, 12, past_length, 64) for _ in range(2 * layers)]
    arguments = (torch.randint(0, 50257, (1, 1)), torch.tensor([[past_length]]), *past)
    indices = range(2 * layers)
    inputs = ["ids", "pos", *(f"past_{i}" for i in indices)]
    return Export(model, arguments, inputs, ["logits", *(f"present_{i}" for i in indices)])


class Tagger(nn.Module):
    """A tag per word, from two LSTM layers."""

    def __init__(self, vocabulary=5000, width=128, tags=32):
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.recurrent = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.tag = nn.Linear(width, tags)

    def forward(self, ids):
        states, _ = self.recurrent(self.words(ids))
        return self.tag(states)


def lstm_tagger():
    ids = torch.randint(0, 5000, (1, 50))
    return Export(settle(Tagger(), ids), (ids,), ["ids"], ["tags"], keeps_recurrent_ops=True)


def tiny_mlp():
    widths = (64, 128, 128, 10)
    layers = []
    for narrow, wide in zip(widths, widths[1:]):
        layers += [nn.Linear(narrow, wide), nn.ReLU()]
    body = nn.Sequential(*layers[:-1])
    x = torch.randn(1, widths[0])
    settle(body, x)
    return Export(nn.Sequential(body, nn.Softmax(-1)), (x,), ["x"], ["y"])


BUILDERS = {
    **{name: lambda name=name: image_classifier(name) for name in IMAGE_CLASSIFIERS},
    "yolov8n": yolov8n,
    "unet_256": unet_256,
    "bert_base_s128": lambda: text_encoder(128),
    "minilm_l6_s128": lambda: minilm(128),
    "minilm_l6_s16": lambda: minilm(16),
    "gpt2_decode_p128": lambda: gpt2_decode(128),
    "lstm_tagger": lstm_tagger,
    "tiny_mlp": tiny_mlp,
}


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: export_models.py FOLDER NAME...")
    folder = pathlib.Path(sys.argv[1])
    failed = 0
    for name in sys.argv[2:]:
        path = folder / f"{name}.onnx"
        if path.exists():
            continue
        part = folder / f"{name}.part"
        try:
            torch.manual_seed(SEED)
            BUILDERS[name]().write(str(part))
            part.replace(path)
            print(f"exported {name}, {path.stat().st_size / 1e6:.1f} MB", file=sys.stderr, flush=True)
        except Exception as error:
            failed += 1
            part.unlink(missing_ok=True)
            print(f"not exported: {name} ({error!r})", file=sys.stderr, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
