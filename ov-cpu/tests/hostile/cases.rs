//! Hostile files: graphs that turn in circles, grow without end, or contradict themselves.

use std::path::Path;

use ov_core::frontend::onnx::proto::{ModelProto, NodeProto, TensorProto};
use prost::Message as _;

use crate::{
    Case,
    Expected::{self, Fails, Refused, Runs},
    graph::{BOOL, F32, Graph, I64, call, external, function, int, ints, node, tensor, value_info},
};

fn case(name: &'static str, expected: Expected, model: Vec<u8>) -> Case {
    Case { name, model, expected }
}

/// Files around a model: its folder and what must not be reached from there.
pub(crate) fn lay_out(outer: &Path, folder: &Path) {
    use std::os::unix::fs::symlink;
    std::fs::create_dir_all(folder.join("sub")).expect("made");
    std::fs::write(folder.join("w.bin"), [0u8; 16]).expect("written");
    std::fs::write(outer.join("secret"), [0u8; 16]).expect("written");
    symlink(outer.join("secret"), folder.join("link")).expect("linked");
    symlink(outer, folder.join("out")).expect("linked");
    symlink("/dev/zero", folder.join("device")).expect("linked");
    let fifo = folder.join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.is_ok_and(|s| s.success()), "mkfifo is there");
}

fn x() -> Graph {
    Graph::new().input("x", F32, &[2, 3])
}

fn with_functions(
    functions: Vec<ov_core::frontend::onnx::proto::FunctionProto>,
    first: &str,
) -> Vec<u8> {
    let mut graph = x().output("y");
    graph.0.node.push(call(first, "x", "y"));
    ModelProto { functions, ..graph.model(17) }.encode_to_vec()
}

/// A branch that gives `name` of the surrounding graph through `Relu`.
fn branch(reads: &str) -> Graph {
    Graph::new().node("Relu", &[reads], &["b"], &[]).output("b")
}

fn looped(trips: i64, condition: bool, scans: bool) -> Vec<u8> {
    let mut body = Graph::new()
        .input("i", I64, &[])
        .input("c", BOOL, &[])
        .input("v", F32, &[2, 3])
        .node("Identity", &["c"], &["go"], &[])
        .node("Relu", &["v"], &["next"], &[])
        .output("go")
        .output("next");
    if scans {
        body = body.node("Relu", &["v"], &["piece"], &[]).output("piece");
    }
    let outputs: &[&str] = if scans { &["y", "all"] } else { &["y"] };
    let condition = tensor("start", BOOL, &[], vec![u8::from(condition)]);
    x().i64("trips", trips)
        .tensor(condition)
        .node("Loop", &["trips", "start", "x"], outputs, &[crate::graph::Attr::Graph("body", body)])
        .output(outputs[outputs.len() - 1])
        .bytes()
}

fn if_node(then: Graph) -> NodeProto {
    let attributes = [
        crate::graph::Attr::Graph("then_branch", then),
        crate::graph::Attr::Graph("else_branch", branch("x")),
    ];
    node("If", &["c"], &["y"], &attributes)
}

fn cycles() -> Vec<Case> {
    const CYCLE: &[&str] = &["cycle"];
    let mut through_body = x().input("c", BOOL, &[]).output("y");
    through_body.0.node.push(if_node(branch("z")));
    through_body = through_body.node("Relu", &["y"], &["z"], &[]);
    let mut long = x().output("n0");
    for i in 0..2000 {
        let (from, to) = (format!("n{}", (i + 1) % 2000), format!("n{i}"));
        long = long.node("Relu", &[&from], &[&to], &[]);
    }
    let calls_in_branch = {
        let mut inner = Graph::new().output("b");
        inner.0.node.push(call("f", "x", "b"));
        let mut if_call = if_node(inner);
        if_call.input[0] = "flag".into();
        let flag = node(
            "Constant",
            &[],
            &["flag"],
            &[crate::graph::Attr::Tensor("value", tensor("", BOOL, &[], vec![1]))],
        );
        function("f", vec![flag, if_call])
    };
    vec![
        case(
            "self cycle",
            Refused(CYCLE),
            x().node("Add", &["x", "y"], &["y"], &[]).output("y").bytes(),
        ),
        case(
            "cycle of two",
            Refused(&["b -> a -> b", "a -> b -> a"]),
            x().node("Relu", &["b"], &["a"], &[])
                .node("Relu", &["a"], &["b"], &[])
                .output("a")
                .bytes(),
        ),
        case("cycle of 2000", Refused(CYCLE), long.bytes()),
        case("cycle through a branch", Refused(CYCLE), through_body.bytes()),
        case(
            "function that calls itself",
            Refused(&["f -> f"]),
            with_functions(vec![function("f", vec![call("f", "x", "y")])], "f"),
        ),
        case(
            "functions that call each other",
            Refused(&["f -> g -> f"]),
            with_functions(
                vec![
                    function("f", vec![call("g", "x", "y")]),
                    function("g", vec![call("f", "x", "y")]),
                ],
                "f",
            ),
        ),
        case(
            "function that calls itself in a branch",
            Refused(&["f -> f"]),
            with_functions(vec![calls_in_branch], "f"),
        ),
        case(
            "nodes out of order",
            Runs,
            x().node("Relu", &["b"], &["y"], &[])
                .node("Neg", &["x"], &["b"], &[])
                .output("y")
                .bytes(),
        ),
        case(
            "missing value",
            Refused(&["\"nowhere\""]),
            x().node("Relu", &["nowhere"], &["y"], &[]).output("y").bytes(),
        ),
        case(
            "missing output",
            Refused(&["\"y\""]),
            x().node("Relu", &["x"], &["z"], &[]).output("y").bytes(),
        ),
        case(
            "value made twice",
            Refused(&["two nodes"]),
            x().node("Relu", &["x"], &["y"], &[])
                .node("Neg", &["x"], &["y"], &[])
                .output("y")
                .bytes(),
        ),
    ]
}

/// Functions of which each calls the next twice.
fn doubling(levels: usize) -> Vec<u8> {
    let names: Vec<String> = (0..=levels).map(|i| format!("f{i}")).collect();
    let mut functions: Vec<_> = (0..levels)
        .map(|i| {
            function(&names[i], vec![call(&names[i + 1], "x", "m"), call(&names[i + 1], "m", "y")])
        })
        .collect();
    functions.push(function(&names[levels], vec![node("Relu", &["x"], &["y"], &[])]));
    with_functions(functions, "f0")
}

fn nested_ifs(depth: usize) -> Vec<u8> {
    let mut inner = branch("x");
    for _ in 0..depth {
        let mut outer = Graph::new().output("y");
        outer.0.node.push(if_node(inner));
        inner = outer;
    }
    let mut graph = x().input("c", BOOL, &[]).output("y");
    graph.0.node.push(if_node(inner));
    graph.bytes()
}

fn growth() -> Vec<Case> {
    let chain = |count: usize| {
        let mut graph = x();
        for i in 0..count {
            let (from, to) =
                (if i == 0 { "x".to_owned() } else { format!("n{}", i - 1) }, format!("n{i}"));
            graph = graph.node(if i % 2 == 0 { "Relu" } else { "Neg" }, &[&from], &[&to], &[]);
        }
        graph.output(&format!("n{}", count - 1)).bytes()
    };
    let long = "n".repeat(1 << 20);
    vec![
        case("functions that double 40 times", Refused(&["more than the limit"]), doubling(40)),
        case("functions that double 62 times", Refused(&["more than the limit"]), doubling(62)),
        case("functions that double 6 times", Runs, doubling(6)),
        case(
            "loop of 2^62 iterations",
            Refused(&["more than the limit"]),
            looped(1 << 62, true, false),
        ),
        case(
            "loop of 2^62 stacked iterations",
            Refused(&["more than the limit"]),
            looped(1 << 62, true, true),
        ),
        case("loop that does not start", Runs, looped(1 << 62, false, false)),
        case("loop of no iterations", Runs, looped(0, true, true)),
        case("loop of -2^63 iterations", Runs, looped(i64::MIN, true, true)),
        case("loop of 3 iterations", Runs, looped(3, true, true)),
        case("branches 20 deep", Runs, nested_ifs(20)),
        case("branches 200 deep", Refused(&["damaged", "limit"]), nested_ifs(200)),
        case("5000 nodes in a row", Runs, chain(5000)),
        case(
            "name of a megabyte",
            Runs,
            x().node("Relu", &["x"], &[&long], &[]).output(&long).bytes(),
        ),
        case(
            "64 dimensions",
            Runs,
            Graph::new()
                .input("x", F32, &[1; 64])
                .node("Relu", &["x"], &["y"], &[])
                .output("y")
                .bytes(),
        ),
        case(
            "200 dimensions",
            Refused(&["rank"]),
            Graph::new()
                .input("x", F32, &[1; 200])
                .node("Relu", &["x"], &["y"], &[])
                .output("y")
                .bytes(),
        ),
    ]
}

fn shapes() -> Vec<Case> {
    let shaped = |dims: &[i64]| {
        Graph::new().input("x", F32, dims).node("Relu", &["x"], &["y"], &[]).output("y").bytes()
    };
    const LARGE: &[&str] = &["larger", "more than", "bytes"];
    vec![
        case("extent 2^63-1", Fails(LARGE), shaped(&[i64::MAX])),
        case("extents whose product overflows", Fails(LARGE), shaped(&[1 << 40, 1 << 40])),
        case("extents of 2^44 elements", Fails(LARGE), shaped(&[1 << 22, 1 << 22])),
        case("negative extent", Runs, shaped(&[-5, 3])),
        case("extent 0", Runs, shaped(&[2, 0, 3])),
        case("rank 0", Runs, shaped(&[])),
        case(
            "matmul of extents 0",
            Runs,
            Graph::new()
                .input("x", F32, &[2, 0])
                .input("w", F32, &[0, 3])
                .node("MatMul", &["x", "w"], &["y"], &[])
                .output("y")
                .bytes(),
        ),
        case(
            "convolution of an empty batch",
            Runs,
            Graph::new()
                .input("x", F32, &[0, 3, 8, 8])
                .f32s("w", &[4, 3, 3, 3], |i| i as f32)
                .node("Conv", &["x", "w"], &["y"], &[])
                .output("y")
                .bytes(),
        ),
        case(
            "matmul that does not fit",
            Refused(&["MatMul"]),
            x().f32s("w", &[4, 2], |_| 1.0)
                .node("MatMul", &["x", "w"], &["y"], &[])
                .output("y")
                .bytes(),
        ),
        case(
            "broadcast that does not fit",
            Refused(&["Add"]),
            x().f32s("w", &[4], |_| 1.0).node("Add", &["x", "w"], &["y"], &[]).output("y").bytes(),
        ),
        case(
            "types that differ",
            Refused(&["Add"]),
            x().i64s("w", &[1, 2, 3]).node("Add", &["x", "w"], &["y"], &[]).output("y").bytes(),
        ),
    ]
}

fn initializers() -> Vec<Case> {
    let graph = |t: TensorProto| x().tensor(t).node("Add", &["x", "w"], &["y"], &[]).output("y");
    let with = |t: TensorProto| graph(t).bytes();
    let f32s = |dims: &[i64], bytes: usize| tensor("w", F32, dims, vec![0; bytes]);
    let both = TensorProto { float_data: vec![1.0; 3], ..f32s(&[3], 12) };
    let neither = TensorProto { raw_data: None, ..f32s(&[3], 0) };
    let typed = TensorProto { float_data: vec![1.0; 2], ..neither.clone() };
    let missing = x().node("Add", &["x", "w"], &["y"], &[]).output("y").bytes();
    let twice = graph(f32s(&[3], 12)).tensor(f32s(&[3], 12)).bytes();
    let shadow = graph(f32s(&[3], 12)).input("w", F32, &[3]).bytes();
    let mut bad_name = graph(f32s(&[3], 12)).bytes();
    let at = bad_name.windows(3).position(|w| w == b"\x42\x01w").expect("a tensor named w");
    bad_name[at + 2] = 0xFF;
    let mut cases = vec![
        case("initializer shorter than its shape", Refused(&["expected 12"]), with(f32s(&[3], 8))),
        case("initializer longer than its shape", Refused(&["expected 12"]), with(f32s(&[3], 16))),
        case("initializer of 2^40 elements", Refused(&["\"w\""]), with(f32s(&[1 << 40], 8))),
        case(
            "initializer of overflowing shape",
            Refused(&["\"w\""]),
            with(f32s(&[1 << 40, 1 << 40], 8)),
        ),
        case("initializer of negative extent", Refused(&["negative"]), with(f32s(&[-3], 12))),
        case("initializer of 65 dimensions", Refused(&["rank"]), with(f32s(&[1; 65], 4))),
        case("initializer with raw and typed data", Refused(&["both"]), with(both)),
        case("initializer without data", Refused(&["\"w\""]), with(neither)),
        case("initializer with too little typed data", Refused(&["\"w\""]), with(typed)),
        case(
            "initializer of unknown type",
            Refused(&["data type 99"]),
            with(TensorProto { data_type: 99, ..f32s(&[3], 12) }),
        ),
        case(
            "initializer of undefined type",
            Refused(&["data type 0"]),
            with(TensorProto { data_type: 0, ..f32s(&[3], 12) }),
        ),
        case("initializer that is not there", Refused(&["\"w\""]), missing),
        case("initializer given twice", Refused(&["two initializers"]), twice),
        case("initializer that is an input too", Runs, shadow),
        case("initializer with a name that is no text", Refused(&["damaged"]), bad_name),
        case("initializer of no elements", Refused(&["[2,3] and [0]"]), with(f32s(&[0], 0))),
    ];
    for (name, entries) in EXTERNAL {
        cases.push(case(
            name,
            Refused(&["is refused"]),
            with(TensorProto { dims: vec![1, 3], ..external(entries) }),
        ));
    }
    let fits =
        TensorProto { dims: vec![3], ..external(&[("location", "w.bin"), ("length", "12")]) };
    cases.push(case("external data as it should be", Runs, with(fits)));
    cases
}

/// Entries of external data that must not be followed.
const EXTERNAL: &[(&str, &[(&str, &str)])] = &[
    ("external data in the folder above", &[("location", "../secret")]),
    ("external data of the system", &[("location", "../../../../../../etc/passwd")]),
    ("external data at an absolute path", &[("location", "/etc/passwd")]),
    ("external data through a detour", &[("location", "sub/../../secret")]),
    ("external data on a drive", &[("location", "C:\\secret")]),
    ("external data on a server", &[("location", "\\\\server\\share\\secret")]),
    ("external data without a location", &[("length", "12")]),
    ("external data at an empty location", &[("location", "")]),
    ("external data behind a link", &[("location", "link")]),
    ("external data behind a linked folder", &[("location", "out/secret")]),
    ("external data of a device", &[("location", "device")]),
    ("external data of a pipe", &[("location", "fifo")]),
    ("external data of a folder", &[("location", "sub")]),
    ("external data with a NUL", &[("location", "w.bin\0")]),
    ("external data that is not there", &[("location", "none.bin")]),
    ("external data past the end", &[("location", "w.bin"), ("offset", "8")]),
    (
        "external data at an overflowing offset",
        &[("location", "w.bin"), ("offset", "18446744073709551612")],
    ),
    ("external data at a negative offset", &[("location", "w.bin"), ("offset", "-4")]),
    ("external data of another length", &[("location", "w.bin"), ("length", "4")]),
    (
        "external data of a number too large",
        &[("location", "w.bin"), ("length", "99999999999999999999")],
    ),
    ("external data in memory", &[("location", "*/_ORT_MEM_ADDR_/*"), ("offset", "4096")]),
];

/// A varint.
fn varint(mut v: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while v >= 0x80 {
        bytes.push(v as u8 | 0x80);
        v >>= 7;
    }
    bytes.push(v as u8);
    bytes
}

fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn protobuf() -> Vec<Case> {
    let valid = x().node("Relu", &["x"], &["y"], &[]).output("y").bytes();
    let mut nested = Vec::new();
    for _ in 0..10_000 {
        // A graph in an attribute of a node of a graph.
        nested = field(1, &field(5, &field(6, &nested)));
        if nested.len() > 1 << 18 {
            break;
        }
    }
    let claim = [varint(7 << 3 | 2), varint(1 << 31), vec![0; 90]].concat();
    let unknown = [valid.clone(), [0xF8, 0x07, 0x01].repeat(1_000_000)].concat();
    let overlong = [vec![0x08], vec![0x80; 10], vec![0x01], valid.clone()].concat();
    let cut = valid[..valid.len() - 5].to_vec();
    let group = [valid.clone(), vec![0xFB, 0x07, 0xFC, 0x07]].concat();
    vec![
        case(
            "nesting without end",
            Refused(&["damaged"]),
            [vec![0x08, 8], field(7, &nested)].concat(),
        ),
        case(
            "length past the end",
            Refused(&["damaged"]),
            [valid.clone(), vec![0x3A, 0x7F, 0]].concat(),
        ),
        case("claim of 2 GiB", Refused(&["damaged"]), [vec![0x08, 8], claim].concat()),
        case("a million unknown fields", Runs, unknown),
        case("overlong number", Refused(&["damaged"]), overlong),
        case("file that is cut", Refused(&["damaged", "given by no node"]), cut),
        case("unknown group", Runs, group),
        case("tag 0", Refused(&["damaged"]), [valid.clone(), vec![0x00]].concat()),
        case("wire type 7", Refused(&["damaged"]), [valid, vec![0x3F]].concat()),
        case("empty file", Refused(&["read:"]), Vec::new()),
        case("file of zeros", Refused(&["read:"]), vec![0; 4096]),
        case("file of ones", Refused(&["read:"]), vec![0xFF; 4096]),
        case(
            "no graph",
            Refused(&["no graph"]),
            ModelProto { ir_version: Some(8), ..ModelProto::default() }.encode_to_vec(),
        ),
        case("no nodes", Runs, Graph::new().model(17).encode_to_vec()),
    ]
}

fn operators() -> Vec<Case> {
    let relu =
        |opset: i64| x().node("Relu", &["x"], &["y"], &[]).output("y").model(opset).encode_to_vec();
    let mut twice = x().node("Relu", &["x"], &["y"], &[]).output("y").model(17);
    twice.opset_import.push(twice.opset_import[0].clone());
    let mut differ = twice.clone();
    differ.opset_import[0].version = 16;
    let mut none = x().node("Relu", &["x"], &["y"], &[]).output("y").model(17);
    none.opset_import.clear();
    vec![
        case(
            "unknown operator",
            Refused(&["ai.onnx::Reluu of opset 17 (node \"y\")"]),
            x().node("Reluu", &["x"], &["y"], &[]).output("y").bytes(),
        ),
        case(
            "unknown operator with a neighbour",
            Refused(&["nearest known: ai.onnx::Relu"]),
            x().node("Reluu", &["x"], &["z"], &[]).output("z").bytes(),
        ),
        case(
            "unknown domain",
            Refused(&["org.nobody::Relu"]),
            x().node("Relu", &["x"], &["y"], &[]).domain("org.nobody").output("y").bytes(),
        ),
        case(
            "operator of a later opset",
            Refused(&["opset 7", "since opset 18"]),
            x().node("Mish", &["x"], &["y"], &[]).output("y").model(7).encode_to_vec(),
        ),
        case("opset 0", Refused(&["opset 0"]), relu(0)),
        case("opset -1", Refused(&["opset -1"]), relu(-1)),
        case("opset 999", Refused(&["opset 999"]), relu(999)),
        case("opset 2^63-1", Refused(&["opset 9223372036854775807"]), relu(i64::MAX)),
        case("opset given twice", Runs, twice.encode_to_vec()),
        case(
            "opsets that differ",
            Refused(&["opsets 16 and 17 of ai.onnx"]),
            differ.encode_to_vec(),
        ),
        case("opset not given", Refused(&["not imported"]), none.encode_to_vec()),
        case(
            "operator without inputs",
            Refused(&["Relu"]),
            x().node("Relu", &[], &["y"], &[]).output("y").bytes(),
        ),
        case(
            "operator with too many inputs",
            Refused(&["has 3 inputs, expected at most 1"]),
            x().node("Relu", &["x", "x", "x"], &["y"], &[]).output("y").bytes(),
        ),
        case(
            "operator with too many outputs",
            Refused(&["output 1"]),
            x().node("Relu", &["x"], &["y", "z"], &[]).output("z").bytes(),
        ),
        case(
            "attribute of another type",
            Refused(&["Transpose"]),
            x().node("Transpose", &["x"], &["y"], &[int("perm", 3)]).output("y").bytes(),
        ),
        case(
            "loop without a body",
            Refused(&["body"]),
            x().i64("n", 3).node("Loop", &["n", "", "x"], &["y"], &[]).output("y").bytes(),
        ),
        case("branch without a condition", Refused(&["If"]), {
            let mut graph = x().output("y");
            graph.0.node.push(NodeProto { input: Vec::new(), ..if_node(branch("x")) });
            graph.bytes()
        }),
        case("branch that gives too little", Refused(&["If", "output"]), {
            let mut graph = x().input("c", BOOL, &[]).output("y");
            graph.0.node.push(if_node(Graph::new().node("Relu", &["x"], &["b"], &[])));
            graph.bytes()
        }),
        case(
            "two inputs of a name",
            Refused(&["two inputs"]),
            x().input("x", F32, &[2, 3]).node("Relu", &["x"], &["y"], &[]).output("y").bytes(),
        ),
        case("input of unknown type", Refused(&["unknown data type"]), {
            let mut graph = Graph::new().node("Relu", &["x"], &["y"], &[]).output("y");
            graph.0.input.push(value_info("x", 77, &[2]));
            graph.bytes()
        }),
        case(
            "permutation of another file's input",
            Refused(&["Transpose"]),
            x().node("Transpose", &["x"], &["y"], &[ints("perm", &[0, 5])]).output("y").bytes(),
        ),
    ]
}

pub(crate) fn all() -> Vec<Case> {
    [cycles(), growth(), shapes(), initializers(), protobuf(), operators()]
        .into_iter()
        .flatten()
        .collect()
}

/// Cases that are read from bytes, without a folder.
pub(crate) fn from_bytes() -> Vec<Case> {
    let with = |entries: &[(&str, &str)]| {
        let t = TensorProto { dims: vec![3], ..external(entries) };
        x().tensor(t).node("Add", &["x", "w"], &["y"], &[]).output("y").bytes()
    };
    vec![
        case(
            "external data without a folder",
            Refused(&["is refused"]),
            with(&[("location", "w.bin"), ("length", "12")]),
        ),
        case(
            "external data of the system without a folder",
            Refused(&["is refused"]),
            with(&[("location", "/etc/passwd")]),
        ),
    ]
}
