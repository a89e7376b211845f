//! A text encoder in its published form with seeded weights.

use super::graph::{Attribute, DataType, Graph};

/// MiniLM-L6-H384 for 128 tokens: Wang et al., *`MiniLM`: Deep self-attention distillation*, 2020; a BERT encoder
/// (Devlin et al., 2018) of 6 layers, width 384, 12 heads. GELU and the attention mask are spelled as exporters do.
pub(super) fn minilm() -> Vec<u8> {
    let mut graph = Graph::new("minilm", 6);
    let shape = [1, TOKENS];
    let ids = graph.input("input_ids", DataType::I64, &shape);
    let mask = graph.input("attention_mask", DataType::I64, &shape);
    let types = graph.input("token_type_ids", DataType::I64, &shape);
    let words = graph.weights("embeddings/word", &[VOCABULARY, WIDTH], 0.0, 0.8);
    let positions = graph.weights("embeddings/position", &[1, TOKENS, WIDTH], 0.0, 0.5);
    let kinds = graph.weights("embeddings/type", &[2, WIDTH], 0.0, 0.3);
    let words = graph.node("Gather", "embeddings/words", &[&words, &ids], &[]);
    let kinds = graph.node("Gather", "embeddings/types", &[&kinds, &types], &[]);
    let sum = graph.node("Add", "embeddings/add", &[&words, &kinds], &[]);
    let sum = graph.node("Add", "embeddings/add_position", &[&sum, &positions], &[]);
    let mut x = layer_norm(&mut graph, "embeddings/norm", &sum);
    let bias = mask_bias(&mut graph, &mask);
    for layer in 0..LAYERS {
        x = encoder_layer(&mut graph, &format!("layer{layer}"), &x, &bias);
    }
    graph.node("Identity", "last_hidden_state", &[&x], &[]);
    graph.output("last_hidden_state", &[1, TOKENS, WIDTH]);
    graph.finish()
}

/// 0 where the mask is 1, a large negative number where it is 0; `[1, 1, 1, tokens]`.
fn mask_bias(graph: &mut Graph, mask: &str) -> String {
    let axes = graph.integers("mask/axes", &[2], &[1, 2]);
    let one = graph.scalar("mask/one", 1.0);
    let low = graph.scalar("mask/lowest", f32::MIN);
    let wide = graph.node("Unsqueeze", "mask/unsqueeze", &[mask, &axes], &[]);
    let to_f32 = [Attribute::Int("to", DataType::F32 as i64)];
    let real = graph.node("Cast", "mask/cast", &[&wide], &to_f32);
    let hidden = graph.node("Sub", "mask/sub", &[&one, &real], &[]);
    graph.node("Mul", "mask/bias", &[&hidden, &low], &[])
}

fn encoder_layer(graph: &mut Graph, name: &str, x: &str, mask: &str) -> String {
    let part = |part: &str| format!("{name}/{part}");
    let split = graph.integers(&part("split"), &[4], &[0, 0, HEADS, WIDTH / HEADS]);
    let join = graph.integers(&part("join"), &[3], &[0, 0, WIDTH]);
    let mut heads = |which: &str, order: &[i64]| {
        let y = linear(graph, &part(which), x, WIDTH, WIDTH);
        let y = graph.node("Reshape", &part(&format!("{which}/heads")), &[&y, &split], &[]);
        let order = [Attribute::Ints("perm", order)];
        graph.node("Transpose", &part(&format!("{which}/order")), &[&y], &order)
    };
    let query = heads("query", &[0, 2, 1, 3]);
    let key = heads("key", &[0, 2, 3, 1]);
    let value = heads("value", &[0, 2, 1, 3]);
    let scores = graph.node("MatMul", &part("scores"), &[&query, &key], &[]);
    let root = graph.scalar(&part("root"), ((WIDTH / HEADS) as f32).sqrt());
    let scores = graph.node("Div", &part("scaled"), &[&scores, &root], &[]);
    let scores = graph.node("Add", &part("masked"), &[&scores, mask], &[]);
    let axis = [Attribute::Int("axis", -1)];
    let weights = graph.node("Softmax", &part("softmax"), &[&scores], &axis);
    let context = graph.node("MatMul", &part("context"), &[&weights, &value], &[]);
    let order = [Attribute::Ints("perm", &[0, 2, 1, 3])];
    let context = graph.node("Transpose", &part("context/order"), &[&context], &order);
    let context = graph.node("Reshape", &part("context/join"), &[&context, &join], &[]);
    let attended = linear(graph, &part("attention"), &context, WIDTH, WIDTH);
    let sum = graph.node("Add", &part("attention/add"), &[&attended, x], &[]);
    let x = layer_norm(graph, &part("attention/norm"), &sum);
    let inner = linear(graph, &part("inner"), &x, WIDTH, INNER);
    let inner = gelu(graph, &part("gelu"), &inner);
    let outer = linear(graph, &part("outer"), &inner, INNER, WIDTH);
    let sum = graph.node("Add", &part("outer/add"), &[&outer, &x], &[]);
    layer_norm(graph, &part("outer/norm"), &sum)
}

fn linear(graph: &mut Graph, name: &str, x: &str, input: i64, output: i64) -> String {
    let deviation = (1.0 / input as f32).sqrt();
    let w = graph.weights(&format!("{name}/weight"), &[input, output], 0.0, deviation);
    let b = graph.weights(&format!("{name}/bias"), &[output], 0.0, 0.05);
    let y = graph.node("MatMul", &format!("{name}/matmul"), &[x, &w], &[]);
    graph.node("Add", &format!("{name}/add_bias"), &[&b, &y], &[])
}

fn layer_norm(graph: &mut Graph, name: &str, x: &str) -> String {
    let scale = graph.weights(&format!("{name}/scale"), &[WIDTH], 1.0, 0.05);
    let shift = graph.weights(&format!("{name}/shift"), &[WIDTH], 0.0, 0.05);
    let attributes = [Attribute::Int("axis", -1), Attribute::Float("epsilon", 1e-12)];
    graph.node("LayerNormalization", name, &[x, &scale, &shift], &attributes)
}

/// `x / 2 * (1 + erf(x / sqrt 2))`.
fn gelu(graph: &mut Graph, name: &str, x: &str) -> String {
    let root = graph.scalar(&format!("{name}/root"), std::f32::consts::SQRT_2);
    let one = graph.scalar(&format!("{name}/one"), 1.0);
    let half = graph.scalar(&format!("{name}/half"), 0.5);
    let y = graph.node("Div", &format!("{name}/div"), &[x, &root], &[]);
    let y = graph.node("Erf", &format!("{name}/erf"), &[&y], &[]);
    let y = graph.node("Add", &format!("{name}/add"), &[&y, &one], &[]);
    let y = graph.node("Mul", &format!("{name}/mul"), &[x, &y], &[]);
    graph.node("Mul", name, &[&y, &half], &[])
}

const TOKENS: i64 = 128;
const LAYERS: usize = 6;
const WIDTH: i64 = 384;
const HEADS: i64 = 12;
const INNER: i64 = 1536;
const VOCABULARY: i64 = 30522;
