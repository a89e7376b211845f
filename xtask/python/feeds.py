"""Values for the inputs of test models, from the `feeds` of models.json.

A feed is `[kind, shape, argument...]`. Kinds:

    zeros   ones   normal   abs_normal   uniform LOW HIGH   ids LOW HIGH (integers below HIGH)
    value V (the shape is null)   audio (two tones and noise at 16 kHz)
    image [MEAN DEVIATION | "imagenet"] (a smooth picture in [0, 1], then normalised)

An input without a feed gets normal floats, zero integers and true booleans. Values depend on the
model's name, the input's place and the seed alone.
"""

import json
import pathlib
import zlib

import numpy

CATALOGUE = pathlib.Path(__file__).with_name("models.json")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def catalogue():
    return json.loads(CATALOGUE.read_text())


def values(name, ports, seed=0):
    """One array per port. `ports`: (name, numpy type, shape with None for an unknown size)."""
    models = catalogue()
    entry = models[name]
    if "base" in entry:
        name, entry = entry["base"], models[entry["base"]]
    arrays = []
    for index, (port, dtype, shape) in enumerate(ports):
        random = numpy.random.default_rng([zlib.crc32(name.encode()), index, seed])
        feed = entry.get("feeds", {}).get(port) or default(port, dtype, shape)
        arrays.append(numpy.asarray(make(random, *feed), dtype=dtype, order="C"))
    return arrays


def default(port, dtype, shape):
    if None in shape:
        raise ValueError(f"input {port} has unknown sizes {shape} and no feed in models.json")
    kind = "normal" if dtype.startswith("float") else "ones" if dtype == "bool" else "zeros"
    return [kind, shape]


def make(random, kind, shape, *arguments):
    match kind:
        case "value":
            return numpy.array(arguments[0])
        case "zeros":
            return numpy.zeros(shape)
        case "ones":
            return numpy.ones(shape)
        case "normal":
            return random.standard_normal(shape)
        case "abs_normal":
            return numpy.abs(random.standard_normal(shape))
        case "uniform":
            return random.uniform(*arguments, shape)
        case "ids":
            return random.integers(*arguments, shape)
        case "audio":
            return audio(random, shape)
        case "image":
            return normalise(picture(random, shape), arguments)
    raise ValueError(f"unknown kind of feed {kind}")


def audio(random, shape):
    time = numpy.arange(numpy.prod(shape)) / 16000
    tones = 0.3 * numpy.sin(2 * numpy.pi * 440 * time) + 0.1 * numpy.sin(2 * numpy.pi * 1200 * time)
    return (tones + 0.02 * random.standard_normal(time.shape)).reshape(shape)


def picture(random, shape):
    """Sixteen soft waves per channel: neighbours are alike, as in photographs."""
    *outer, height, width = shape
    y = numpy.linspace(0, 1, height)[:, None]
    x = numpy.linspace(0, 1, width)[None, :]
    result = numpy.zeros(shape)
    for place in numpy.ndindex(*outer):
        for _ in range(16):
            fy, fx = random.uniform(-4, 4, 2)
            phase = random.uniform(0, 2 * numpy.pi)
            result[place] += numpy.sin(2 * numpy.pi * (fy * y + fx * x) + phase)
    noise = random.standard_normal(shape)
    return numpy.clip(0.5 + result / 12 + 0.03 * noise, 0, 1)


def normalise(image, arguments):
    if arguments == ("imagenet",):
        mean, deviation = (numpy.reshape(v, (1, 3, 1, 1)) for v in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    else:
        mean, deviation = arguments or (0, 1)
    return (image - mean) / deviation
