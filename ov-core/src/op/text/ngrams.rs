//! Counts of n-grams.

use std::{collections::HashMap, sync::OnceLock};

use crate::{
    choice,
    op::{
        AttributeVisitor, InferContext, OpAttributes, OpError, OpKind, OpResult, OpRules,
        OutputType, movement::checked_len,
    },
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

choice! {
    /// What becomes of a count.
    pub enum Weighting {
        /// It is given.
        Tf = "TF",
        /// Whether there is one, times the weight.
        Idf = "IDF",
        /// It is given times the weight.
        TfIdf = "TFIDF",
    }
}

/// How often each n-gram of a pool occurs in a row of tokens (`[c]` or `[n, c]`, integers or texts), with skips between
/// tokens. <https://onnx.ai/onnx/operators/onnx__TfIdfVectorizer.html>
#[derive(Clone, Debug, Default)]
pub struct TfIdfVectorizer {
    /// What becomes of counts.
    pub mode: Weighting,
    /// Shortest n-gram.
    pub min_gram_length: i64,
    /// Longest n-gram.
    pub max_gram_length: i64,
    /// Most tokens left out between two tokens of an n-gram.
    pub max_skip_count: i64,
    /// Where 1-grams, 2-grams, … start in the pool.
    pub ngram_counts: Vec<i64>,
    /// Column of each n-gram of the pool.
    pub ngram_indexes: Vec<i64>,
    /// The pool, when tokens are integers.
    pub pool_int64s: Vec<i64>,
    /// The pool, when tokens are texts.
    pub pool_strings: Vec<String>,
    /// Weight of each column.
    pub weights: Vec<f64>,
    pool: OnceLock<OpResult<Pool>>,
}

/// The n-grams as a tree: a token leads from one node to the next, and a node may be the end of an n-gram.
#[derive(Clone, Debug, Default)]
struct Pool {
    words: HashMap<String, i64>,
    next: HashMap<(usize, i64), usize>,
    /// Column of the n-gram that ends at each node.
    columns: Vec<Option<usize>>,
}

impl OpAttributes for TfIdfVectorizer {
    const KIND: OpKind = OpKind { name: "TfIdfVectorizer", opset: 0 };

    fn visit(&mut self, visitor: &mut dyn AttributeVisitor) -> OpResult<()> {
        self.pool = OnceLock::new();
        visitor.visit("mode", (&mut self.mode).into())?;
        visitor.visit("min_gram_length", (&mut self.min_gram_length).into())?;
        visitor.visit("max_gram_length", (&mut self.max_gram_length).into())?;
        visitor.visit("max_skip_count", (&mut self.max_skip_count).into())?;
        visitor.visit("ngram_counts", (&mut self.ngram_counts).into())?;
        visitor.visit("ngram_indexes", (&mut self.ngram_indexes).into())?;
        visitor.visit("pool_int64s", (&mut self.pool_int64s).into())?;
        visitor.visit("pool_strings", (&mut self.pool_strings).into())?;
        visitor.visit("weights", (&mut self.weights).into())
    }
}

impl TfIdfVectorizer {
    fn columns(&self) -> OpResult<usize> {
        let wrong = |got: String| OpError::Attribute {
            name: "ngram_indexes",
            got,
            expected: "columns of the output, one per n-gram of the pool".to_owned(),
        };
        let mut columns = 0;
        for index in &self.ngram_indexes {
            let index = usize::try_from(*index).map_err(|_| wrong(index.to_string()))?;
            columns = columns.max(index.saturating_add(1));
        }
        checked_len(&[columns])
    }

    fn pool(&self) -> OpResult<&Pool> {
        self.pool.get_or_init(|| self.build_pool()).as_ref().map_err(Clone::clone)
    }

    fn build_pool(&self) -> OpResult<Pool> {
        let mut pool = Pool { columns: vec![None], ..Pool::default() };
        op_ensure!(
            self.pool_int64s.is_empty() || self.pool_strings.is_empty(),
            "both pool_int64s and pool_strings are given, expected one of them"
        );
        op_ensure!(
            1 <= self.min_gram_length && self.min_gram_length <= self.max_gram_length,
            "n-grams of length {} to {}",
            self.min_gram_length,
            self.max_gram_length
        );
        op_ensure!(self.max_skip_count >= 0, "max_skip_count is {}", self.max_skip_count);
        let tokens: Vec<i64> = if self.pool_strings.is_empty() {
            self.pool_int64s.clone()
        } else {
            let mut number = |w: &String| {
                let next = pool.words.len() as i64;
                *pool.words.entry(w.clone()).or_insert(next)
            };
            self.pool_strings.iter().map(&mut number).collect()
        };
        let mut ids = self.ngram_indexes.iter();
        for (i, start) in self.ngram_counts.iter().enumerate() {
            let (size, end) = (i + 1, self.ngram_counts.get(i + 1).copied());
            let end = end.unwrap_or(tokens.len() as i64);
            let range = usize::try_from(*start).ok().zip(usize::try_from(end).ok());
            let grams = range.and_then(|(s, e)| tokens.get(s..e)).filter(|g| g.len() % size == 0);
            let grams = grams.ok_or_else(|| {
                OpError::Invalid(format!(
                    "{size}-grams are items {start} to {end} of a pool of {}",
                    tokens.len()
                ))
            })?;
            let wanted = (self.min_gram_length..=self.max_gram_length).contains(&(size as i64));
            for gram in grams.chunks_exact(size) {
                let column = ids.next().ok_or_else(|| {
                    OpError::Invalid(format!("{} ngram_indexes for more n-grams", self.ngram_indexes.len()))
                })?;
                if wanted {
                    let node = gram.iter().fold(0, |node, token| {
                        let fresh = pool.columns.len();
                        let next = *pool.next.entry((node, *token)).or_insert(fresh);
                        if next == fresh {
                            pool.columns.push(None);
                        }
                        next
                    });
                    pool.columns[node] = usize::try_from(*column).ok();
                }
            }
        }
        Ok(pool)
    }

    /// Counts the n-grams of a row into `counts`, one per column. 1-grams are counted once, whatever the skips.
    fn count(&self, pool: &Pool, row: &[i64], counts: &mut [f32]) {
        let (mut shortest, longest) = (self.min_gram_length as usize, self.max_gram_length as usize);
        for distance in 1..=(self.max_skip_count as usize).saturating_add(1).min(row.len().max(1)) {
            for start in 0..row.len() {
                let mut node = 0;
                for (size, token) in row[start..].iter().step_by(distance).take(longest).enumerate() {
                    match pool.next.get(&(node, *token)) {
                        Some(next) => node = *next,
                        None => break,
                    }
                    if let Some(column) = pool.columns[node].filter(|_| size + 1 >= shortest) {
                        counts[column] += 1.0;
                    }
                }
            }
            shortest = shortest.max(2);
            if shortest > longest {
                break;
            }
        }
    }
}

impl OpRules for TfIdfVectorizer {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        cx.expect_rank(0, 0..=2)?;
        let texts = !self.pool_strings.is_empty();
        cx.expect_type(0, if texts { "texts" } else { "an integer type" }, |t| {
            if texts { t == ElementType::String } else { t.is_integer() }
        })?;
        self.pool()?;
        let columns = Dimension::fixed(self.columns()?);
        let shape = match cx.shape(0).rank() {
            Some(2) => PartialShape::new(&[cx.shape(0).dim(0), columns]),
            Some(_) => PartialShape::new(&[columns]),
            None => PartialShape::dynamic(),
        };
        Ok(vec![OutputType::new(ElementType::F32, shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (pool, columns) = (self.pool()?, self.columns()?);
        let tokens: Vec<i64> = match inputs[0].as_strings() {
            Ok(texts) => texts.iter().map(|t| pool.words.get(t).copied().unwrap_or(-1)).collect(),
            Err(_) => inputs[0].to_i64_vec()?,
        };
        let shape = match *inputs[0].shape().as_ref() {
            [] | [_] => vec![columns],
            [rows, _] => vec![rows, columns],
            _ => return Err(OpError::Invalid(format!("tokens of shape {}", inputs[0].shape()))),
        };
        let mut out = vec![0f32; checked_len(&shape)?];
        let width = inputs[0].shape().last().copied().unwrap_or(1);
        if width > 0 && columns > 0 {
            for (row, counts) in tokens.chunks_exact(width).zip(out.chunks_exact_mut(columns)) {
                self.count(pool, row, counts);
                if self.mode == Weighting::Idf {
                    counts.iter_mut().for_each(|c| *c = c.min(1.0));
                }
                if self.mode != Weighting::Tf {
                    counts.iter_mut().zip(&self.weights).for_each(|(c, w)| *c *= *w as f32);
                }
            }
        }
        Ok(vec![Tensor::from_vec(shape, out)?])
    }
}
