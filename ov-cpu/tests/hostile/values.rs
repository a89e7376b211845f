//! Hostile values: sizes that explode, indices that point outside.

use crate::{
    Case,
    Expected::{Fails, Refused, Runs},
    graph::{Attr, BOOL, F32, Graph, I64, int, tensor, text},
    operators::{apply, case, matrix},
};

/// The same with `y` used once more, so that folding has something to gain.
fn constant(graph: Graph, op: &str, inputs: &[&str], attributes: &[Attr]) -> Graph {
    graph
        .input("s", F32, &[])
        .node(op, inputs, &["big"], attributes)
        .node("Shape", &["big"], &["dims"], &[])
        .node("Cast", &["dims"], &["f"], &[int("to", 1)])
        .node("ReduceSum", &["f"], &["total"], &[int("keepdims", 0)])
        .node("Mul", &["total", "s"], &["y"], &[])
        .output("y")
        .output("big")
}

const LARGE: &[&str] = &["larger", "more than", "elements", "bytes"];

fn amplification() -> Vec<Case> {
    let one = || tensor("one", F32, &[1], 1f32.to_ne_bytes().to_vec());
    let huge: &[i64] = &[1 << 20, 1 << 20];
    let grid = |g: Graph| g.f32s("small", &[1, 1, 2, 2], |i| i as f32);
    let runtime = |op: &str, value: i64| {
        // The extents come from data, so only running tells.
        let graph = Graph::new()
            .input("x", F32, &[2])
            .i64("factor", value)
            .node("Cast", &["x"], &["whole"], &[int("to", 7)])
            .node("Mul", &["whole", "zero"], &["nothing"], &[])
            .node("Add", &["nothing", "factor"], &["dims"], &[])
            .i64s("zero", &[0])
            .tensor(one());
        match op {
            "ConstantOfShape" => graph.node(op, &["dims"], &["y"], &[]),
            _ => graph.node(op, &["one2", "dims"], &["y"], &[]).f32s("one2", &[1, 1], |_| 1.0),
        }
        .output("y")
    };
    vec![
        case(
            "constant of 2^40 elements",
            Fails(LARGE),
            constant(Graph::new().i64s("d", huge), "ConstantOfShape", &["d"], &[]),
        ),
        case(
            "constant of 2^63 elements",
            Fails(LARGE),
            constant(Graph::new().i64s("d", &[i64::MAX]), "ConstantOfShape", &["d"], &[]),
        ),
        case(
            "constant of negative extent",
            Fails(&["ConstantOfShape"]),
            constant(Graph::new().i64s("d", &[-2]), "ConstantOfShape", &["d"], &[]),
        ),
        case(
            "constant of 2^28 elements",
            Fails(LARGE),
            constant(Graph::new().i64s("d", &[1 << 14, 1 << 14]), "ConstantOfShape", &["d"], &[]),
        ),
        case(
            "expansion to 2^40",
            Fails(LARGE),
            constant(Graph::new().tensor(one()).i64s("d", huge), "Expand", &["one", "d"], &[]),
        ),
        case(
            "tiling to 2^40",
            Fails(LARGE),
            constant(
                Graph::new().f32s("t", &[1, 1], |_| 1.0).i64s("d", huge),
                "Tile",
                &["t", "d"],
                &[],
            ),
        ),
        case(
            "tiling by a negative count",
            Fails(&["Tile"]),
            constant(Graph::new().tensor(one()).i64s("d", &[-1]), "Tile", &["one", "d"], &[]),
        ),
        case(
            "range of 2^62",
            Fails(LARGE),
            constant(
                Graph::new().i64("a", 0).i64("b", 1 << 62).i64("c", 1),
                "Range",
                &["a", "b", "c"],
                &[],
            ),
        ),
        case(
            "range over every number",
            Fails(LARGE),
            constant(
                Graph::new().i64("a", i64::MIN).i64("b", i64::MAX).i64("c", 1),
                "Range",
                &["a", "b", "c"],
                &[],
            ),
        ),
        case(
            "range of step 0",
            Fails(&["step"]),
            constant(
                Graph::new().i64("a", 0).i64("b", 9).i64("c", 0),
                "Range",
                &["a", "b", "c"],
                &[],
            ),
        ),
        case(
            "range of step -2^63",
            Runs,
            constant(
                Graph::new().i64("a", 0).i64("b", -9).i64("c", i64::MIN),
                "Range",
                &["a", "b", "c"],
                &[],
            ),
        ),
        case(
            "resizing to 2^40",
            Fails(LARGE),
            constant(
                grid(Graph::new()).i64s("d", &[1, 1, 1 << 20, 1 << 20]),
                "Resize",
                &["small", "", "", "d"],
                &[],
            ),
        ),
        case(
            "resizing by 1e30",
            Fails(&["Interpolate"]),
            constant(
                grid(Graph::new()).f32s("scale", &[4], |_| 1e30),
                "Resize",
                &["small", "", "scale"],
                &[],
            ),
        ),
        case(
            "resizing by NaN",
            Fails(&["Resize"]),
            constant(
                grid(Graph::new()).f32s("scale", &[4], |_| f32::NAN),
                "Resize",
                &["small", "", "scale"],
                &[],
            ),
        ),
        case(
            "resizing by -1",
            Fails(&["Resize"]),
            constant(
                grid(Graph::new()).f32s("scale", &[4], |_| -1.0),
                "Resize",
                &["small", "", "scale"],
                &[],
            ),
        ),
        case(
            "padding by 2^40",
            Fails(LARGE),
            constant(
                Graph::new().tensor(one()).i64s("d", &[1 << 40, 0]),
                "Pad",
                &["one", "d"],
                &[],
            ),
        ),
        case(
            "padding by 2^63-1 on both sides",
            Fails(&["Pad"]),
            constant(
                Graph::new().tensor(one()).i64s("d", &[i64::MAX, i64::MAX]),
                "Pad",
                &["one", "d"],
                &[],
            ),
        ),
        case(
            "padding by less than there is",
            Refused(&["Pad"]),
            constant(Graph::new().tensor(one()).i64s("d", &[-1, -1]), "Pad", &["one", "d"], &[]),
        ),
        case(
            "reflecting more than there is",
            Runs,
            constant(
                Graph::new().tensor(one()).i64s("d", &[5, 5]),
                "Pad",
                &["one", "d"],
                &[text("mode", "reflect")],
            ),
        ),
        case(
            "one-hot of 2^40 classes",
            Fails(LARGE),
            constant(
                Graph::new().i64s("i", &[0, 1]).i64("n", 1 << 40).f32s("v", &[2], |i| i as f32),
                "OneHot",
                &["i", "n", "v"],
                &[],
            ),
        ),
        case(
            "one-hot of -1 classes",
            Fails(&["OneHot"]),
            constant(
                Graph::new().i64s("i", &[0, 1]).i64("n", -1).f32s("v", &[2], |i| i as f32),
                "OneHot",
                &["i", "n", "v"],
                &[],
            ),
        ),
        case("constant of 2^40 while running", Fails(LARGE), runtime("ConstantOfShape", 1 << 20)),
        case("expansion to 2^40 while running", Fails(LARGE), runtime("Expand", 1 << 20)),
        case("tiling to 2^40 while running", Fails(LARGE), runtime("Tile", 1 << 20)),
        case("tiling by 2^62 while running", Fails(LARGE), runtime("Tile", 1 << 62)),
        case("identity matrix of 2^40", Fails(LARGE), {
            Graph::new()
                .input("x", F32, &[1, 1])
                .i64s("d", huge)
                .node("Expand", &["x", "d"], &["e"], &[])
                .node("EyeLike", &["e"], &["y"], &[])
                .output("y")
        }),
        case("matmul of 2^20 rows and columns", Fails(LARGE), {
            Graph::new()
                .input("a", F32, &[1 << 20, 1])
                .input("b", F32, &[1, 1 << 20])
                .node("MatMul", &["a", "b"], &["y"], &[])
                .output("y")
        }),
        case("outer sum of 2^40", Fails(LARGE), {
            Graph::new()
                .input("a", F32, &[1 << 20, 1])
                .input("b", F32, &[1, 1 << 20])
                .node("Add", &["a", "b"], &["y"], &[])
                .output("y")
        }),
    ]
}

fn indices() -> Vec<Case> {
    let gather = |values: &[i64]| apply(matrix().i64s("i", values), "Gather", &["i"], &[]);
    let updates = |g: Graph| g.f32s("u", &[1, 4], |i| i as f32);
    let slice = |from: i64, to: i64, axis: i64, step: i64| {
        let graph =
            matrix().i64s("a", &[from]).i64s("b", &[to]).i64s("c", &[axis]).i64s("d", &[step]);
        apply(graph, "Slice", &["a", "b", "c", "d"], &[])
    };
    let top = |k: i64| {
        matrix().i64s("k", &[k]).node("TopK", &["x", "k"], &["y", "i"], &[]).output("y").output("i")
    };
    const GATHER: &[&str] = &["Gather"];
    const SCATTER: &[&str] = &["Scatter"];
    vec![
        case("gathering at the end", Fails(GATHER), gather(&[3])),
        case("gathering before the start", Fails(GATHER), gather(&[-4])),
        case("gathering at the end of what is computed", Fails(GATHER), {
            matrix()
                .i64s("i", &[3])
                .node("Relu", &["x"], &["r"], &[])
                .node("Gather", &["r", "i"], &["y"], &[int("axis", 1)])
                .node("Gather", &["y", "i"], &["z"], &[])
                .output("z")
        }),
        case("gathering an embedding outside", Fails(GATHER), {
            Graph::new()
                .input("x", I64, &[4])
                .f32s("table", &[3, 8], |i| i as f32)
                .i64("ten", 10)
                .node("Add", &["x", "ten"], &["ids"], &[])
                .node("Gather", &["table", "ids"], &["y"], &[])
                .output("y")
        }),
        case(
            "compressing beyond the end while running",
            Fails(GATHER),
            matrix()
                .input("c", BOOL, &[-1])
                .node("Concat", &["c", "c"], &["cc"], &[int("axis", 0)])
                .node("Concat", &["cc", "cc"], &["many"], &[int("axis", 0)])
                .node("Compress", &["x", "many"], &["y"], &[int("axis", 0)])
                .output("y"),
        ),
        case("gathering from behind", Runs, gather(&[-1, 2])),
        case("gathering at 2^62", Fails(GATHER), gather(&[1 << 62])),
        case("gathering at -2^63", Fails(GATHER), gather(&[i64::MIN])),
        case(
            "gathering over axis 4",
            Refused(GATHER),
            apply(matrix().i64s("i", &[0]), "Gather", &["i"], &[int("axis", 4)]),
        ),
        case(
            "gathering from nothing",
            Fails(GATHER),
            apply(Graph::new().input("x", F32, &[0, 3]).i64s("i", &[0]), "Gather", &["i"], &[]),
        ),
        case(
            "gathering elements outside",
            Fails(GATHER),
            apply(
                matrix().tensor(tensor("i", I64, &[1, 1], 9i64.to_ne_bytes().to_vec())),
                "GatherElements",
                &["i"],
                &[],
            ),
        ),
        case(
            "gathering slices outside",
            Fails(GATHER),
            apply(matrix().i64s("i", &[0, 9]), "GatherND", &["i"], &[]),
        ),
        case(
            "gathering slices of too many axes",
            Refused(GATHER),
            apply(matrix().i64s("i", &[0, 0, 0]), "GatherND", &["i"], &[]),
        ),
        case(
            "gathering slices of batch_dims 9",
            Refused(GATHER),
            apply(matrix().i64s("i", &[0, 0]), "GatherND", &["i"], &[int("batch_dims", 9)]),
        ),
        case(
            "scattering outside",
            Fails(SCATTER),
            apply(
                updates(matrix()).tensor(tensor("i", I64, &[1, 1], 3i64.to_ne_bytes().to_vec())),
                "ScatterND",
                &["i", "u"],
                &[],
            ),
        ),
        case(
            "scattering at -2^63",
            Fails(SCATTER),
            apply(
                updates(matrix()).tensor(tensor(
                    "i",
                    I64,
                    &[1, 1],
                    i64::MIN.to_ne_bytes().to_vec(),
                )),
                "ScatterND",
                &["i", "u"],
                &[],
            ),
        ),
        case(
            "scattering updates of another shape",
            Fails(SCATTER),
            apply(updates(matrix()).i64s("i", &[0, 1]), "ScatterND", &["i", "u"], &[]),
        ),
        case("scattering elements outside", Fails(SCATTER), {
            let bytes: Vec<u8> = [0i64, 1, 2, 40].iter().flat_map(|v| v.to_ne_bytes()).collect();
            apply(
                updates(matrix()).tensor(tensor("i", I64, &[1, 4], bytes)),
                "ScatterElements",
                &["i", "u"],
                &[int("axis", 1)],
            )
        }),
        case(
            "scattering by an unknown rule",
            Refused(SCATTER),
            apply(
                updates(matrix()).tensor(tensor("i", I64, &[1, 1], vec![0; 8])),
                "ScatterND",
                &["i", "u"],
                &[text("reduction", "most")],
            ),
        ),
        case("slice of step 0", Fails(&["Slice"]), slice(0, 3, 0, 0)),
        case("slice backwards", Runs, slice(-1, i64::MIN, 0, -1)),
        case("slice of step -2^63", Runs, slice(2, -9, 0, i64::MIN)),
        case("slice over every number", Runs, slice(i64::MIN, i64::MAX, 1, i64::MAX)),
        case("slice of nothing", Runs, slice(3, 0, 0, 1)),
        case("slice over axis 6", Fails(&["Slice"]), slice(0, 1, 6, 1)),
        case("the best 0", Runs, top(0)),
        case("the best 99 of 4", Fails(&["TopK"]), top(99)),
        case("the best -1", Fails(&["TopK"]), top(-1)),
        case("the best 2^62", Fails(&["TopK"]), top(1 << 62)),
        case("condition of two elements", Refused(&["the condition has shape [2]"]), {
            let branch = || Graph::new().node("Relu", &["x"], &["b"], &[]).output("b");
            matrix()
                .input("c", BOOL, &[2])
                .node(
                    "If",
                    &["c"],
                    &["y"],
                    &[Attr::Graph("then_branch", branch()), Attr::Graph("else_branch", branch())],
                )
                .output("y")
        }),
        case(
            "compressing by too many",
            Refused(&["Compress"]),
            apply(
                matrix().tensor(tensor("c", BOOL, &[9], vec![1; 9])),
                "Compress",
                &["c"],
                &[int("axis", 0)],
            ),
        ),
        case(
            "reversing more than there is",
            Fails(&["ReverseSequence"]),
            apply(matrix().i64s("n", &[9, 9, 9, 9]), "ReverseSequence", &["n"], &[]),
        ),
        case("item of an empty sequence", Fails(&["Sequence"]), {
            matrix()
                .i64("at", 0)
                .node("SequenceEmpty", &[], &["s"], &[])
                .node("SequenceAt", &["s", "at"], &["y"], &[])
                .output("y")
        }),
        case("item 2^62 of a sequence", Fails(&["Sequence"]), {
            matrix()
                .i64("at", 1 << 62)
                .node("SequenceConstruct", &["x", "x"], &["s"], &[])
                .node("SequenceAt", &["s", "at"], &["y"], &[])
                .output("y")
        }),
        case(
            "sequence as an output",
            Runs,
            matrix().node("SequenceConstruct", &["x", "x"], &["y"], &[]).output("y"),
        ),
        case(
            "sequence through a tensor operator",
            Fails(&["Relu"]),
            matrix()
                .node("SequenceConstruct", &["x"], &["s"], &[])
                .node("Relu", &["s"], &["y"], &[])
                .output("y"),
        ),
        case("division of integers by 0", Fails(&["division by zero"]), {
            Graph::new()
                .input("x", I64, &[3])
                .i64s("z", &[0, 0, 0])
                .node("Div", &["x", "z"], &["y"], &[])
                .output("y")
        }),
        case("division of the least integer by -1", Runs, {
            Graph::new()
                .input("x", I64, &[1])
                .i64s("a", &[i64::MIN])
                .i64s("b", &[-1])
                .node("Div", &["a", "b"], &["q"], &[])
                .node("Add", &["q", "x"], &["y"], &[])
                .output("y")
        }),
        case(
            "remainder by 0",
            Fails(&["division by zero"]),
            Graph::new()
                .input("x", I64, &[3])
                .i64s("z", &[0, 0, 0])
                .node("Mod", &["x", "z"], &["y"], &[])
                .output("y"),
        ),
        case("shift by 200", Runs, {
            let bits = |name: &str, v: u64| tensor(name, 13, &[1], v.to_ne_bytes().to_vec());
            Graph::new()
                .input("x", 13, &[1])
                .tensor(bits("n", 200))
                .node("BitShift", &["x", "n"], &["y"], &[text("direction", "LEFT")])
                .output("y")
        }),
    ]
}

pub(crate) fn all() -> Vec<Case> {
    [amplification(), indices()].into_iter().flatten().collect()
}
