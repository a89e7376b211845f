//! Encoders of text from ids to sentences: embeddings, masks, normalization, pooling, as `MiniLM` and `BERT` have them.

use ov_core::{
    op::{
        activation::{Gelu, Tanh},
        arithmetic::{Add, Divide, Multiply, Subtract},
        convert::Convert,
        gather::Gather,
        matmul::MatMul,
        normalization::NormalizeL2,
        reduction::ReduceSum,
        softmax::SoftMax,
    },
    testing::compare,
};

use super::{models::Net, *};

/// What the rows of an encoder become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pooling {
    /// Their mean, masked, of length 1.
    Mean,
    /// The rows, and the first through a layer of its own.
    First,
}

/// The size of an encoder.
#[derive(Clone, Copy, Debug)]
struct Encoder {
    name: &'static str,
    length: usize,
    layers: usize,
    width: usize,
    heads: usize,
    pooling: Pooling,
}

/// `MiniLM` of six layers over 16 tokens, and `BERT` with types and a pooler over a number of tokens that fits no tile.
const ENCODERS: [Encoder; 2] = [
    Encoder {
        name: "minilm_l6_s16",
        length: 16,
        layers: 6,
        width: 24,
        heads: 3,
        pooling: Pooling::Mean,
    },
    Encoder {
        name: "bert_base",
        length: 37,
        layers: 2,
        width: 48,
        heads: 3,
        pooling: Pooling::First,
    },
];

const WORDS: usize = 50;

impl Encoder {
    fn scalar(n: &mut Net, value: f32) -> Value {
        n.model.add_constant(Tensor::scalar(value), "s")
    }

    /// Ids, a mask of ones and zeros and, for a pooler, types of tokens.
    fn model(&self) -> Model {
        let Self { length, width, .. } = *self;
        let mut n = Net::new(self.name);
        let input =
            |n: &mut Net, name: &str| n.model.add_parameter(name, ElementType::I64, [1, length]);
        let ids = input(&mut n, "input_ids").expect("valid");
        let mask = input(&mut n, "attention_mask").expect("valid");
        let axis = n.model.add_constant(Tensor::scalar(0i64), "axis");
        let table = n.weights(&[WORDS, width], 3);
        let mut x = n.op(Gather::default(), &[table, ids, axis]);
        if self.pooling == Pooling::First {
            let types = input(&mut n, "token_type_ids").expect("valid");
            let table = n.weights(&[2, width], 3);
            let y = n.op(Gather::default(), &[table, types, axis]);
            x = n.op(Add::default(), &[x, y]);
        }
        let places = n.weights(&[1, length, width], 3);
        let x = n.op(Add::default(), &[x, places]);
        let mut x = n.layer_norm(x, width);
        let seen = n.op(Convert { destination_type: ElementType::F32 }, &[mask]);
        let (one, hidden) = (Self::scalar(&mut n, 1.0), Self::scalar(&mut n, -10_000.0));
        let bias = n.reshape(seen, &[1, 1, 1, length as i64]);
        let bias = n.op(Subtract::default(), &[one, bias]);
        let bias = n.op(Multiply::default(), &[bias, hidden]);
        for _ in 0..self.layers {
            x = self.layer(&mut n, x, bias);
        }
        match self.pooling {
            Pooling::First => {
                let zero = n.model.add_constant(Tensor::scalar(0i64), "0");
                let axis = n.model.add_constant(Tensor::scalar(1i64), "1");
                let first = n.op(Gather::default(), &[x, zero, axis]);
                let y = n.linear(first, [width, width]);
                let y = n.op(Tanh {}, &[y]);
                n.finish(&[x, y])
            }
            Pooling::Mean => {
                let rows = n.i64s(&[1]);
                let weights = n.reshape(seen, &[1, length as i64, 1]);
                let y = n.op(Multiply::default(), &[x, weights]);
                let y = n.op(ReduceSum { keep_dims: false }, &[y, rows]);
                let count = n.op(ReduceSum { keep_dims: false }, &[weights, rows]);
                let y = n.op(Divide::default(), &[y, count]);
                let last = n.i64s(&[-1]);
                let y = n.op(NormalizeL2::default(), &[y, last]);
                n.finish(&[y])
            }
        }
    }

    fn layer(&self, n: &mut Net, x: Value, bias: Value) -> Value {
        let (width, head) = (self.width, self.width / self.heads);
        let mut heads = || {
            let y = n.linear(x, [width, width]);
            let y = n.reshape(y, &[0, 0, self.heads as i64, head as i64]);
            n.transpose(y, &[0, 2, 1, 3])
        };
        let (q, k, v) = (heads(), heads(), heads());
        let scores = n.op(MatMul { transpose_b: true, ..Default::default() }, &[q, k]);
        let scale = Self::scalar(n, (head as f32).sqrt());
        let scores = n.op(Divide::default(), &[scores, scale]);
        let scores = n.op(Add::default(), &[scores, bias]);
        let weights = n.op(SoftMax { axis: -1 }, &[scores]);
        let y = n.op(MatMul::default(), &[weights, v]);
        let y = n.transpose(y, &[0, 2, 1, 3]);
        let y = n.reshape(y, &[0, 0, width as i64]);
        let y = n.linear(y, [width, width]);
        let sum = n.op(Add::default(), &[y, x]);
        let x = n.layer_norm(sum, width);
        let y = n.linear(x, [width, 4 * width]);
        let y = n.op(Gelu::default(), &[y]);
        let y = n.linear(y, [4 * width, width]);
        let sum = n.op(Add::default(), &[y, x]);
        n.layer_norm(sum, width)
    }

    /// Ids, a mask that hides the last third, and types of two sentences.
    fn inputs(&self) -> Vec<Tensor> {
        let row = |of: &dyn Fn(usize) -> usize| {
            let values = (0..self.length).map(|i| of(i) as i64).collect::<Vec<i64>>();
            Tensor::from_vec([1, self.length], values).expect("fits")
        };
        let ids = row(&|i| (i * 7 + 3) % WORDS);
        let mask = row(&|i| usize::from(3 * i < 2 * self.length));
        let types = row(&|i| usize::from(2 * i > self.length));
        match self.pooling {
            Pooling::Mean => vec![ids, mask],
            Pooling::First => vec![ids, mask, types],
        }
    }
}

#[test]
fn minilm_l6_s16_and_bert_base_give_what_the_reference_gives() {
    let Some(machine) = machine() else { return };
    for encoder in ENCODERS {
        let kernels = check(&machine, &encoder.model(), &encoder.inputs(), &exact(), 1e-4);
        assert!(kernels.iter().all(|k| k != "host"), "{}: {kernels:?}", encoder.name);
    }
}

#[test]
fn encoders_in_bf16_stay_near_those_in_f32() {
    let Some(machine) = machine() else { return };
    let properties = PropertyMap::new().with(hint::INFERENCE_PRECISION, ElementType::Bf16);
    for encoder in ENCODERS {
        let (model, inputs) = (encoder.model(), encoder.inputs());
        let expected = reference::evaluate(&model, &inputs).expect("the reference runs");
        let compiled = machine.core.compile_model(model, "CUDA", &properties).expect("compiles");
        let got = compiled.create_infer_request().expect("memory").run(&inputs).expect("runs");
        for (got, expected) in got.iter().zip(&expected) {
            // Two or six layers of eight bits each, of values around 1.
            compare(got, expected, 0.0, 0.08).unwrap_or_else(|e| panic!("{}: {e}", encoder.name));
            assert!(compare(got, expected, 0.0, 1e-6).is_err(), "something is stored in bf16");
        }
    }
}
