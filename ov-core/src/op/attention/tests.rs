//! Tests of attention.

use super::*;

fn wave(shape: &[usize]) -> Tensor {
    let shape = Shape::new(shape);
    let data: Vec<f32> =
        (0..shape.elements()).map(|i| ((i * 7 + 3) % 11) as f32 / 11.0 - 0.5).collect();
    Tensor::from_vec(shape, data).expect("fits")
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_f64_vec().expect("floats")
}

fn close(a: &Tensor, b: &Tensor) {
    assert_eq!(a.shape(), b.shape());
    for (a, b) in values(a).iter().zip(values(b)) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn one_key_gives_its_value() {
    for (l, e, ev) in [(1, 3, 2), (4, 1, 5)] {
        let v = wave(&[2, 1, ev]);
        let got = ScaledDotProductAttention::default()
            .evaluate(&[wave(&[2, l, e]), wave(&[2, 1, e]), v.clone()])
            .expect("runs");
        let expected: Vec<f64> =
            values(&v).chunks(ev).flat_map(|row| row.repeat(l)).collect();
        assert_eq!(values(&got[0]), expected);
    }
}

#[test]
fn both_operators_agree() {
    let (q, k, v) = (wave(&[2, 3, 4, 5]), wave(&[2, 3, 4, 5]), wave(&[2, 3, 4, 2]));
    let mask = wave(&[4, 4]);
    for (causal, mask) in [(false, None), (true, None), (false, Some(mask))] {
        let mut inputs = vec![q.clone(), k.clone(), v.clone()];
        inputs.extend(mask);
        let a = ScaledDotProductAttention { causal }.evaluate(&inputs).expect("runs");
        let b = Attention { is_causal: causal, ..Default::default() }.evaluate(&inputs).expect("runs");
        close(&a[0], &b[0]);
    }
}

#[test]
fn rows_without_keys_are_zeros_and_short_masks_hide_the_rest() {
    let (q, k, v) = (wave(&[1, 1, 2, 3]), wave(&[1, 1, 3, 3]), wave(&[1, 1, 3, 2]));
    let mask = Tensor::from_bools([2, 1], &[false, true]).expect("fits");
    let got = Attention { scores_mode: 3, ..Default::default() }
        .evaluate(&[q, k, v.clone(), mask])
        .expect("runs");
    let v = values(&v);
    assert_eq!(values(&got[0]), [0.0, 0.0, v[0], v[1]]);
    assert_eq!(values(&got[1]), [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn windows_and_lengths_limit_the_keys() {
    let (q, k, v) = (wave(&[1, 1, 2, 3]), wave(&[1, 1, 4, 3]), wave(&[1, 1, 4, 1]));
    let lengths = Tensor::from_i64s(&[3]);
    let op = Attention { is_causal: true, left_window_size: 0, ..Default::default() };
    let got = op
        .evaluate(&[q.clone(), k.clone(), v.clone(), Tensor::absent(), lengths])
        .expect("runs");
    let v = values(&v);
    assert_eq!(values(&got[0]), [v[1], v[2]]);
    assert!(op.evaluate(&[q, wave(&[1, 1, 4, 2]), k]).is_err());
}

#[test]
fn query_heads_share_key_heads() {
    let (q, k, v) = (wave(&[1, 4, 2, 3]), wave(&[1, 2, 3, 3]), wave(&[1, 2, 3, 2]));
    let got = Attention::default().evaluate(&[q.clone(), k.clone(), v.clone()]).expect("runs");
    let repeat = |t: &Tensor| {
        let per_head = t.len() / 2;
        let data: Vec<f64> = values(t).chunks(per_head).flat_map(|h| h.repeat(2)).collect();
        let mut dims = t.shape().to_vec();
        dims[1] = 4;
        Tensor::from_f64s::<f32>(dims, &data).expect("fits")
    };
    let expected = ScaledDotProductAttention::default()
        .evaluate(&[q, repeat(&k), repeat(&v)])
        .expect("runs");
    close(&got[0], &expected[0]);
}

#[test]
fn rotation_keeps_lengths_and_turns_by_the_position() {
    let x = Tensor::from_vec([1, 1, 2, 2], vec![1f32, 0., 1., 0.]).expect("fits");
    let cos = Tensor::from_vec([2, 1], vec![1f32, 0.]).expect("fits");
    let sin = Tensor::from_vec([2, 1], vec![0f32, 1.]).expect("fits");
    for (positions, expected) in [([0i64, 1], [1., 0., 0., 1.]), ([1, 0], [0., 1., 1., 0.])] {
        let positions = Tensor::from_vec([1, 2], positions.to_vec()).expect("fits");
        for interleaved in [false, true] {
            let got = RotaryEmbedding { interleaved, ..Default::default() }
                .evaluate(&[x.clone(), cos.clone(), sin.clone(), positions.clone()])
                .expect("runs");
            assert_eq!(values(&got[0]), expected);
        }
    }
    let outside = Tensor::from_vec([1, 2], vec![0i64, 2]).expect("fits");
    assert!(RotaryEmbedding::default().evaluate(&[x, cos, sin, outside]).is_err());
}

#[test]
fn linear_attention_sums_outer_products() {
    let one = |v: &[f32]| Tensor::from_vec([1, 2, 1], v.to_vec()).expect("fits");
    let (q, k, v) = (one(&[1., 2.]), one(&[3., 4.]), one(&[5., 6.]));
    let op = LinearAttention { update_rule: UpdateRule::Linear, ..Default::default() };
    let got = op.evaluate(&[q.clone(), k.clone(), v.clone()]).expect("runs");
    assert_eq!(values(&got[0]), [15., 78.]);
    assert_eq!(values(&got[1]), [39.]);
    assert!(LinearAttention::default().evaluate(&[q, k, v]).is_err());
}
