//! A decoder of two layers as in GPT-2. Keys and values of the tokens before are inputs and outputs, or variables.

use ov_core::{
    InferRequest,
    op::{
        activation::{Gelu, GeluMode},
        attention::ScaledDotProductAttention,
        comparison::LessEqual,
        generate::Range,
        reshape::{ShapeOf, Unsqueeze},
        select::Select,
    },
    states::States,
};

use super::*;

const BATCH: usize = 2;
const LAYERS: usize = 2;
const HEADS: usize = 3;
const HEAD: usize = 8;
const WIDTH: usize = HEADS * HEAD;
const VOCABULARY: usize = 40;
const POSITIONS: usize = 24;

/// Where the caches are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caches {
    Ports,
    /// With an input that says which sample of the step before a sample goes on with. Keys start with a value that the
    /// model gives, values with none.
    Variables,
}

fn cache_names() -> impl Iterator<Item = String> {
    (0..LAYERS).flat_map(|layer| ["key", "value"].map(|what| format!("{what}.{layer}")))
}

fn empty() -> Tensor {
    Tensor::from_vec([BATCH, HEADS, 0, HEAD], Vec::<f32>::new()).expect("fits")
}

fn scalar(n: &mut Net, value: i64) -> Value {
    n.model.add_constant(Tensor::scalar(value), "i")
}

fn extent(n: &mut Net, of: Value, axis: i64) -> Value {
    let shape = n.op(ShapeOf::default(), &[of]);
    let (index, first) = (scalar(n, axis), scalar(n, 0));
    n.op(Gather::default(), &[shape, index, first])
}

/// Any number of tokens `[batch, length]` to the scores of what follows each of them. Attention is an operator, or spelled
/// out.
fn gpt2(caches: Caches, operator: bool) -> Model {
    let mut n = Net::new("gpt2");
    let ids = PartialShape::new(&[Dimension::fixed(BATCH), Dimension::DYNAMIC]);
    let ids = n.model.add_parameter("ids", ElementType::I64, ids).expect("valid");
    let past: Vec<Value> = pasts(&mut n, caches);
    let (before, length) = (extent(&mut n, past[0], 2), extent(&mut n, ids, 1));
    let total = n.op(Add::default(), &[before, length]);
    let (zero, one) = (scalar(&mut n, 0), scalar(&mut n, 1));
    let positions = n.op(Range::default(), &[before, total, one]);
    let keys = n.op(Range::default(), &[zero, total, one]);
    let rows = n.op(Unsqueeze {}, &[positions, one]);
    let sees = n.op(LessEqual::default(), &[keys, rows]);
    let [open, hidden] = [0.0, f32::MIN].map(|v| n.model.add_constant(Tensor::scalar(v), "mask"));
    let mask = n.op(Select::default(), &[sees, open, hidden]);

    let tokens = n.weights(&[VOCABULARY, WIDTH], 3);
    let places = n.weights(&[POSITIONS, WIDTH], 3);
    let x = n.op(Gather::default(), &[tokens, ids, zero]);
    let place = n.op(Gather::default(), &[places, positions, zero]);
    let mut x = n.op(Add::default(), &[x, place]);
    let mut present = Vec::new();
    for past in past.chunks(2) {
        let y = n.layer_norm(x, WIDTH);
        let qkv = n.linear(y, [WIDTH, 3 * WIDTH]);
        let heads = n.split(qkv, 2, 3).into_iter().map(|p| {
            let p = n.reshape(p, &[0, 0, HEADS as i64, HEAD as i64]);
            n.transpose(p, &[0, 2, 1, 3])
        });
        let heads: Vec<Value> = heads.collect();
        let k = n.op(Concat { axis: 2 }, &[past[0], heads[1]]);
        let v = n.op(Concat { axis: 2 }, &[past[1], heads[2]]);
        present.extend([k, v]);
        let y = if operator {
            let op = ScaledDotProductAttention::default();
            n.op(op, &[heads[0], k, v, sees])
        } else {
            n.attention([heads[0], k, v], HEAD, Some(mask))
        };
        let y = n.transpose(y, &[0, 2, 1, 3]);
        let y = n.reshape(y, &[0, 0, WIDTH as i64]);
        let y = n.linear(y, [WIDTH, WIDTH]);
        x = n.op(Add::default(), &[x, y]);
        let y = n.layer_norm(x, WIDTH);
        let y = n.linear(y, [WIDTH, 4 * WIDTH]);
        let y = n.op(Gelu { approximation_mode: GeluMode::Tanh }, &[y]);
        let y = n.linear(y, [4 * WIDTH, WIDTH]);
        x = n.op(Add::default(), &[x, y]);
    }
    let x = n.layer_norm(x, WIDTH);
    let y = n.op(MatMul { transpose_b: true, ..Default::default() }, &[x, tokens]);
    if caches == Caches::Ports {
        return n.finish(&[&[y], present.as_slice()].concat());
    }
    let mut model = n.finish(&[y]);
    for (i, value) in present.into_iter().enumerate() {
        model.add_variable_output(i, value).expect("fits");
    }
    model
}

fn pasts(n: &mut Net, caches: Caches) -> Vec<Value> {
    let shape = PartialShape::new(&[
        Dimension::fixed(BATCH),
        Dimension::fixed(HEADS),
        Dimension::DYNAMIC,
        Dimension::fixed(HEAD),
    ]);
    let ty = ElementType::F32;
    if caches == Caches::Ports {
        let port = |name| n.model.add_parameter(name, ty, shape.clone()).expect("valid");
        return cache_names().map(port).collect();
    }
    let sources = n.model.add_parameter("sources", ElementType::I64, [BATCH]).expect("valid");
    let axis = scalar(n, 0);
    let variable = |name: String| {
        let first = name.starts_with("key").then(|| n.model.add_constant(empty(), "empty"));
        let read = n.model.add_variable(&name, ty, shape.clone(), first).expect("valid");
        n.op(Gather::default(), &[read, sources, axis])
    };
    cache_names().map(variable).collect()
}

/// The tokens of the steps: a prompt, single ones, several at once.
const STEPS: [std::ops::Range<usize>; 6] = [0..5, 5..6, 6..7, 7..10, 10..11, 11..12];

fn ids(tokens: std::ops::Range<usize>) -> Tensor {
    let token = |sample: usize, i: usize| ((sample * 17 + i * 11) % VOCABULARY) as i64;
    let all = (0..BATCH).flat_map(|sample| tokens.clone().map(move |i| token(sample, i)));
    Tensor::from_vec([BATCH, tokens.len()], all.collect()).expect("fits")
}

/// The types that values are stored in, and how far results may be off.
const PRECISIONS: [(ElementType, f64); 3] =
    [(ElementType::F32, 1e-5), (ElementType::F16, 5e-3), (ElementType::Bf16, 3e-2)];

fn cases() -> impl Iterator<Item = (bool, ElementType, f64)> {
    [true, false]
        .into_iter()
        .flat_map(|operator| PRECISIONS.map(|(ty, limit)| (operator, ty, limit)))
}

fn request(machine: &Machine, model: &Model, precision: ElementType) -> InferRequest {
    let properties = PropertyMap::new().with(hint::INFERENCE_PRECISION, precision);
    let compiled =
        machine.core.compile_model(model.clone(), "CUDA", &properties).expect("compiles");
    for node in compiled.runtime_nodes() {
        assert!(node.kernel != "host" || node.op == "ShapeOf", "{node:?}");
        assert!(node.kernel == "attention" || node.op != "ScaledDotProductAttention", "{node:?}");
    }
    compiled.create_infer_request().expect("memory")
}

#[track_caller]
fn run(machine: &Machine, request: &mut InferRequest, inputs: &[Tensor]) -> Vec<Tensor> {
    request.run(inputs).unwrap_or_else(|e| panic!("{e}; {}", machine.message()))
}

#[track_caller]
fn near(got: &Tensor, expected: &Tensor, limit: f64, what: &str) {
    assert_eq!(got.shape(), expected.shape(), "{what}");
    let numbers = |t: &Tensor| t.to_f64_vec().expect("numbers");
    let (got, expected) = (numbers(got), numbers(expected));
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    let off = norm(&mut got.iter().zip(&expected).map(|(a, b)| a - b));
    let size = norm(&mut expected.iter().copied());
    assert!(off <= limit * size, "{what}: {off} of {size}");
}

#[test]
fn caches_may_be_inputs_and_outputs() {
    let Some(machine) = machine() else { return };
    let inputs = |tokens, caches: &[Tensor]| [&[ids(tokens)], caches].concat();
    let nothing = vec![empty(); 2 * LAYERS];
    for (operator, precision, limit) in cases() {
        let model = gpt2(Caches::Ports, operator);
        let whole = reference::evaluate(&model, &inputs(0..12, &nothing)).expect("runs");
        let mut request = request(&machine, &model, precision);
        let [mut caches, mut expected_caches] = [nothing.clone(), nothing.clone()];
        for tokens in STEPS {
            let got = run(&machine, &mut request, &inputs(tokens.clone(), &caches));
            let expected = inputs(tokens.clone(), &expected_caches);
            let expected = reference::evaluate(&model, &expected).expect("runs");
            for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                near(got, expected, limit, &format!("{precision:?}, {tokens:?}, output {i}"));
            }
            caches = got[1..].iter().map(Tensor::to_owned_tensor).collect();
            expected_caches = expected[1..].to_vec();
        }
        for (got, expected) in caches.iter().zip(&whole[1..]) {
            near(got, expected, limit, "all tokens at once");
        }
    }
}

#[test]
fn caches_may_be_variables() {
    let Some(machine) = machine() else { return };
    for (operator, precision, limit) in cases() {
        let model = gpt2(Caches::Variables, operator);
        let states = States::new(model.variables().to_vec()).expect("memory");
        let mut request = request(&machine, &model, precision);
        // The second time from the beginning again.
        for steps in [STEPS.len(), 2] {
            let mut hidden = states.initial().to_vec();
            for (step, tokens) in STEPS.into_iter().take(steps).enumerate() {
                let sources = [[0, 1], [1, 0], [1, 1]][step % 3];
                let what = format!("{precision:?}, {tokens:?}");
                let inputs = [ids(tokens), Tensor::from_i64s(&sources)];
                let left = || machine.fake.as_ref().map_or(0, |f| f.get("device_to_host"));
                let before = left();
                let got = run(&machine, &mut request, &inputs);
                let scores = if machine.fake.is_some() { got[0].len() as i64 * 4 } else { 0 };
                assert_eq!(left() - before, scores, "the caches stay");
                let all = [&inputs, hidden.as_slice()].concat();
                let mut expected = reference::evaluate(&model, &all).expect("runs");
                near(&got[0], &expected[0], limit, &what);
                states.advance(&mut hidden, &mut expected[1..]);
                for name in cache_names() {
                    let got = request.state(&name).expect("is there");
                    let expected = states.value(&hidden, &name).expect("is there");
                    near(&got, &expected, limit, &format!("{what}, {name}"));
                }
            }
            request.reset_states().expect("stateful");
        }
    }
}
