//! Seed models with one to four changes each: structure-aware, reproducible by their number.

use ov_core::{
    Blob, Core, PropertyMap, Tensor,
    frontend::{
        ReadOptions,
        onnx::proto::{GraphProto, ModelProto},
    },
    reference, testing,
};
use prost::Message as _;

use crate::{
    child,
    graph::{Attr, BOOL, F32, Graph, I64, int, ints, tensor, text},
    input,
};

/// Mutants of a CI run.
const MUTANTS: usize = 3000;
/// Mutants that share a child.
const BATCH: usize = 250;
/// Processor time of a batch.
const SECONDS: usize = 120;

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn pick<'t, T>(&mut self, list: &'t [T]) -> Option<&'t T> {
        if list.is_empty() { None } else { list.get(self.below(list.len())) }
    }
}

fn seeds() -> Vec<ModelProto> {
    let f = |i: usize| ((i * 7 % 13) as f32 - 6.0) / 8.0;
    let image = || Graph::new().input("x", F32, &[1, 4, 8, 8]);
    let matrix = || Graph::new().input("x", F32, &[3, 4]);
    let body = Graph::new()
        .input("i", I64, &[])
        .input("c", BOOL, &[])
        .input("v", F32, &[3, 4])
        .node("Identity", &["c"], &["go"], &[])
        .node("Tanh", &["v"], &["next"], &[])
        .node("ReduceSum", &["next"], &["sum"], &[])
        .output("go")
        .output("next")
        .output("sum");
    let step = Graph::new()
        .input("h", F32, &[4])
        .input("e", F32, &[4])
        .node("Add", &["h", "e"], &["n"], &[])
        .node("Sigmoid", &["n"], &["o"], &[])
        .output("n")
        .output("o");
    let branch = |op: &str| Graph::new().node(op, &["x"], &["b"], &[]).output("b");
    let yes = tensor("yes", BOOL, &[], vec![1]);
    let graphs = vec![
        image()
            .f32s("w", &[6, 4, 3, 3], f)
            .f32s("b", &[6], f)
            .node(
                "Conv",
                &["x", "w", "b"],
                &["c"],
                &[ints("pads", &[1, 1, 1, 1]), ints("strides", &[2, 2]), int("group", 1)],
            )
            .node("Relu", &["c"], &["r"], &[])
            .node(
                "MaxPool",
                &["r"],
                &["p"],
                &[ints("kernel_shape", &[2, 2]), ints("strides", &[1, 1])],
            )
            .node("GlobalAveragePool", &["p"], &["g"], &[])
            .node("Flatten", &["g"], &["y"], &[int("axis", 1)])
            .output("y"),
        image()
            .f32s("w", &[4, 1, 3, 3], f)
            .f32s("s", &[4], |i| 0.5 + i as f32)
            .node("Conv", &["x", "w"], &["c"], &[int("group", 4), ints("dilations", &[1, 2])])
            .node(
                "BatchNormalization",
                &["c", "s", "s", "s", "s"],
                &["n"],
                &[Attr::Float("epsilon", 1e-3)],
            )
            .node("HardSwish", &["n"], &["y"], &[])
            .output("y"),
        image()
            .f32s("w", &[4, 2, 2, 2], f)
            .node(
                "ConvTranspose",
                &["x", "w"],
                &["t"],
                &[ints("strides", &[2, 2]), ints("output_padding", &[0, 0])],
            )
            .node(
                "AveragePool",
                &["t"],
                &["y"],
                &[
                    ints("kernel_shape", &[3, 3]),
                    ints("pads", &[1, 1, 1, 1]),
                    int("count_include_pad", 1),
                ],
            )
            .output("y"),
        image()
            .f32s("scale", &[4], |i| if i < 2 { 1.0 } else { 2.0 })
            .node(
                "Resize",
                &["x", "", "scale"],
                &["r"],
                &[text("mode", "linear"), text("coordinate_transformation_mode", "half_pixel")],
            )
            .node("DepthToSpace", &["r"], &["d"], &[int("blocksize", 2)])
            .i64s("pads", &[0, 0, 1, 1, 0, 0, 1, 1])
            .node("Pad", &["d", "pads"], &["y"], &[text("mode", "reflect")])
            .output("y"),
        matrix()
            .f32s("w", &[4, 5], f)
            .f32s("b", &[5], f)
            .node("Gemm", &["x", "w", "b"], &["g"], &[Attr::Float("alpha", 0.5), int("transB", 0)])
            .node("Erf", &["g"], &["e"], &[])
            .node("Softmax", &["e"], &["y"], &[int("axis", -1)])
            .output("y"),
        Graph::new()
            .input("x", F32, &[2, 5, 8])
            .f32s("w", &[8, 8], f)
            .f32s("s", &[8], |_| 1.0)
            .node("MatMul", &["x", "w"], &["q"], &[])
            .node("Transpose", &["q"], &["t"], &[ints("perm", &[0, 2, 1])])
            .node("MatMul", &["q", "t"], &["a"], &[])
            .node("Softmax", &["a"], &["p"], &[int("axis", -1)])
            .node("MatMul", &["p", "q"], &["v"], &[])
            .node("LayerNormalization", &["v", "s", "s"], &["y"], &[int("axis", -1)])
            .output("y"),
        matrix()
            .i64s("i", &[2, 0, 1])
            .i64s("shape", &[4, 3])
            .node("Gather", &["x", "i"], &["g"], &[int("axis", 0)])
            .node("Reshape", &["g", "shape"], &["r"], &[])
            .node("Concat", &["r", "r"], &["c"], &[int("axis", 1)])
            .node("Split", &["c"], &["y", "z"], &[int("axis", 1)])
            .output("y")
            .output("z"),
        matrix()
            .i64s("a", &[0])
            .i64s("b", &[3])
            .i64s("d", &[1])
            .i64s("e", &[2])
            .node("Slice", &["x", "a", "b", "d", "e"], &["s"], &[])
            .node("Unsqueeze", &["s", "d"], &["u"], &[])
            .node("Expand", &["u", "times"], &["y"], &[])
            .i64s("times", &[3, 2, 2])
            .output("y"),
        matrix()
            .i64s("k", &[2])
            .node("TopK", &["x", "k"], &["v", "i"], &[int("axis", -1)])
            .node("GatherElements", &["x", "i"], &["e"], &[int("axis", 1)])
            .node("Sub", &["v", "e"], &["y"], &[])
            .output("y")
            .output("i"),
        matrix()
            .i64("n", 3)
            .tensor(yes.clone())
            .node("Loop", &["n", "yes", "x"], &["last", "sums"], &[Attr::Graph("body", body)])
            .output("last")
            .output("sums"),
        Graph::new()
            .input("h", F32, &[4])
            .input("x", F32, &[3, 4])
            .node(
                "Scan",
                &["h", "x"],
                &["last", "all"],
                &[Attr::Graph("body", step), int("num_scan_inputs", 1)],
            )
            .output("last")
            .output("all"),
        matrix()
            .input("c", BOOL, &[])
            .node(
                "If",
                &["c"],
                &["y"],
                &[
                    Attr::Graph("then_branch", branch("Relu")),
                    Attr::Graph("else_branch", branch("Neg")),
                ],
            )
            .output("y"),
        Graph::new()
            .input("x", F32, &[3, 2, 4])
            .f32s("w", &[1, 12, 4], f)
            .f32s("r", &[1, 12, 3], f)
            .node(
                "LSTM",
                &["x", "w", "r"],
                &["y", "h", "c"],
                &[int("hidden_size", 3), text("direction", "forward")],
            )
            .output("y")
            .output("c"),
        matrix()
            .f32s("s", &[], |_| 0.1)
            .tensor(tensor("z", 2, &[], vec![128]))
            .node("QuantizeLinear", &["x", "s", "z"], &["q"], &[])
            .node("DequantizeLinear", &["q", "s", "z"], &["y"], &[])
            .output("y"),
        matrix()
            .i64("at", 1)
            .node("SplitToSequence", &["x"], &["s"], &[int("axis", 0), int("keepdims", 1)])
            .node("SequenceAt", &["s", "at"], &["one"], &[])
            .node("SequenceInsert", &["s", "one"], &["t"], &[])
            .node("ConcatFromSequence", &["t"], &["y"], &[int("axis", 0)])
            .output("y"),
        matrix()
            .node("NonZero", &["x"], &["n"], &[])
            .node("Transpose", &["n"], &["t"], &[])
            .node("GatherND", &["x", "t"], &["g"], &[])
            .node("ReduceMax", &["g"], &["y"], &[int("keepdims", 1)])
            .output("y"),
    ];
    graphs.into_iter().map(|g| g.model(17)).collect()
}

/// Numbers at which code breaks: small ones, and such that what they describe is far too large, never just large.
const NUMBERS: &[i64] = &[
    0,
    1,
    -1,
    2,
    3,
    -2,
    4,
    7,
    9,
    -7,
    16,
    63,
    64,
    65,
    255,
    i64::MAX,
    i64::MIN,
    1 << 62,
    1 << 40,
    -(1 << 31),
    1 << 31,
    (1 << 32) + 1,
];

const OPERATORS: &[&str] = &[
    "Relu",
    "Neg",
    "Add",
    "Mul",
    "Div",
    "MatMul",
    "Conv",
    "MaxPool",
    "Softmax",
    "Reshape",
    "Transpose",
    "Gather",
    "GatherND",
    "Concat",
    "Split",
    "Slice",
    "Squeeze",
    "Unsqueeze",
    "Expand",
    "Tile",
    "Pad",
    "ReduceSum",
    "ReduceMax",
    "Flatten",
    "Shape",
    "Size",
    "NonZero",
    "TopK",
    "Where",
    "Cast",
    "Identity",
    "Gemm",
    "ScatterND",
    "ScatterElements",
    "GatherElements",
    "OneHot",
    "Range",
    "ConstantOfShape",
    "CumSum",
    "ArgMax",
    "LRN",
    "InstanceNormalization",
    "LayerNormalization",
    "Einsum",
    "Trilu",
    "Resize",
    "Not",
    "SequenceConstruct",
    "SequenceAt",
    "SequenceLength",
    "Optional",
    "OptionalHasElement",
    "Unique",
    "Compress",
];

/// The graph of the model, or one inside it.
fn some_graph<'g>(random: &mut Random, mut graph: &'g mut GraphProto) -> &'g mut GraphProto {
    while random.below(3) == 0 {
        let inside = |g: &GraphProto| -> Vec<(usize, usize)> {
            let nodes = g.node.iter().enumerate();
            nodes
                .flat_map(|(n, node)| {
                    node.attribute
                        .iter()
                        .enumerate()
                        .filter(|(_, a)| a.g.is_some())
                        .map(move |(a, _)| (n, a))
                })
                .collect()
        };
        let Some(&(n, a)) = random.pick(&inside(graph)) else { break };
        graph = graph.node[n].attribute[a].g.as_mut().expect("it was filtered by that");
    }
    graph
}

fn names(graph: &GraphProto) -> Vec<String> {
    let inputs = graph.input.iter().map(|i| i.name.clone());
    let constants = graph.initializer.iter().map(|t| t.name.clone());
    let outputs = graph.node.iter().flat_map(|n| n.output.iter().cloned());
    inputs.chain(constants).chain(outputs).chain([String::new(), "none".to_owned()]).collect()
}

fn change(random: &mut Random, model: &mut ModelProto) {
    if random.below(24) == 0 {
        if let Some(import) = model.opset_import.first_mut() {
            import.version = [1, 7, 8, 9, 11, 13, 18, 21, 25, 999][random.below(10)];
        }
        return;
    }
    let Some(graph) = model.graph.as_mut() else { return };
    let graph = some_graph(random, graph);
    let names = names(graph);
    let number = |random: &mut Random| NUMBERS[random.below(NUMBERS.len())];
    let (nodes, constants, inputs) = (graph.node.len(), graph.initializer.len(), graph.input.len());
    match random.below(12) {
        0 if nodes > 0 => {
            let at = random.below(nodes);
            graph.node[at].op_type = OPERATORS[random.below(OPERATORS.len())].to_owned();
        }
        1 | 2 if nodes > 0 => {
            let at = random.below(nodes);
            let node = &mut graph.node[at];
            let name = names[random.below(names.len())].clone();
            match random.below(3) {
                0 => node.input.push(name),
                1 => drop(node.input.pop()),
                _ => {
                    let i = random.below(node.input.len());
                    if let Some(input) = node.input.get_mut(i) {
                        *input = name;
                    }
                }
            }
        }
        3..=6 if nodes > 0 => {
            let at = random.below(nodes);
            let node = &mut graph.node[at];
            let i = random.below(node.attribute.len());
            let Some(attribute) = node.attribute.get_mut(i) else { return };
            match random.below(8) {
                0 => drop(node.attribute.remove(i)),
                1 => attribute.r#type = random.below(12) as i32,
                2 => attribute.ints.push(number(random)),
                3 => drop(attribute.ints.pop()),
                4 => attribute.f = [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-30][random.below(5)],
                _ if attribute.ints.is_empty() => attribute.i = number(random),
                _ => {
                    let k = random.below(attribute.ints.len());
                    attribute.ints[k] = number(random);
                }
            }
        }
        7 | 8 if constants > 0 => {
            let at = random.below(constants);
            let constant = &mut graph.initializer[at];
            let raw = constant.raw_data.clone().unwrap_or_default();
            match random.below(5) {
                0 => constant.dims.push(number(random)),
                1 => drop(constant.dims.pop()),
                2 => constant.data_type = random.below(28) as i32,
                3 => constant.raw_data = Some(raw.slice(..random.below(raw.len() + 1))),
                _ if constant.data_type == I64 && raw.len() >= 8 => {
                    let mut bytes = raw.to_vec();
                    let k = random.below(bytes.len() / 8);
                    bytes[k * 8..][..8].copy_from_slice(&number(random).to_ne_bytes());
                    constant.raw_data = Some(bytes.into());
                }
                _ => constant.dims.reverse(),
            }
        }
        9 if inputs > 0 => {
            use ov_core::frontend::onnx::proto::{DimensionKind, TypeKind};
            let at = random.below(inputs);
            let ty = graph.input[at].r#type.as_mut().and_then(|t| t.value.as_mut());
            let Some(TypeKind::Tensor(ty)) = ty else { return };
            match (random.below(3), &mut ty.shape) {
                (0, _) => ty.elem_type = [1, 2, 3, 6, 7, 8, 9, 10, 11, 16][random.below(10)],
                (1, shape) => *shape = None,
                (_, Some(shape)) if !shape.dim.is_empty() => {
                    let k = random.below(shape.dim.len());
                    shape.dim[k].value = match random.below(3) {
                        0 => None,
                        1 => Some(DimensionKind::Value([0, 1, 2, 5][random.below(4)])),
                        _ => Some(DimensionKind::Param("n".to_owned())),
                    };
                }
                _ => {}
            }
        }
        10 if nodes > 1 => {
            let (a, b) = (random.below(nodes), random.below(nodes));
            match random.below(3) {
                0 => graph.node.swap(a, b),
                1 => drop(graph.node.remove(a)),
                _ => {
                    let mut copy = graph.node[a].clone();
                    copy.output.iter_mut().for_each(|o| o.push('2'));
                    graph.node.insert(b, copy);
                }
            }
        }
        _ => {
            let name = names[random.below(names.len())].clone();
            let at = random.below(graph.output.len());
            if let Some(output) = graph.output.get_mut(at) {
                output.name = name;
            }
        }
    }
}

/// Mutant `number`, the same in every run.
fn mutant(seeds: &[ModelProto], number: u64) -> Vec<u8> {
    let mut random = Random(number.wrapping_mul(0xD134_2543_DE82_EF95));
    let mut model = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        change(&mut random, &mut model);
    }
    let mut bytes = model.encode_to_vec();
    if random.below(10) == 0 {
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
    }
    bytes
}

/// Compiles and runs a mutant; one that loads must give the same result imported from its blob, bit for bit, and by the
/// unoptimised reference.
fn check(core: &Core, bytes: Vec<u8>) -> Result<bool, String> {
    let refused = |e: ov_core::Error| {
        let text = e.to_string();
        if text.contains("panicked") { Err(text) } else { Ok(false) }
    };
    let model = match core.read_model_from_bytes(bytes, &ReadOptions::default()) {
        Ok(model) => model,
        Err(e) => return refused(e),
    };
    let inputs: Option<Vec<Tensor>> =
        (0..model.parameters().len()).map(|i| input(&model, i)).collect();
    let properties = PropertyMap::new();
    let compiled = match core.compile_model(model.clone(), "CPU", &properties) {
        Ok(compiled) => compiled,
        Err(e) => return refused(e),
    };
    let Some(inputs) = inputs else { return Ok(false) };
    let ran = compiled.create_infer_request().and_then(|mut request| request.run(&inputs));
    let outputs = match ran {
        Ok(outputs) => outputs,
        Err(e) => return refused(e),
    };
    let mut blob = Vec::new();
    compiled.export(&mut blob).map_err(|e| format!("export: {e}"))?;
    let blob = Blob::from_bytes(blob.into()).map_err(|e| format!("the blob is damaged: {e}"))?;
    let imported = core
        .import_model(blob, "CPU", &properties)
        .and_then(|m| m.create_infer_request())
        .and_then(|mut request| request.run(&inputs))
        .map_err(|e| format!("the imported blob fails: {e}"))?;
    if imported != outputs {
        return Err("the imported blob gives other bits".to_owned());
    }
    let Ok(exact) = reference::evaluate(&model, &inputs) else { return Ok(true) };
    for (i, (got, expected)) in outputs.iter().zip(&exact).enumerate() {
        let equal = testing::compare(got, expected, 1e-3, 1e-4);
        equal.map_err(|e| format!("output {i} differs from the unoptimised model: {e}"))?;
    }
    Ok(true)
}

/// Runs in the child: the mutants from a number on.
#[test]
fn run_mutants() {
    let Ok(first) = std::env::var("OV_HOSTILE_FIRST") else { return };
    let first: u64 = first.parse().expect("a number");
    let (seeds, core) = (seeds(), Core::new().expect("devices"));
    let mut ran = 0;
    for number in first..first + BATCH as u64 {
        println!("\nMUTANT {number}");
        match check(&core, mutant(&seeds, number)) {
            Ok(true) => ran += 1,
            Ok(false) => {}
            Err(wrong) => println!("\nWRONG {number}: {}", wrong.replace('\n', " ")),
        }
    }
    println!("\nRAN {ran}");
}

#[test]
fn every_seed_runs() {
    let core = Core::new().expect("devices");
    for (i, seed) in seeds().into_iter().enumerate() {
        let ran = check(&core, seed.encode_to_vec());
        assert_eq!(ran, Ok(true), "seed {i}");
    }
}

#[test]
fn every_mutant_is_answered() {
    let count = std::env::var("OV_HOSTILE_MUTANTS").ok().and_then(|t| t.parse().ok());
    let count: usize = count.unwrap_or(MUTANTS);
    let (mut wrong, mut ran) = (Vec::new(), 0usize);
    for first in (0..count).step_by(BATCH) {
        let output =
            child("mutants::run_mutants", SECONDS, &[("OV_HOSTILE_FIRST", &first.to_string())]);
        let text = String::from_utf8_lossy(&output.stdout);
        wrong.extend(text.lines().filter_map(|l| l.strip_prefix("WRONG ")).map(str::to_owned));
        let done = text.lines().find_map(|l| l.strip_prefix("RAN "));
        match done.and_then(|n| n.parse::<usize>().ok()) {
            Some(n) if output.status.success() => ran += n,
            _ => {
                let last = text.lines().filter_map(|l| l.strip_prefix("MUTANT ")).next_back();
                let errors = String::from_utf8_lossy(&output.stderr);
                let tail = errors.lines().rev().take(3).collect::<Vec<_>>().join(" | ");
                wrong.push(format!("{}: {}: {tail}", last.unwrap_or("none"), output.status));
            }
        }
    }
    println!("{count} mutants, {ran} ran");
    assert!(ran > count / 20, "only {ran} of {count} mutants run: the changes are too coarse");
    assert!(wrong.is_empty(), "{} of {count} mutants:\n{}", wrong.len(), wrong.join("\n"));
}
