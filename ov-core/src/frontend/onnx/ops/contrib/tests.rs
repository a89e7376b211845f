//! Operators of `com.microsoft` over numbers that can be followed by hand.

use prost::Message as _;

use crate::{
    Tensor,
    frontend::onnx::{
        Attr,
        proto::{GraphProto, ModelProto, NodeProto, OperatorSetId, TensorProto, ValueInfoProto},
    },
    io::ExternalFiles,
    op::convert::to_f64,
    reference::evaluate,
};

fn tensor(ty: i32, dims: &[i64], raw: Vec<u8>) -> Option<TensorProto> {
    let raw_data = Some(raw.into());
    Some(TensorProto { data_type: ty, dims: dims.to_vec(), raw_data, ..TensorProto::default() })
}

fn f32s(dims: &[i64], values: &[f32]) -> Option<TensorProto> {
    tensor(1, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn u8s(dims: &[i64], values: &[u8]) -> Option<TensorProto> {
    tensor(2, dims, values.to_vec())
}

fn i32s(dims: &[i64], values: &[i32]) -> Option<TensorProto> {
    tensor(6, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn i64s(dims: &[i64], values: &[i64]) -> Option<TensorProto> {
    tensor(7, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// The first output of an operator over constants.
fn run(
    op: &str,
    inputs: &[Option<TensorProto>],
    attributes: &[(&str, Attr<'_>)],
) -> crate::Result<Tensor> {
    let name = |i: usize| format!("x{i}");
    let node = NodeProto {
        op_type: op.to_owned(),
        domain: "com.microsoft".to_owned(),
        input: inputs
            .iter()
            .enumerate()
            .map(|(i, t)| if t.is_some() { name(i) } else { String::new() })
            .collect(),
        output: vec!["y".to_owned()],
        attribute: attributes.iter().map(|(n, a)| a.to_proto(n)).collect(),
        ..NodeProto::default()
    };
    let initializer = inputs.iter().enumerate().filter_map(|(i, t)| {
        t.clone().map(|t| TensorProto { name: name(i), ..t })
    });
    let graph = GraphProto {
        node: vec![node],
        initializer: initializer.collect(),
        output: vec![ValueInfoProto { name: "y".to_owned(), r#type: None }],
        ..GraphProto::default()
    };
    let import = |domain: &str, version| OperatorSetId { domain: domain.to_owned(), version };
    let model = ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![import("", 17), import("com.microsoft", 1)],
        ..ModelProto::default()
    };
    let external = ExternalFiles::none();
    let model = crate::frontend::onnx::read(model.encode_to_vec().into(), "test", &external)?;
    Ok(evaluate(&model, &[])?.remove(0))
}

fn check(
    op: &str,
    inputs: &[Option<TensorProto>],
    attributes: &[(&str, Attr<'_>)],
    shape: &[usize],
    expected: &[f64],
) {
    let y = run(op, inputs, attributes).unwrap_or_else(|e| panic!("{op}: {e}"));
    assert_eq!(y.shape().to_vec(), shape, "{op}");
    let got = to_f64(&y).expect("numbers");
    let close = got.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0));
    assert!(close && got.len() == expected.len(), "{op}: {got:?}, expected {expected:?}");
}

#[test]
fn experts_are_weighted_by_their_probabilities() {
    // Expert 1 has the probability 3/4 and gives [2, 3] (x0 - x1).
    let (x, router) = (f32s(&[1, 2], &[1.0, 2.0]), f32s(&[1, 2], &[0.0, 3f32.ln()]));
    let first = f32s(&[2, 1, 2], &[1.0, 1.0, 1.0, -1.0]);
    let second = f32s(&[2, 2, 1], &[1.0, 1.0, 2.0, 3.0]);
    let identity = ("activation_type", Attr::Text("identity"));
    let inputs = [x.clone(), router.clone(), first.clone(), None, second.clone()];
    check("MoE", &inputs, &[identity], &[1, 2], &[-1.5, -2.25]);
    let normalized = [identity, ("normalize_routing_weights", Attr::Int(1))];
    check("MoE", &inputs, &normalized, &[1, 2], &[-2.0, -3.0]);
    check("MoE", &inputs, &[("k", Attr::Int(2)), identity], &[1, 2], &[-0.75, -1.5]);
    check("MoE", &inputs, &[], &[1, 2], &[0.0, 0.0]);
    let biases = [x.clone(), router.clone(), first, f32s(&[2, 1], &[0.0, 2.0]), second, f32s(&[2, 2], &[0.0, 0.0, 1.0, 0.0])];
    check("MoE", &biases, &[("k", Attr::Int(1))], &[1, 2], &[2.25, 2.25]);
    let quantized = [
        x,
        router,
        u8s(&[2, 1, 2], &[130, 130, 130, 126]),
        f32s(&[2, 1], &[0.5, 0.5]),
        None,
        u8s(&[2, 2, 1], &[130, 130, 132, 134]),
        f32s(&[2, 2], &[0.5; 4]),
    ];
    let bits = ("expert_weight_bits", Attr::Int(8));
    check("QMoE", &quantized, &[identity, bits], &[1, 2], &[-2.0, -3.0]);
    assert!(run("QMoE", &quantized, &[("expert_weight_bits", Attr::Int(3))]).is_err());
}

#[test]
fn gated_experts_read_both_projections() {
    // g = x, l = 10 x in one layer; swiglu = g sigmoid(g) (l + 1) at x = 2.
    let gate = 2.0 / (1.0 + (-2f64).exp());
    let (x, router, second) = (f32s(&[1, 1], &[2.0]), f32s(&[1, 1], &[0.0]), f32s(&[1, 1, 1], &[1.0]));
    for (fusion, weights) in [(1, f32s(&[1, 2, 1], &[1.0, 10.0])), (2, f32s(&[1, 2, 1], &[1.0, 10.0]))] {
        let inputs = [x.clone(), router.clone(), weights, None, second.clone()];
        let attributes = [
            ("activation_type", Attr::Text("swiglu")),
            ("swiglu_fusion", Attr::Int(fusion)),
            ("activation_beta", Attr::Float(1.0)),
        ];
        check("MoE", &inputs, &attributes, &[1, 1], &[gate * 21.0]);
        let limited = [attributes[0], attributes[1], attributes[2], ("swiglu_limit", Attr::Float(1.0))];
        check("MoE", &inputs, &limited, &[1, 1], &[2.0 / (1.0 + (-1f64).exp())]);
    }
    let third = [x, router, f32s(&[1, 1, 1], &[1.0]), None, second, None, f32s(&[1, 1, 1], &[10.0])];
    check("MoE", &third, &[("activation_type", Attr::Text("swiglu"))], &[1, 1], &[gate * 20.0]);
    check("MoE", &third, &[("activation_type", Attr::Text("silu"))], &[1, 1], &[gate * 20.0]);
}

#[test]
fn tables_in_blocks_are_read_by_index() {
    let bits = [("bits", Attr::Int(4)), ("block_size", Attr::Int(2))];
    let table = u8s(&[2, 2], &[0, 0, 0x97, 0x8C]);
    let scales = f32s(&[2, 2], &[1.0, 1.0, 0.5, 2.0]);
    let inputs = [table.clone(), i64s(&[2], &[-1, 5]), scales.clone()];
    check("GatherBlockQuantized", &inputs, &bits, &[2, 4], &[-0.5, 0.5, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let inputs = [table, i64s(&[], &[1]), scales, u8s(&[2, 1], &[0, 0x47])];
    check("GatherBlockQuantized", &inputs, &bits, &[4], &[0.0, 1.0, 16.0, 8.0]);
}

#[test]
fn small_compositions() {
    let pair = |a, b| f32s(&[2], &[a, b]);
    check("ComplexMul", &[pair(1.0, 2.0), pair(3.0, 4.0)], &[], &[2], &[-5.0, 10.0]);
    check("ComplexMulConj", &[pair(1.0, 2.0), pair(3.0, 4.0)], &[], &[2], &[11.0, 2.0]);
    let x = f32s(&[4], &[1.0, 2.0, 3.0, 5.0]);
    let unfold = [("size", Attr::Int(2)), ("dim", Attr::Int(0))];
    check("UnfoldTensor", std::slice::from_ref(&x), &unfold, &[3, 2], &[1.0, 2.0, 2.0, 3.0, 3.0, 5.0]);
    assert!(run("UnfoldTensor", std::slice::from_ref(&x), &[("size", Attr::Int(5))]).is_err());
    let axes = [("signal_ndim", Attr::Int(1))];
    let spectrum = [11.0, 0.0, -2.0, 3.0, -3.0, 0.0];
    check("Rfft", &[x], &axes, &[3, 2], &spectrum);
    let spectrum = f32s(&[3, 2], &spectrum.map(|v| v as f32));
    check("Irfft", std::slice::from_ref(&spectrum), &axes, &[4], &[1.0, 2.0, 3.0, 5.0]);
    assert!(run("Irfft", &[spectrum], &[("signal_ndim", Attr::Int(2))]).is_err());
    let one = |v| u8s(&[1], &[v]);
    check("MulInteger", &[one(1), one(5), one(7), one(1)], &[], &[1], &[-24.0]);
    let mean = [u8s(&[1, 2], &[10, 30]), f32s(&[], &[0.1]), u8s(&[], &[10]), f32s(&[], &[0.2]), u8s(&[], &[3])];
    check("QLinearReduceMean", &mean, &[("axes", Attr::Ints(&[1]))], &[1, 1], &[8.0]);
    check("IsAllFinite", &[pair(1.0, 2.0), pair(f32::NAN, 0.0)], &[], &[], &[0.0]);
    check("IsAllFinite", &[pair(1.0, f32::NAN)], &[("isinf_only", Attr::Int(1))], &[], &[1.0]);
    let matrix = f32s(&[2, 2], &[4.0, 7.0, 2.0, 6.0]);
    check("Inverse", std::slice::from_ref(&matrix), &[], &[2, 2], &[0.6, -0.7, -0.2, 0.4]);
    let turned = [("transB", Attr::Int(1)), ("alpha", Attr::Float(0.5))];
    check("TransposeMatMul", &[matrix.clone(), matrix], &turned, &[2, 2], &[32.5, 25.0, 25.0, 20.0]);
    let equal = [f32s(&[1, 2, 2], &[0.0; 4]), f32s(&[2], &[0.0, 3f32.ln()])];
    check("BiasSoftmax", &equal, &[("axis", Attr::Int(2))], &[1, 2, 2], &[0.25, 0.75, 0.25, 0.75]);
    check("BiasSoftmax", &equal, &[("axis", Attr::Int(1))], &[1, 2, 2], &[0.125, 0.375, 0.125, 0.375]);
    let zero = [f32s(&[1, 1], &[2.0]), f32s(&[1, 1], &[3.0]), f32s(&[1], &[-6.0])];
    check("GemmFastGelu", &zero, &[], &[1, 1], &[0.0]);
    let conv = [f32s(&[1, 1, 2], &[1.0, 2.0]), f32s(&[1, 1, 2], &[1.0, 10.0]), i64s(&[2], &[1, 0])];
    check("ConvTransposeWithDynamicPads", &conv, &[], &[1, 1, 2], &[12.0, 20.0]);
    check("TorchEmbedding", &[f32s(&[2, 1], &[3.0, 4.0]), i64s(&[2], &[1, 0])], &[], &[2, 1], &[4.0, 3.0]);
    let dropped = [pair(1.0, 2.0), pair(1.0, 1.0), pair(10.0, 10.0)];
    check("BiasDropout", &dropped, &[], &[2], &[12.0, 13.0]);
    let numbers = i32s(&[1], &[0x7473_6574]);
    check("MurmurHash3", &[numbers], &[], &[1], &[f64::from(0xBA6B_D213u32)]);
}

#[test]
fn a_shared_buffer_holds_the_past_first() {
    // One head of width 1; of three places in the buffer one is past. Equal scores: the mean of both values.
    let x = |v| f32s(&[1, 1, 1], &[v]);
    let buffer = |v: [f32; 3]| f32s(&[1, 1, 3, 1], &v);
    let inputs = [x(0.0), x(1.0), x(4.0), None, None, buffer([1.0, 9.0, 9.0]), buffer([2.0, 9.0, 9.0]), i32s(&[1], &[1])];
    let attributes = [("num_heads", Attr::Int(1)), ("past_present_share_buffer", Attr::Int(1))];
    check("DecoderMaskedMultiHeadAttention", &inputs, &attributes, &[1, 1, 1], &[3.0]);
    assert!(run("DecoderMaskedMultiHeadAttention", &inputs, &attributes[..1]).is_err());
}
