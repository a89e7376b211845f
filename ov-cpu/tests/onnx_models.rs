//! ONNX models of forms that exporters write, from file to result, on the CPU and on the reference.

#[path = "hostile/graph.rs"]
#[allow(dead_code, reason = "the hostile models use more of it")]
mod graph;

use std::path::Path;

use graph::{Attr, BOOL, F32, Graph, I64, call, external, function, int, node, tensor};
use ov_core::{
    Core, ElementType, PropertyMap, Tensor,
    frontend::{ReadOptions, onnx::proto::ModelProto},
    testing::template_device::TemplatePlugin,
};
use ov_cpu as _;
use prost::Message as _;

const F16: i32 = 10;

/// The outputs of a model on each device.
fn results(bytes: &[u8], inputs: &[Tensor]) -> [Vec<Tensor>; 2] {
    let cpu = Core::new().expect("devices");
    let reference = Core::with_plugins([TemplatePlugin::create()]).expect("devices");
    [(cpu, "CPU"), (reference, "TEMPLATE")].map(|(core, device)| {
        let model =
            core.read_model_from_bytes(bytes.to_vec(), &ReadOptions::default()).expect("reads");
        let compiled = core.compile_model(model, device, &PropertyMap::new()).expect("compiles");
        let mut request = compiled.create_infer_request().expect("memory");
        // Twice: the second time with plans and memory of the first.
        request.run(inputs).expect("runs");
        request.run(inputs).expect("runs")
    })
}

fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_vec(shape, values.to_vec()).expect("fits")
}

fn check(name: &str, bytes: &[u8], inputs: &[Tensor], shape: &[usize], expected: &[f32]) {
    for outputs in results(bytes, inputs) {
        let y = outputs[0].cast(ElementType::F32).expect("numbers");
        assert_eq!(y.shape().to_vec(), shape, "{name}");
        assert_eq!(y.as_slice::<f32>().expect("f32"), expected, "{name}");
    }
}

#[test]
fn half_precision_inside_and_outside() {
    let halves = |values: &[f32]| {
        let values = f32s(&[values.len()], values).cast(ElementType::F16).expect("numbers");
        tensor("w", F16, &[2, 2], values.bytes().to_vec())
    };
    let weights = || halves(&[1.0, 2.0, -3.0, 0.5]);
    let x = f32s(&[1, 2], &[1.5, -2.0]);
    let inside = Graph::new()
        .input("x", F32, &[-1, 2])
        .tensor(weights())
        .node("Cast", &["x"], &["h"], &[int("to", F16.into())])
        .node("MatMul", &["h", "w"], &["p"], &[])
        .node("Relu", &["p"], &["r"], &[])
        .node("Cast", &["r"], &["y"], &[int("to", 1)])
        .output("y")
        .bytes();
    check("f16 inside", &inside, std::slice::from_ref(&x), &[1, 2], &[7.5, 2.0]);
    let outside = Graph::new()
        .input("x", F16, &[1, 2])
        .tensor(weights())
        .node("Cast", &["x"], &["f"], &[int("to", 1)])
        .node("Cast", &["w"], &["g"], &[int("to", 1)])
        .node("MatMul", &["f", "g"], &["p"], &[])
        .node("Cast", &["p"], &["y"], &[int("to", F16.into())])
        .output("y")
        .bytes();
    let x = x.cast(ElementType::F16).expect("numbers");
    for outputs in results(&outside, std::slice::from_ref(&x)) {
        assert_eq!(outputs[0].element_type(), ElementType::F16);
    }
    check("f16 outside", &outside, &[x], &[1, 2], &[7.5, 2.0]);
}

/// `y` is `x` through one of two graphs, and then negated.
fn choice(then: Graph, other: Graph) -> Vec<u8> {
    let branches = [Attr::Graph("then_branch", then), Attr::Graph("else_branch", other)];
    Graph::new()
        .input("c", BOOL, &[])
        .input("x", F32, &[2, 2])
        .node("If", &["c"], &["z"], &branches)
        .node("Neg", &["z"], &["y"], &[])
        .output("y")
        .bytes()
}

#[test]
fn branches_of_different_shapes() {
    let longer = Graph::new().node("Concat", &["x", "x"], &["b"], &[int("axis", 0)]).output("b");
    let total = Graph::new().node("ReduceSum", &["x"], &["b"], &[int("keepdims", 0)]).output("b");
    let bytes = choice(longer, total);
    let x = f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let flag = |c: bool| Tensor::from_bools([], &[c]).expect("fits");
    let twice = [-1.0, -2.0, -3.0, -4.0, -1.0, -2.0, -3.0, -4.0];
    check("then", &bytes, &[flag(true), x.clone()], &[4, 2], &twice);
    check("else", &bytes, &[flag(false), x], &[], &[-10.0]);
}

/// A loop that carries `x` and stacks twice of it in each of `n` iterations.
fn stacking() -> Vec<u8> {
    let body = Graph::new()
        .input("i", I64, &[])
        .input("go", BOOL, &[])
        .input("v", F32, &[2])
        .node("Identity", &["go"], &["on"], &[])
        .node("Add", &["v", "v"], &["next"], &[])
        .node("Identity", &["next"], &["piece"], &[])
        .output("on")
        .output("next")
        .output("piece");
    Graph::new()
        .input("n", I64, &[])
        .input("x", F32, &[2])
        .node("Loop", &["n", "", "x"], &["last", "all"], &[Attr::Graph("body", body)])
        .node("Concat", &["all", "all"], &["y"], &[int("axis", 0)])
        .output("y")
        .output("last")
        .bytes()
}

#[test]
fn loops_that_do_not_run_stack_nothing() {
    let bytes = stacking();
    let x = f32s(&[2], &[1.0, 2.0]);
    let count = |n: i64| Tensor::scalar(n);
    check("no iteration", &bytes, &[count(0), x.clone()], &[0, 2], &[]);
    check("less than none", &bytes, &[count(-3), x.clone()], &[0, 2], &[]);
    let twice = [2.0, 4.0, 4.0, 8.0, 2.0, 4.0, 4.0, 8.0];
    check("two", &bytes, &[count(2), x.clone()], &[4, 2], &twice);
    for outputs in results(&bytes, &[count(0), x.clone()]) {
        assert_eq!(outputs[1], x);
    }
}

#[test]
fn sequences_grow_inside_of_loops() {
    let body = Graph::new()
        .input("i", I64, &[])
        .input("go", BOOL, &[])
        .input("s", F32, &[])
        .node("Identity", &["go"], &["on"], &[])
        .node("Cast", &["i"], &["f"], &[int("to", 1)])
        .node("Mul", &["x", "f"], &["p"], &[])
        .node("SequenceInsert", &["s", "p"], &["longer"], &[])
        .output("on")
        .output("longer");
    let mut body = body;
    // The carried value is a sequence: its type is that of what comes in.
    body.0.input[2].r#type = None;
    let bytes = Graph::new()
        .input("n", I64, &[])
        .input("x", F32, &[1, 2])
        .node("SequenceEmpty", &[], &["none"], &[])
        .node("SequenceInsert", &["none", "x"], &["first"], &[])
        .node("Loop", &["n", "", "first"], &["s"], &[Attr::Graph("body", body)])
        .node("ConcatFromSequence", &["s"], &["y"], &[int("axis", 0)])
        .output("y")
        .bytes();
    let x = f32s(&[1, 2], &[1.0, 2.0]);
    let rows = [1.0, 2.0, 0.0, 0.0, 1.0, 2.0, 2.0, 4.0];
    for n in [0, 1, 3] {
        let expected = &rows[..2 * (n + 1)];
        let inputs = [Tensor::scalar(n as i64), x.clone()];
        check(&format!("{n} items"), &bytes, &inputs, &[n + 1, 2], expected);
    }
}

#[test]
fn optional_inputs_that_functions_do_not_get() {
    let clip = |inputs: &[&str]| {
        let mut f = function("f", vec![node("Clip", &["x", "low", "high"], &["y"], &[])]);
        f.input = ["x", "low", "high"].map(str::to_owned).to_vec();
        let mut call = call("f", "x", "y");
        call.input = inputs.iter().map(|i| (*i).to_owned()).collect();
        let mut graph = Graph::new()
            .input("x", F32, &[3])
            .tensor(tensor("a", F32, &[], (-1f32).to_le_bytes().to_vec()))
            .tensor(tensor("b", F32, &[], 1f32.to_le_bytes().to_vec()))
            .output("y");
        graph.0.node.push(call);
        ModelProto { functions: vec![f], ..graph.model(17) }.encode_to_vec()
    };
    let x = f32s(&[3], &[-5.0, 0.5, 5.0]);
    for (inputs, expected) in [
        (&["x"][..], [-5.0, 0.5, 5.0]),
        (&["x", "a"], [-1.0, 0.5, 5.0]),
        (&["x", "", "b"], [-5.0, 0.5, 1.0]),
        (&["x", "a", "b"], [-1.0, 0.5, 1.0]),
    ] {
        check(&format!("{inputs:?}"), &clip(inputs), std::slice::from_ref(&x), &[3], &expected);
    }
}

/// Reads and runs `y = x + w` with four values of `w` in another file.
fn with_external(folder: &Path, entries: &[(&str, &str)]) -> ov_core::Result<Vec<f32>> {
    let path = folder.join("model.onnx");
    let graph = Graph::new()
        .input("x", F32, &[4])
        .tensor(external(entries))
        .node("Add", &["x", "w"], &["y"], &[])
        .output("y");
    std::fs::write(&path, graph.bytes()).expect("written");
    let core = Core::new()?;
    let compiled = core.compile_model(path.as_path(), "CPU", &PropertyMap::new())?;
    let mut request = compiled.create_infer_request()?;
    let y = request.run(&[f32s(&[4], &[0.0; 4])])?;
    Ok(y[0].as_slice::<f32>()?.to_vec())
}

#[test]
fn weights_lie_where_the_file_says() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let values: Vec<u8> = (0..16).flat_map(|i| (i as f32).to_le_bytes()).collect();
    std::fs::create_dir(folder.path().join("sub")).expect("made");
    for file in ["w.bin", "sub/w.bin"] {
        std::fs::write(folder.path().join(file), &values).expect("written");
    }
    std::fs::write(folder.path().join("short.bin"), &values[..15]).expect("written");
    std::fs::write(folder.path().join("empty.bin"), []).expect("written");
    for (entries, first) in [
        (&[("location", "w.bin"), ("length", "16")][..], 0.0),
        (&[("location", "w.bin"), ("offset", "16"), ("length", "16")], 4.0),
        (&[("location", "sub/w.bin"), ("offset", "48")], 12.0),
        // Odd places are read too.
        (&[("location", "w.bin"), ("offset", "4"), ("length", "16")], 1.0),
    ] {
        let expected: Vec<f32> = (0..4).map(|i| first + i as f32).collect();
        assert_eq!(with_external(folder.path(), entries).expect("reads"), expected, "{entries:?}");
    }
    for (entries, says) in [
        (&[("location", "none.bin"), ("length", "16")][..], "none.bin"),
        (&[("location", "short.bin"), ("length", "16")], "short.bin"),
        (&[("location", "short.bin")], "short.bin"),
        (&[("location", "empty.bin"), ("length", "16")], "empty.bin"),
        (&[("location", "w.bin"), ("offset", "52"), ("length", "16")], "w.bin"),
        (&[("location", "w.bin"), ("offset", "64")], "w.bin"),
        (&[("location", "w.bin"), ("length", "12")], "w.bin"),
        (&[("location", "sub"), ("length", "16")], "sub"),
    ] {
        let error = with_external(folder.path(), entries).expect_err(says).to_string();
        assert!(error.contains(says), "{entries:?}: {error:?} does not name {says:?}");
    }
}
