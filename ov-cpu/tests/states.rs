//! Stateful models of OpenVINO IR: values that live from one inference to the next, on the CPU and on the reference.

use ov_core::{
    CompiledModel, Core, ElementType, InferRequest, PropertyMap, Tensor, frontend::ReadOptions,
    testing::template_device::TemplatePlugin,
};
use ov_cpu as _;

/// A layer of a file: id, type, opset, attributes, the layers whose first output it reads.
type Layer<'a> = (u32, &'a str, u32, &'a str, &'a [u32]);

fn xml(layers: &[Layer<'_>]) -> Vec<u8> {
    let mut text = "<?xml version=\"1.0\"?><net name=\"m\" version=\"11\"><layers>".to_owned();
    let mut edges = String::new();
    for (id, kind, opset, attributes, inputs) in layers {
        text += &format!(
            "<layer id=\"{id}\" name=\"n{id}\" type=\"{kind}\" version=\"opset{opset}\"><data {attributes}/><input>"
        );
        for (port, from) in inputs.iter().enumerate() {
            text += &format!("<port id=\"{port}\"/>");
            edges += &format!(
                "<edge from-layer=\"{from}\" from-port=\"9\" to-layer=\"{id}\" to-port=\"{port}\"/>"
            );
        }
        text += "</input>";
        if *kind != "Result" {
            text += "<output><port id=\"9\"/></output>";
        }
        text += "</layer>";
    }
    (text + "</layers><edges>" + &edges + "</edges></net>").into_bytes()
}

const X: Layer<'_> = (0, "Parameter", 1, "shape=\"1,2\" element_type=\"f32\"", &[]);
const VARIABLE: &str = "variable_id=\"v\" variable_type=\"f32\" variable_shape=\"1,2\"";
const ASSIGN: &str = "variable_id=\"v\"";

/// `y = x + v`, and `v = y` after it.
fn sum(read: Layer<'_>, assign: u32) -> Vec<u8> {
    xml(&[
        X,
        read,
        (2, "Add", 1, "", &[0, 1]),
        (3, "Result", 1, "", &[2]),
        (4, "Assign", assign, ASSIGN, &[2]),
    ])
}

fn read(bytes: &[u8]) -> ov_core::Result<ov_core::Model> {
    let core = Core::with_plugins([TemplatePlugin::create()])?;
    core.read_model_from_bytes(bytes.to_vec(), &ReadOptions::default())
}

/// The model on each device, and imported from a blob.
fn compiled(bytes: &[u8]) -> Vec<CompiledModel> {
    let none = PropertyMap::new();
    let mut all = Vec::new();
    for (core, device) in [
        (Core::new().expect("devices"), "CPU"),
        (Core::with_plugins([TemplatePlugin::create()]).expect("devices"), "TEMPLATE"),
    ] {
        let model = read(bytes).expect("sound");
        let compiled = core.compile_model(model, device, &none).expect("compiles");
        let mut blob = Vec::new();
        compiled.export(&mut blob).expect("exports");
        let imported =
            core.import_model_from_stream(&mut &blob[..], device, &none).expect("imports");
        all.extend([compiled, imported]);
    }
    all
}

fn run(request: &mut InferRequest, x: &[f32]) -> Vec<f32> {
    let x = Tensor::from_vec([x.len() / 2, 2], x.to_vec()).expect("fits");
    let y = request.run(&[x]).expect("runs");
    y[0].as_slice::<f32>().expect("f32").to_vec()
}

fn state(request: &InferRequest) -> (Vec<usize>, Vec<f32>) {
    let value = request.state("v").expect("there");
    (value.shape().to_vec(), value.as_slice::<f32>().expect("f32").to_vec())
}

#[test]
fn a_value_is_carried_from_one_inference_to_the_next() {
    let zero = (1, "ReadValue", 6, VARIABLE, &[][..]);
    for compiled in compiled(&sum(zero, 6)) {
        assert_eq!(compiled.inputs().len(), 1, "variables are no inputs");
        assert_eq!(compiled.outputs().len(), 1, "variables are no outputs");
        let mut request = compiled.create_infer_request().expect("memory");
        let mut other = compiled.create_infer_request().expect("memory");
        assert_eq!(compiled.state_names(), ["v"]);
        for step in 1..=4 {
            let expected = [step as f32, 2.0 * step as f32];
            assert_eq!(run(&mut request, &[1.0, 2.0]), expected);
            assert_eq!(state(&request), (vec![1, 2], expected.to_vec()));
        }
        assert_eq!(run(&mut other, &[5.0, 6.0]), [5.0, 6.0], "requests share no state");
        let held = request.state("v").expect("there");
        run(&mut request, &[1.0, 2.0]);
        assert_eq!(held.as_slice::<f32>().expect("f32"), [4.0, 8.0], "what was asked for stays");
        let value = Tensor::from_vec([1, 2], vec![10.0f32, 20.0]).expect("fits");
        request.set_state("v", &value).expect("fits");
        assert_eq!(run(&mut request, &[1.0, 2.0]), [11.0, 22.0]);
        assert_eq!(value.as_slice::<f32>().expect("f32"), [10.0, 20.0]);
        request.reset_states().expect("idle");
        assert_eq!(state(&request).1, [0.0, 0.0]);
        assert_eq!(run(&mut request, &[1.0, 2.0]), [1.0, 2.0]);
        assert!(request.state("w").is_err_and(|e| e.to_string().contains("it has v")));
        let wide = Tensor::from_vec([2, 2], vec![0.0f32; 4]).expect("fits");
        assert!(request.set_state("v", &wide).is_err());
    }
}

#[test]
fn an_initial_value_is_computed_until_something_is_assigned() {
    // v starts as x, in the forms of opset 6 and of opset 3, which takes type and shape from there.
    for read in [(1, "ReadValue", 6, VARIABLE, &[0][..]), (1, "ReadValue", 3, ASSIGN, &[0])] {
        for compiled in compiled(&sum(read, read.2)) {
            let mut request = compiled.create_infer_request().expect("memory");
            for _ in 0..2 {
                assert_eq!(run(&mut request, &[1.0, 2.0]), [2.0, 4.0]);
                assert_eq!(run(&mut request, &[1.0, 1.0]), [3.0, 5.0]);
                assert_eq!(run(&mut request, &[0.0, 1.0]), [3.0, 6.0]);
                request.reset_states().expect("idle");
            }
            let value = Tensor::from_vec([1, 2], vec![7.0f32, 8.0]).expect("fits");
            request.set_state("v", &value).expect("fits");
            assert_eq!(run(&mut request, &[1.0, 2.0]), [8.0, 10.0], "what was set comes first");
        }
    }
}

/// `y = concat(v, x)`, and `v = y` after it: what keys and values of attention do.
fn growing(inputs: &[u32]) -> Vec<u8> {
    xml(&[
        (0, "Parameter", 1, "shape=\"?,2\" element_type=\"f32\"", &[]),
        (
            1,
            "ReadValue",
            6,
            "variable_id=\"v\" variable_type=\"f32\" variable_shape=\"?,2\"",
            inputs,
        ),
        (2, "Concat", 1, "axis=\"0\"", &[1, 0]),
        (3, "Result", 1, "", &[2]),
        (4, "Assign", 6, ASSIGN, &[2]),
    ])
}

#[test]
fn a_value_grows() {
    for (inputs, first) in [(&[][..], vec![1.0, 2.0]), (&[0], vec![1.0, 2.0, 1.0, 2.0])] {
        for compiled in compiled(&growing(inputs)) {
            let mut request = compiled.create_infer_request().expect("memory");
            for _ in 0..2 {
                let mut expected = first.clone();
                assert_eq!(run(&mut request, &[1.0, 2.0]), expected);
                for step in 0..5 {
                    let x = vec![step as f32; 2 * (step % 3)];
                    expected.extend(&x);
                    assert_eq!(run(&mut request, &x), expected);
                    assert_eq!(state(&request), (vec![expected.len() / 2, 2], expected.clone()));
                }
                request.reset_states().expect("idle");
            }
        }
    }
}

#[test]
fn values_of_half_precision() {
    let variable = "variable_id=\"v\" variable_type=\"f16\" variable_shape=\"1,2\"";
    let bytes = xml(&[
        (0, "Parameter", 1, "shape=\"1,2\" element_type=\"f16\"", &[]),
        (1, "ReadValue", 6, variable, &[0]),
        (2, "Add", 1, "", &[0, 1]),
        (3, "Result", 1, "", &[2]),
        (4, "Assign", 6, ASSIGN, &[2]),
    ]);
    for compiled in compiled(&bytes) {
        let mut request = compiled.create_infer_request().expect("memory");
        let x = Tensor::from_vec([1, 2], vec![0.5f32, 1.0]).expect("fits");
        let x = x.cast(ElementType::F16).expect("numbers");
        for step in 2..5 {
            let y = request.run(std::slice::from_ref(&x)).expect("runs");
            let y = y[0].cast(ElementType::F32).expect("numbers");
            assert_eq!(y.as_slice::<f32>().expect("f32"), [0.5 * step as f32, step as f32]);
            assert_eq!(request.state("v").expect("there").element_type(), ElementType::F16);
        }
    }
}

#[test]
fn a_value_that_is_only_read_stays() {
    let bytes = xml(&[
        X,
        (1, "ReadValue", 6, VARIABLE, &[0]),
        (2, "Add", 1, "", &[0, 1]),
        (3, "Result", 1, "", &[2]),
    ]);
    for compiled in compiled(&bytes) {
        let mut request = compiled.create_infer_request().expect("memory");
        assert_eq!(run(&mut request, &[1.0, 2.0]), [2.0, 4.0]);
        assert_eq!(run(&mut request, &[3.0, 3.0]), [4.0, 5.0]);
    }
}

#[test]
fn an_inference_that_fails_leaves_the_value() {
    // y = v + gather(x, i) fails for an index outside: i is data.
    let bytes = xml(&[
        (0, "Parameter", 1, "shape=\"1,2\" element_type=\"f32\"", &[]),
        (5, "Parameter", 1, "shape=\"1,2\" element_type=\"i64\"", &[]),
        (1, "ReadValue", 6, VARIABLE, &[]),
        (6, "GatherElements", 6, "axis=\"1\"", &[0, 5]),
        (2, "Add", 1, "", &[6, 1]),
        (3, "Result", 1, "", &[2]),
        (4, "Assign", 6, ASSIGN, &[2]),
    ]);
    for compiled in compiled(&bytes) {
        let mut request = compiled.create_infer_request().expect("memory");
        let x = Tensor::from_vec([1, 2], vec![1.0f32, 2.0]).expect("fits");
        let mut attempt = |i: [i64; 2]| {
            let i = Tensor::from_vec([1, 2], i.to_vec()).expect("fits");
            request.run(&[x.clone(), i]).map(|y| y[0].as_slice::<f32>().expect("f32").to_vec())
        };
        assert_eq!(attempt([0, 1]).expect("runs"), [1.0, 2.0]);
        assert!(attempt([0, 9]).is_err());
        assert_eq!(attempt([1, 0]).expect("runs"), [3.0, 3.0]);
    }
}

#[test]
fn contradictions_are_refused() {
    let zero = (1, "ReadValue", 6, VARIABLE, &[][..]);
    let add = (2, "Add", 1, "", &[0, 1][..]);
    let result = (3, "Result", 1, "", &[2][..]);
    let assign = (4, "Assign", 6, ASSIGN, &[2][..]);
    let other = "variable_id=\"v\" variable_type=\"i32\" variable_shape=\"1,2\"";
    let longer = "variable_id=\"v\" variable_type=\"f32\" variable_shape=\"1,3\"";
    for (layers, says) in [
        (vec![X, zero, add, result, (4, "Assign", 6, "variable_id=\"w\"", &[2])], "no ReadValue"),
        (vec![X, zero, add, result, assign, (5, "Assign", 6, ASSIGN, &[0])], "assigns variable"),
        (vec![X, zero, add, result, (5, "ReadValue", 6, VARIABLE, &[])], "two layers"),
        (vec![X, (1, "ReadValue", 6, "", &[]), add, result, assign], "variable_id"),
        (vec![X, (1, "ReadValue", 6, ASSIGN, &[]), add, result, assign], "variable_type"),
        (vec![X, zero, add, result, (4, "Assign", 6, ASSIGN, &[])], "no input"),
        (vec![X, (1, "ReadValue", 6, longer, &[0]), add, result, assign], "[1,3]"),
        (
            vec![X, (1, "ReadValue", 6, other, &[]), (2, "Add", 1, "", &[0, 0]), result, assign],
            "it is assigned f32[1,2]",
        ),
    ] {
        let error = read(&xml(&layers)).expect_err(says).to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }
}
