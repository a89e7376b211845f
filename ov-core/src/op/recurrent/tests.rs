//! Tests of recurrent operators against steps written out by hand.

use super::*;

fn tensor(shape: &[usize], f: impl Fn(usize) -> f32) -> Tensor {
    let shape = crate::Shape::new(shape);
    let data = (0..shape.elements()).map(f).collect();
    Tensor::from_vec(shape, data).expect("fits")
}

fn wave(shape: &[usize]) -> Tensor {
    tensor(shape, |i| ((i * 7 + 3) % 11) as f32 / 11.0 - 0.5)
}

fn lstm_inputs(batch: usize, length: usize, input: usize, hidden: usize, dirs: usize) -> Vec<Tensor> {
    vec![
        wave(&[batch, length, input]),
        wave(&[batch, dirs, hidden]),
        wave(&[batch, dirs, hidden]),
        Tensor::absent(),
        wave(&[dirs, 4 * hidden, input]),
        wave(&[dirs, 4 * hidden, hidden]),
        wave(&[dirs, 4 * hidden]),
    ]
}

#[test]
fn one_unit_follows_the_equations() {
    let one = |v: f32| Tensor::from_vec([1, 1, 1], vec![v]).expect("fits");
    let weights = |v: &[f32]| Tensor::from_vec([1, 4, 1], v.to_vec()).expect("fits");
    let bias = Tensor::from_vec([1, 4], vec![0.1f32, 0.2, 0.3, 0.4]).expect("fits");
    let inputs = [
        one(0.5),
        one(-0.25),
        one(0.75),
        Tensor::absent(),
        weights(&[0.5, -0.5, 1.0, 2.0]),
        weights(&[1.0, 2.0, -1.0, 0.5]),
        bias,
    ];
    let got = LstmSequence { hidden_size: 1, ..Default::default() }.evaluate(&inputs).expect("runs");
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let (x, h, c) = (0.5, -0.25, 0.75);
    let forget = sigmoid(0.5 * x + h + f64::from(0.1f32));
    let input = sigmoid(-0.5 * x + 2.0 * h + f64::from(0.2f32));
    let candidate = (x - h + f64::from(0.3f32)).tanh();
    let output = sigmoid(2.0 * x + 0.5 * h + f64::from(0.4f32));
    let cell = forget * c + input * candidate;
    let hidden = output * cell.tanh();
    assert_eq!(got[2].as_slice::<f32>().expect("f32"), [cell as f32]);
    assert_eq!(got[1].as_slice::<f32>().expect("f32"), [hidden as f32]);
    assert_eq!(got[0].as_slice::<f32>().expect("f32"), [hidden as f32]);
}

#[test]
fn a_sequence_is_the_cell_applied_step_by_step() {
    for (batch, length, input, hidden) in [(1, 3, 2, 3), (2, 5, 3, 1), (3, 1, 1, 5)] {
        let inputs = lstm_inputs(batch, length, input, hidden, 1);
        let whole = LstmSequence::default().evaluate(&inputs).expect("runs");
        let squeeze = |t: &Tensor| {
            let dims: Vec<usize> = t.shape()[1..].to_vec();
            t.reshape(dims).expect("one direction")
        };
        let state = |t: &Tensor| t.reshape([batch, hidden]).expect("one direction");
        let (mut h, mut c) = (state(&inputs[1]), state(&inputs[2]));
        for t in 0..length {
            let x = inputs[0].to_f64_vec().expect("floats");
            let step: Vec<f32> = (0..batch)
                .flat_map(|b| (0..input).map(move |i| (b * length + t) * input + i))
                .map(|at| x[at] as f32)
                .collect();
            let arguments = [
                Tensor::from_vec([batch, input], step).expect("fits"),
                h,
                c,
                squeeze(&inputs[4]),
                squeeze(&inputs[5]),
                squeeze(&inputs[6]),
            ];
            let next = LstmCell::default().evaluate(&arguments).expect("runs");
            (h, c) = (next[0].clone(), next[1].clone());
        }
        for (got, step) in [(&whole[1], &h), (&whole[2], &c)] {
            for (a, b) in got.to_f64_vec().expect("f").iter().zip(step.to_f64_vec().expect("f")) {
                assert!((a - b).abs() < 1e-6, "{a} {b}");
            }
        }
    }
}

#[test]
fn backward_reads_from_each_sequences_end() {
    let mut inputs = lstm_inputs(2, 4, 2, 3, 2);
    inputs[3] = Tensor::from_vec([2], vec![4i32, 2]).expect("fits");
    let op = LstmSequence { direction: Direction::Bidirectional, ..Default::default() };
    let got = op.evaluate(&inputs).expect("runs");
    assert_eq!(got[0].shape()[..], [2, 2, 4, 3]);
    let y = got[0].as_slice::<f32>().expect("f32");
    let h = got[1].as_slice::<f32>().expect("f32");
    let at = |b: usize, d: usize, t: usize| &y[((b * 2 + d) * 4 + t) * 3..][..3];
    let last = |b: usize, d: usize| &h[(b * 2 + d) * 3..][..3];
    assert_eq!(at(0, 0, 3), last(0, 0));
    assert_eq!(at(1, 0, 1), last(1, 0));
    assert_eq!(at(0, 1, 0), last(0, 1));
    assert_eq!(at(1, 1, 0), last(1, 1));
    assert_eq!(at(1, 0, 2), [0.0; 3]);
    assert_eq!(at(1, 1, 3), [0.0; 3]);
}

#[test]
fn both_forms_of_gru_agree_without_reset() {
    let (hidden, input) = (3, 2);
    let mut bias = vec![0f32; 3 * hidden];
    bias[hidden..2 * hidden].fill(40.0);
    let mut inputs = vec![
        wave(&[1, 4, input]),
        wave(&[1, 1, hidden]),
        Tensor::absent(),
        wave(&[1, 3 * hidden, input]),
        wave(&[1, 3 * hidden, hidden]),
        Tensor::from_vec([1, 3 * hidden], bias.clone()).expect("fits"),
    ];
    let after = GruSequence::default().evaluate(&inputs).expect("runs");
    bias.extend([0.0; 3]);
    inputs[5] = Tensor::from_vec([1, 4 * hidden], bias).expect("fits");
    let op = GruSequence { linear_before_reset: true, ..Default::default() };
    let before = op.evaluate(&inputs).expect("runs");
    assert_eq!(after, before);
}

#[test]
fn quantized_weights_approximate_the_floats() {
    let (hidden, input) = (4, 3);
    let scale = 1.0 / 64.0;
    let quantized = |shape: &[usize]| {
        let data: Vec<i8> = wave(shape).to_f64_vec().expect("f").iter().map(|v| (v / scale) as i8).collect();
        Tensor::from_vec(shape, data).expect("fits")
    };
    let (w, r) = (quantized(&[1, 4 * hidden, input]), quantized(&[1, 4 * hidden, hidden]));
    let dequantized = |t: &Tensor| {
        let values: Vec<f64> = t.to_f64_vec().expect("f").iter().map(|v| v * scale).collect();
        Tensor::from_f64s::<f32>(t.shape().clone(), &values).expect("fits")
    };
    let mut inputs = lstm_inputs(1, 6, input, hidden, 1);
    (inputs[4], inputs[5]) = (dequantized(&w), dequantized(&r));
    let exact = LstmSequence::default().evaluate(&inputs).expect("runs");
    let turned = |t: &Tensor| {
        let (rows, columns) = (t.shape()[1], t.shape()[2]);
        t.with_strides([1, columns, rows], &[rows * columns, 1, columns]).expect("fits").to_contiguous()
    };
    (inputs[4], inputs[5]) = (turned(&w), turned(&r));
    let scales = Tensor::from_vec([1], vec![scale as f32]).expect("fits");
    let zeros = Tensor::from_vec([1], vec![0i8]).expect("fits");
    inputs.extend([Tensor::absent(), scales.clone(), zeros.clone(), scales, zeros]);
    let got = QuantizedLstmSequence::default().evaluate(&inputs).expect("runs");
    for (a, b) in got[0].to_f64_vec().expect("f").iter().zip(exact[0].to_f64_vec().expect("f")) {
        assert!((a - b).abs() < 0.01, "{a} {b}");
    }
}

#[test]
fn empty_batches_and_sequences_give_empty_outputs() {
    for (batch, length) in [(0, 3), (2, 0)] {
        let got = LstmSequence::default().evaluate(&lstm_inputs(batch, length, 2, 3, 1)).expect("runs");
        assert_eq!(got[0].shape()[..], [batch, 1, length, 3]);
    }
}

#[test]
fn wrong_shapes_and_names_are_refused() {
    let mut inputs = lstm_inputs(2, 3, 2, 3, 1);
    inputs[3] = Tensor::from_vec([2], vec![4i32, 2]).expect("fits");
    assert!(LstmSequence::default().evaluate(&inputs).is_err());
    let inputs = lstm_inputs(2, 3, 2, 3, 1);
    let op = LstmSequence { activations: names(&["sigmoid", "tanh", "sine"]), ..Default::default() };
    assert!(op.evaluate(&inputs).is_err());
    let op = LstmSequence { hidden_size: 4, ..Default::default() };
    assert!(op.evaluate(&inputs).is_err());
    let op = LstmSequence { direction: Direction::Bidirectional, ..Default::default() };
    assert!(op.evaluate(&inputs).is_err());
}
