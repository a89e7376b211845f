//! Hostile attributes: windows that do not fit, axes that are not there, groups that do not divide.

use crate::{
    Case,
    Expected::{self, Fails, Refused, Runs},
    graph::{Attr, F32, Graph, int, ints, tensor, text},
};

pub(crate) fn case(name: &'static str, expected: Expected, graph: Graph) -> Case {
    Case { name, model: graph.bytes(), expected }
}

fn image() -> Graph {
    Graph::new().input("x", F32, &[1, 4, 8, 8])
}

pub(crate) fn matrix() -> Graph {
    Graph::new().input("x", F32, &[3, 4])
}

/// One operator over `x` and `rest`, giving `y`.
pub(crate) fn apply(graph: Graph, op: &str, rest: &[&str], attributes: &[Attr]) -> Graph {
    let inputs: Vec<&str> = [&["x"], rest].concat();
    graph.node(op, &inputs, &["y"], attributes).output("y")
}

fn windows() -> Vec<Case> {
    let conv = |dims: &[i64], attributes: &[Attr]| {
        apply(image().f32s("w", dims, |i| (i % 5) as f32), "Conv", &["w"], attributes)
    };
    let pool = |attributes: &[Attr]| apply(image(), "MaxPool", &[], attributes);
    let average = |attributes: &[Attr]| apply(image(), "AveragePool", &[], attributes);
    let turned = |dims: &[i64], attributes: &[Attr]| {
        apply(image().f32s("w", dims, |i| (i % 5) as f32), "ConvTranspose", &["w"], attributes)
    };
    let w: &[i64] = &[6, 4, 3, 3];
    const CONV: &[&str] = &["Conv"];
    const POOL: &[&str] = &["Pool"];
    vec![
        case("convolution of kernel 0", Fails(CONV), conv(&[6, 4, 0, 0], &[])),
        case(
            "convolution whose kernel_shape differs",
            Refused(&["kernel_shape"]),
            conv(w, &[ints("kernel_shape", &[5, 5])]),
        ),
        case(
            "convolution of kernel_shape 0",
            Refused(&["kernel_shape"]),
            conv(w, &[ints("kernel_shape", &[0, 0])]),
        ),
        case("convolution of stride 0", Refused(CONV), conv(w, &[ints("strides", &[0, 0])])),
        case("convolution of stride -1", Refused(CONV), conv(w, &[ints("strides", &[-1, 1])])),
        case(
            "convolution of stride 2^62",
            Refused(&["strides"]),
            conv(w, &[ints("strides", &[1 << 62, 1 << 62])]),
        ),
        case("convolution of dilation 0", Refused(CONV), conv(w, &[ints("dilations", &[0, 1])])),
        case(
            "convolution of dilation 2^31",
            Fails(CONV),
            conv(w, &[ints("dilations", &[1 << 31, 1 << 31])]),
        ),
        case(
            "convolution of dilation 2^63-1",
            Fails(CONV),
            conv(w, &[ints("dilations", &[i64::MAX, 1])]),
        ),
        case(
            "convolution of negative padding",
            Refused(&["pads"]),
            conv(w, &[ints("pads", &[-1, -1, -1, -1])]),
        ),
        case(
            "convolution of padding below its input",
            Fails(CONV),
            conv(w, &[ints("pads", &[-100, 0, 0, 0])]),
        ),
        case(
            "convolution of padding 2^62",
            Fails(&["Conv", "larger", "more than"]),
            conv(w, &[ints("pads", &[1 << 62, 0, 1 << 62, 0])]),
        ),
        case(
            "convolution of three strides",
            Refused(CONV),
            conv(w, &[ints("strides", &[1, 1, 1])]),
        ),
        case("convolution of one pad", Refused(CONV), conv(w, &[ints("pads", &[1])])),
        case("convolution of 0 groups", Refused(CONV), conv(w, &[int("group", 0)])),
        case("convolution of -1 groups", Refused(CONV), conv(w, &[int("group", -1)])),
        case(
            "convolution of groups that do not divide",
            Refused(CONV),
            conv(w, &[int("group", 3)]),
        ),
        case("convolution of 2^62 groups", Refused(CONV), conv(w, &[int("group", 1 << 62)])),
        case("convolution of other channels", Refused(CONV), conv(&[6, 5, 3, 3], &[])),
        case("convolution of a weight of rank 5", Refused(CONV), conv(&[6, 4, 3, 3, 3], &[])),
        case("convolution of a weight of rank 1", Refused(CONV), conv(&[6], &[])),
        case("convolution of a kernel that is larger", Fails(CONV), conv(&[6, 4, 9, 9], &[])),
        case(
            "convolution of an unknown padding",
            Refused(CONV),
            conv(w, &[text("auto_pad", "SOME")]),
        ),
        case("convolution without filters", Runs, conv(&[0, 4, 3, 3], &[])),
        case(
            "convolution of a bias of another length",
            Refused(&["Conv", "Add"]),
            apply(image().f32s("w", w, |_| 1.0).f32s("b", &[5], |_| 1.0), "Conv", &["w", "b"], &[]),
        ),
        case(
            "convolution of a bias of one value",
            Refused(&["Conv"]),
            apply(image().f32s("w", w, |_| 1.0).f32s("b", &[1], |_| 1.0), "Conv", &["w", "b"], &[]),
        ),
        case(
            "transposed convolution whose kernel_shape differs",
            Refused(&["kernel_shape"]),
            turned(&[4, 2, 3, 3], &[ints("kernel_shape", &[2, 2])]),
        ),
        case(
            "transposed convolution of stride 0",
            Refused(CONV),
            turned(&[4, 2, 3, 3], &[ints("strides", &[0, 0])]),
        ),
        case(
            "transposed convolution of stride 2^40",
            Fails(&["Conv", "larger", "more than"]),
            turned(&[4, 2, 3, 3], &[ints("strides", &[1 << 40, 1 << 40])]),
        ),
        case(
            "transposed convolution of a negative output",
            Fails(CONV),
            turned(&[4, 2, 3, 3], &[ints("output_shape", &[-5, 1])]),
        ),
        case(
            "transposed convolution of huge output_padding",
            Fails(CONV),
            turned(&[4, 2, 3, 3], &[ints("output_padding", &[i64::MAX, 0])]),
        ),
        case("pool of kernel 0", Refused(POOL), pool(&[ints("kernel_shape", &[0, 0])])),
        case("pool of kernel -1", Refused(POOL), pool(&[ints("kernel_shape", &[-1, 2])])),
        case(
            "pool of kernel 2^62",
            Fails(POOL),
            pool(&[ints("kernel_shape", &[1 << 62, 1 << 62])]),
        ),
        case(
            "pool of stride 0",
            Refused(POOL),
            pool(&[ints("kernel_shape", &[2, 2]), ints("strides", &[0, 0])]),
        ),
        case(
            "pool of dilation 2^62",
            Fails(POOL),
            pool(&[ints("kernel_shape", &[2, 2]), ints("dilations", &[1 << 62, 1])]),
        ),
        case("pool without a kernel", Refused(POOL), pool(&[])),
        case("pool of three axes", Refused(POOL), pool(&[ints("kernel_shape", &[2, 2, 2])])),
        case(
            "pool of padding above its kernel",
            Refused(&["pads"]),
            pool(&[ints("kernel_shape", &[2, 2]), ints("pads", &[9, 9, 9, 9])]),
        ),
        case(
            "average of padding above its kernel",
            Refused(&["pads"]),
            average(&[ints("kernel_shape", &[2, 2]), ints("pads", &[9, 9, 9, 9])]),
        ),
        case(
            "average of negative padding",
            Refused(&["pads"]),
            average(&[ints("kernel_shape", &[2, 2]), ints("pads", &[-3, -3, -3, -3])]),
        ),
    ]
}

fn attributes() -> Vec<Case> {
    let m = |op: &str, attributes: &[Attr]| apply(matrix(), op, &[], attributes);
    let list =
        |op: &str, name: &str, values: &[i64]| apply(matrix().i64s(name, values), op, &[name], &[]);
    vec![
        case(
            "permutation that repeats an axis",
            Refused(&["Transpose"]),
            m("Transpose", &[ints("perm", &[0, 0])]),
        ),
        case(
            "permutation of one axis",
            Refused(&["Transpose"]),
            m("Transpose", &[ints("perm", &[0])]),
        ),
        case(
            "permutation of a negative axis",
            Refused(&["Transpose"]),
            m("Transpose", &[ints("perm", &[-1, 0])]),
        ),
        case("softmax over axis 7", Refused(&["Softmax"]), m("Softmax", &[int("axis", 7)])),
        case(
            "softmax over axis -2^63",
            Refused(&["Softmax"]),
            m("Softmax", &[int("axis", i64::MIN)]),
        ),
        case("concatenation over axis 9", Refused(&["Concat"]), m("Concat", &[int("axis", 9)])),
        case("flattening at axis 9", Refused(&["Flatten"]), m("Flatten", &[int("axis", 9)])),
        case("reduction over axis 9", Refused(&["Reduce"]), m("ReduceMean", &[ints("axes", &[9])])),
        case(
            "reduction over an axis twice",
            Refused(&["given twice"]),
            m("ReduceMean", &[ints("axes", &[0, 0])]),
        ),
        case("split into parts of another sum", Fails(&["Split"]), list("Split", "parts", &[1, 1])),
        case("split into negative parts", Fails(&["Split"]), list("Split", "parts", &[-1, 4])),
        case(
            "split into parts that overflow",
            Fails(&["Split"]),
            list("Split", "parts", &[i64::MAX, i64::MAX]),
        ),
        case("squeeze of an extent of 3", Refused(&["Squeeze"]), list("Squeeze", "axes", &[0])),
        case("squeeze of axis 9", Refused(&["Squeeze"]), list("Squeeze", "axes", &[9])),
        case(
            "unsqueeze of an axis twice",
            Refused(&["Unsqueeze"]),
            list("Unsqueeze", "axes", &[0, 0]),
        ),
        case("unsqueeze of axis 100", Refused(&["Unsqueeze"]), list("Unsqueeze", "axes", &[100])),
        case("reshape to another size", Refused(&["Reshape"]), list("Reshape", "dims", &[5, 5])),
        case("reshape to two unknowns", Refused(&["Reshape"]), list("Reshape", "dims", &[-1, -1])),
        case("reshape to -7", Refused(&["Reshape"]), list("Reshape", "dims", &[-7, 2])),
        case(
            "reshape to extents that overflow",
            Refused(&["Reshape"]),
            list("Reshape", "dims", &[1 << 40, 1 << 40]),
        ),
        case(
            "reshape to an unknown over 0",
            Refused(&["beside an extent of 0"]),
            apply(
                Graph::new().input("x", F32, &[0, 4]).i64s("d", &[0, 0, -1]),
                "Reshape",
                &["d"],
                &[],
            ),
        ),
        case(
            "reshape to an unknown over 0 while running",
            Fails(&["Reshape"]),
            Graph::new()
                .input("x", F32, &[-1, 4])
                .i64s("none", &[0])
                .i64s("d", &[0, 0, -1])
                .node("Slice", &["x", "none", "none", "none"], &["nothing"], &[])
                .node("Reshape", &["nothing", "d"], &["y"], &[])
                .output("y"),
        ),
        case("cast to an unknown type", Refused(&["Cast"]), m("Cast", &[int("to", 99)])),
        case("cast to nothing", Refused(&["Cast"]), m("Cast", &[])),
        case(
            "cumulative sum over axis 5",
            Fails(&["CumSum"]),
            apply(matrix().i64("axis", 5), "CumSum", &["axis"], &[]),
        ),
        case(
            "depth to space by 0",
            Refused(&["DepthToSpace"]),
            apply(image(), "DepthToSpace", &[], &[int("blocksize", 0)]),
        ),
        case(
            "depth to space by 3",
            Refused(&["DepthToSpace"]),
            apply(image(), "DepthToSpace", &[], &[int("blocksize", 3)]),
        ),
        case(
            "depth to space by 2^40",
            Refused(&["DepthToSpace"]),
            apply(image(), "DepthToSpace", &[], &[int("blocksize", 1 << 40)]),
        ),
        case(
            "space to depth by -2",
            Refused(&["SpaceToDepth"]),
            apply(image(), "SpaceToDepth", &[], &[int("blocksize", -2)]),
        ),
        case(
            "local response over -1",
            Refused(&["LRN"]),
            apply(image(), "LRN", &[], &[int("size", -1)]),
        ),
        case(
            "equation that is none",
            Refused(&["Einsum"]),
            m("Einsum", &[text("equation", "ij,->k->")]),
        ),
        case(
            "equation of other ranks",
            Refused(&["Einsum"]),
            m("Einsum", &[text("equation", "ijk->i")]),
        ),
        case("recurrence without units", Fails(&["LSTM"]), {
            Graph::new()
                .input("x", F32, &[2, 1, 3])
                .f32s("w", &[1, 8, 3], |_| 0.1)
                .f32s("r", &[1, 8, 2], |_| 0.1)
                .node("LSTM", &["x", "w", "r"], &["y"], &[int("hidden_size", -2)])
                .output("y")
        }),
        case("recurrence of other weights", Refused(&["LSTM", "FullyConnected"]), {
            Graph::new()
                .input("x", F32, &[2, 1, 3])
                .f32s("w", &[1, 8, 5], |_| 0.1)
                .f32s("r", &[1, 8, 2], |_| 0.1)
                .node("LSTM", &["x", "w", "r"], &["y"], &[int("hidden_size", 2)])
                .output("y")
        }),
        case(
            "normalization of another length",
            Refused(&["LayerNormalization"]),
            apply(matrix().f32s("s", &[9], |_| 1.0), "LayerNormalization", &["s"], &[]),
        ),
        case("groups that do not divide channels", Refused(&["Normalization"]), {
            apply(
                image().f32s("s", &[4], |_| 1.0).f32s("b", &[4], |_| 0.0),
                "GroupNormalization",
                &["s", "b"],
                &[int("num_groups", 3)],
            )
        }),
        case("scale without a length", Refused(&["QuantizeLinear"]), {
            Graph::new()
                .input("x", F32, &[2, 3])
                .f32s("s", &[0], |_| 1.0)
                .tensor(tensor("z", 2, &[0], Vec::new()))
                .node("QuantizeLinear", &["x", "s", "z"], &["y"], &[])
                .output("y")
        }),
    ]
}

pub(crate) fn all() -> Vec<Case> {
    [windows(), attributes()].into_iter().flatten().collect()
}
