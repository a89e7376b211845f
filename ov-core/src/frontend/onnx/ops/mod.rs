//! The table of ONNX operators: domain, name, first version, converter.

use std::sync::OnceLock;

use rustc_hash::FxHashMap;

use super::{ConvertResult, NodeContext};

/// Converts one node.
pub type Convert = fn(&mut NodeContext<'_, '_>) -> ConvertResult;

/// One line of the table: domain (empty for `ai.onnx`), operator, the first opset of this form, converter.
pub type OnnxOp = (&'static str, &'static str, i64, Convert);

macro_rules! families {
    ($($family:ident),* $(,)?) => {
        $(mod $family;)*

        const FAMILIES: &[&[OnnxOp]] = &[$($family::OPS),*];
    };
}

families!(
    activation,
    arithmetic,
    attention,
    comparison,
    concat,
    constant,
    contrib,
    control_flow,
    convert,
    convolution,
    einsum,
    gather,
    generate,
    logical,
    matmul,
    ml,
    normalization,
    pad,
    pooling,
    quantize,
    random,
    recurrent,
    reduction,
    reshape,
    resize,
    scatter,
    select,
    sequence,
    signal,
    slice,
    softmax,
    text,
    topk,
    training,
    transpose,
    vision,
);

/// Every converter.
pub fn all() -> impl Iterator<Item = &'static OnnxOp> {
    FAMILIES.iter().copied().flatten()
}

/// The converter of the newest form of an operator that is not newer than `opset`.
pub(super) fn find(domain: &str, op: &str, opset: i64) -> Option<Convert> {
    static FORMS: OnceLock<FxHashMap<&str, Vec<&OnnxOp>>> = OnceLock::new();
    let forms = FORMS.get_or_init(|| {
        let mut forms: FxHashMap<_, Vec<_>> = FxHashMap::default();
        all().for_each(|form| forms.entry(form.1).or_default().push(form));
        forms
    });
    forms
        .get(op)?
        .iter()
        .filter(|(d, _, since, _)| *d == domain && *since <= opset)
        .max_by_key(|(_, _, since, _)| *since)
        .map(|(_, _, _, convert)| *convert)
}

/// `; the nearest known operators are …`, or nothing.
pub(super) fn nearest(domain: &str, op: &str) -> String {
    let wanted = op.to_ascii_lowercase();
    let mut scored: Vec<(usize, &str, &str, i64)> = all()
        .map(|(d, name, since, _)| {
            let distance =
                edit_distance(&wanted, &name.to_ascii_lowercase()) + usize::from(*d != domain);
            (distance, *d, *name, *since)
        })
        .filter(|(distance, ..)| *distance <= wanted.len().div_ceil(2))
        .collect();
    scored.sort_unstable();
    scored.dedup_by_key(|(_, d, n, _)| (*d, *n));
    let names: Vec<String> = scored
        .iter()
        .take(3)
        .map(|(_, d, n, since)| {
            format!("{}::{n} (since opset {since})", if d.is_empty() { "ai.onnx" } else { d })
        })
        .collect();
    if names.is_empty() { String::new() } else { format!("; nearest known: {}", names.join(", ")) }
}

/// Levenshtein distance.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_form_that_is_old_enough_is_found() {
        assert!(find("", "Elu", 5).is_none());
        assert!(find("", "Elu", 22).is_some());
        assert!(find("com.example", "Elu", 22).is_none());
        assert!(nearest("", "Ellu").contains("ai.onnx::Elu"));
        assert_eq!(nearest("", "Zyxwvutsrq"), "");
    }

    #[test]
    fn no_form_is_listed_twice() {
        let mut seen = std::collections::HashSet::new();
        for (domain, op, since, _) in all() {
            assert!(
                seen.insert((domain, op, since)),
                "{domain}::{op} since {since} is listed twice"
            );
        }
    }
}
