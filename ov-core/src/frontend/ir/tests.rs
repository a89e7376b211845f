//! Tests of the IR reader.

use bytes::Bytes;

use super::read;
use crate::{Tensor, op::activation::Elu, reference::evaluate};

const SMALL: &str = r#"<?xml version="1.0"?>
<net name="small" version="11">
  <layers>
    <layer id="7" name="out" type="Result" version="opset1"><input><port id="0"/></input></layer>
    <layer id="0" name="x" type="Parameter" version="opset1">
      <data shape="?,3" element_type="f32"/>
      <output><port id="0" precision="FP32" names="tokens,x:0"><dim>-1</dim><dim>3</dim></port></output>
    </layer>
    <layer id="3" name="elu" type="Elu" version="opset1">
      <data alpha="0.5"/>
      <input><port id="0"/></input>
      <output><port id="1" names="y"/></output>
    </layer>
    <layer id="4" name="c" type="Const" version="opset1">
      <data element_type="f32" shape="2, 1" offset="3" size="8"/>
      <output><port id="0"/></output>
    </layer>
    <layer id="5" name="out_c" type="Result" version="opset1"><input><port id="0"/></input></layer>
  </layers>
  <edges>
    <edge from-layer="3" from-port="1" to-layer="7" to-port="0"/>
    <edge from-layer="0" from-port="0" to-layer="3" to-port="0"/>
    <edge from-layer="4" from-port="0" to-layer="5" to-port="0"/>
  </edges>
</net>"#;

fn weights() -> Bytes {
    let mut bytes = vec![9; 3];
    bytes.extend([1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()));
    bytes.into()
}

#[test]
fn reads_layers_in_any_order_with_names_and_unaligned_constants() {
    let model = read(SMALL.as_bytes(), "small.xml", Some(weights())).expect("sound");
    assert_eq!(model.name(), "small");
    assert_eq!(model.input_name(0), "tokens");
    assert_eq!(model.shape(model.parameters()[0].into()).to_string(), "[?,3]");
    let names: Vec<&str> = model.outputs().iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names, ["y", "out_c"]);
    let elu = model.nodes().find_map(|(_, n)| n.op_as::<Elu>()).expect("an Elu");
    assert!((elu.alpha - 0.5).abs() < 1e-12);
    let x = Tensor::from_vec([1, 3], vec![1.0f32, 0.0, -1.0]).expect("fits");
    let outputs = evaluate(&model, &[x]).expect("runs");
    assert_eq!(outputs[1], Tensor::from_vec([2, 1], vec![1.5f32, -2.0]).expect("fits"));
    let y = outputs[0].as_slice::<f32>().expect("f32");
    assert!((y[2] - 0.5 * (-1.0f32).exp_m1()).abs() < 1e-6, "{y:?}");
}

#[test]
fn a_constant_without_elements_may_claim_a_byte() {
    let text = SMALL
        .replace("shape=\"2, 1\" offset=\"3\" size=\"8\"", "shape=\"0\" offset=\"3\" size=\"1\"");
    let model = read(text.as_bytes(), "small.xml", Some(weights())).expect("sound");
    assert_eq!(model.shape(model.outputs()[1].value).to_string(), "[0]");
}

#[test]
fn damaged_files_are_refused_with_the_place() {
    for (from, to, expected) in [
        ("</net>", "", "IR model small.xml is damaged"),
        ("<net ", "<nett ", "IR model small.xml is damaged"),
        ("version=\"11\"", "version=\"12\"", "IR version 12, expected 10 or 11"),
        (
            "type=\"Elu\"",
            "type=\"Elo\"",
            "operator openvino::Elo of opset 1 (node \"elu\") is not supported",
        ),
        ("alpha=\"0.5\"", "alpha=\"x\"", "attribute alpha is \"x\", expected a number"),
        ("offset=\"3\"", "offset=\"4\"", "8 bytes at 4 of weights of 11 bytes"),
        ("size=\"8\"", "size=\"18446744073709551615\"", "bytes at 3 of weights of 11 bytes"),
        ("shape=\"2, 1\"", "shape=\"3\"", "f32[3] does not take 8 bytes"),
        ("shape=\"2, 1\"", "shape=\"?\"", "its shape is not static"),
        (
            "element_type=\"f32\" shape=\"2",
            "element_type=\"f33\" shape=\"2",
            "unknown element type",
        ),
        ("from-layer=\"0\"", "from-layer=\"9\"", "an edge names layer 9, which does not exist"),
        ("from-layer=\"0\"", "from-layer=\"3\"", "has no output port 0"),
        (
            "from-layer=\"0\" from-port=\"0\"",
            "from-layer=\"3\" from-port=\"1\"",
            "a cycle through \"elu\"",
        ),
        ("id=\"7\"", "id=\"0\"", "two layers have the same id"),
        ("to-layer=\"3\"", "to-layer=\"7\"", "has two edges"),
        (
            "<edge from-layer=\"3\" from-port=\"1\" to-layer=\"7\" to-port=\"0\"/>",
            "",
            "has no edge",
        ),
    ] {
        assert!(SMALL.contains(from), "{from}");
        let text = SMALL.replacen(from, to, 1);
        let error = read(text.as_bytes(), "small.xml", Some(weights())).expect_err(to).to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
    let error = read(SMALL.as_bytes(), "small.xml", None).expect_err("no weights").to_string();
    assert!(error.contains("put the .bin file beside the .xml file"), "{error}");
}

#[test]
fn branches_of_if_are_read() {
    let branch = |op: &str| {
        format!(
            r#"<layers>
              <layer id="0" name="a" type="Parameter" version="opset1"><data shape="2" element_type="f32"/>
                <output><port id="0"/></output></layer>
              <layer id="1" name="f" type="{op}" version="opset1"><input><port id="0"/></input><output><port id="1"/></output></layer>
              <layer id="2" name="r" type="Result" version="opset1"><input><port id="0"/></input></layer>
            </layers><edges>
              <edge from-layer="0" from-port="0" to-layer="1" to-port="0"/>
              <edge from-layer="1" from-port="1" to-layer="2" to-port="0"/></edges>"#
        )
    };
    let map = r#"<input external_port_id="1" internal_layer_id="0"/><output external_port_id="2" internal_layer_id="2"/>"#;
    let (then, other) = (branch("ReLU"), branch("Elu"));
    let text = format!(
        r#"<net name="m" version="11"><layers>
          <layer id="0" name="c" type="Parameter" version="opset1"><data shape="" element_type="boolean"/><output><port id="0"/></output></layer>
          <layer id="1" name="x" type="Parameter" version="opset1"><data shape="2" element_type="f32"/><output><port id="0"/></output></layer>
          <layer id="2" name="if" type="If" version="opset8">
            <input><port id="0"/><port id="1"/></input><output><port id="2"/></output>
            <then_port_map>{map}</then_port_map><else_port_map>{map}</else_port_map>
            <then_body>{then}</then_body><else_body>{other}</else_body>
          </layer>
          <layer id="3" name="y" type="Result" version="opset1"><input><port id="0"/></input></layer>
        </layers><edges>
          <edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>
          <edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>
          <edge from-layer="2" from-port="2" to-layer="3" to-port="0"/>
        </edges></net>"#
    );
    let model = read(text.as_bytes(), "if.xml", None).expect("sound");
    let x = Tensor::from_vec([2], vec![2.0f32, -1.0]).expect("fits");
    for (condition, expected) in [(true, 0.0), (false, (-1.0f32).exp_m1())] {
        let c = Tensor::from_bools([0usize; 0], &[condition]).expect("fits");
        let y = evaluate(&model, &[c, x.clone()]).expect("runs");
        let y = y[0].as_slice::<f32>().expect("f32");
        assert!((y[1] - expected).abs() < 1e-6, "{condition}: {y:?}");
    }
    let error = read(
        text.replace("internal_layer_id=\"2\"", "internal_layer_id=\"1\"").as_bytes(),
        "if.xml",
        None,
    );
    let error = error.expect_err("no Result").to_string();
    assert!(error.contains("is no Parameter or Result"), "{error}");
}
