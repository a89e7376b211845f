//! Tree ensembles: the attributes' lists become the flat tables of [`TreeEnsemble`].

use std::collections::HashMap;

use super::{
    super::super::{ConvertError, NodeContext},
    ConvertResult,
    encode::{cast, choice},
    linear::{label_of, labels},
};
use crate::{
    model::Value,
    op::{
        OpError, OpResult,
        ml::{
            Aggregate, BinaryScores, EnsembleScores, LEAF, MODE_EQUAL, MODE_LESS, MODE_LESS_EQUAL,
            MODE_MEMBER, NAN_LEFT, PostTransform, TreeEnsemble, node_words,
        },
    },
    tensor::{Element, ElementType, Tensor, TensorBuffer},
};

/// Trees whose partial scores are summed together; some thousand trees make enough groups for every thread.
const GROUP: i64 = 64;

/// Modes in the order of `TreeEnsemble`'s numbers.
const MODES: [&str; 7] = [
    "BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER",
];

/// A node of a file. Children are places in the list of nodes, or leaves.
#[derive(Clone, Copy, Debug)]
struct Branch {
    /// Index into [`MODES`].
    mode: u8,
    tracks_missing: bool,
    feature: u32,
    /// For membership, the start of the set.
    split: f64,
    yes: u32,
    no: u32,
}

/// What a leaf gives.
#[derive(Debug, Default)]
struct Leaves {
    /// Where the entries of each leaf begin, and the end.
    offsets: Vec<u32>,
    targets: Vec<u32>,
    weights: Vec<f64>,
}

/// An ensemble as files describe it.
#[derive(Debug)]
struct Ensemble {
    branches: Vec<Branch>,
    roots: Vec<u32>,
    leaves: Leaves,
    members: Vec<f64>,
    targets: usize,
    /// Whether splits or weights are given in `f64`.
    double: bool,
}

fn invalid(text: String) -> OpError {
    OpError::Invalid(text)
}

fn number<T: TryFrom<i64>>(value: i64, what: &str) -> OpResult<T> {
    T::try_from(value).map_err(|_| invalid(format!("{what} is {value}")))
}

/// The nodes of [`TreeEnsemble`], in preorder, and the roots.
fn flatten(e: &Ensemble, ty: ElementType) -> OpResult<(Vec<u32>, Vec<u32>, u32)> {
    let words = node_words(ty);
    let mut nodes: Vec<u32> = Vec::with_capacity(e.branches.len().saturating_mul(words));
    let mut roots = Vec::with_capacity(e.roots.len());
    let mut seen = vec![false; e.branches.len()];
    let mut features = 0;
    // Nodes to write, and where to note their place.
    let mut open: Vec<(u32, usize)> = Vec::new();
    for root in &e.roots {
        if root & LEAF != 0 {
            roots.push(*root);
            continue;
        }
        roots.push((nodes.len() / words) as u32);
        open.push((*root, usize::MAX));
        while let Some((place, noted)) = open.pop() {
            let branch = e.branches.get(place as usize);
            let branch = branch.ok_or_else(|| invalid(format!("there is no node {place}")))?;
            if std::mem::replace(&mut seen[place as usize], true) {
                return Err(invalid(format!("node {place} has two parents, or is its own")));
            }
            let at = nodes.len();
            if let Some(note) = nodes.get_mut(noted) {
                *note = ((at - noted / words * words) / words - 1) as u32;
            }
            if branch.feature > 0x00FF_FFFF {
                return Err(invalid(format!("feature {} is more than 2^24", branch.feature)));
            }
            features = features.max(branch.feature + 1);
            let (mode, swapped) = match MODES[usize::from(branch.mode)] {
                "BRANCH_LEQ" => (MODE_LESS_EQUAL, false),
                "BRANCH_GT" => (MODE_LESS_EQUAL, true),
                "BRANCH_LT" => (MODE_LESS, false),
                "BRANCH_GTE" => (MODE_LESS, true),
                "BRANCH_EQ" => (MODE_EQUAL, false),
                "BRANCH_NEQ" => (MODE_EQUAL, true),
                _ => (MODE_MEMBER, false),
            };
            // NaN differs from everything, and fails every other comparison.
            let nan_is_true = branch.tracks_missing || MODES[usize::from(branch.mode)] == "BRANCH_NEQ";
            let nan_left = if nan_is_true == swapped { 0 } else { NAN_LEFT };
            if mode == MODE_MEMBER {
                nodes.push(branch.split as u32);
                nodes.extend((words == 5).then_some(0));
            } else if words == 5 {
                let bits = branch.split.to_bits();
                nodes.extend([bits as u32, (bits >> 32) as u32]);
            } else {
                nodes.push((branch.split as f32).to_bits());
            }
            let (left, right) = if swapped { (branch.no, branch.yes) } else { (branch.yes, branch.no) };
            nodes.extend([branch.feature | mode << 24 | nan_left, left, right]);
            for (child, slot) in [(right, at + words - 1), (left, at + words - 2)] {
                if child & LEAF == 0 {
                    open.push((child, slot));
                }
            }
        }
    }
    Ok((nodes, roots, features))
}

fn u32s(shape: impl Into<crate::tensor::Shape>, values: Vec<u32>) -> OpResult<Tensor> {
    Ok(Tensor::from_vec(shape, values)?)
}

fn values<T: Element>(values: &[f64]) -> OpResult<Tensor>
where
    Vec<T>: TensorBuffer,
{
    Ok(Tensor::from_vec([values.len()], values.iter().map(|v| T::from_f64(*v)).collect::<Vec<T>>())?)
}

/// The partial scores of the ensemble.
fn partial_scores(
    cx: &mut NodeContext<'_, '_>,
    ensemble: Ensemble,
    aggregate: Aggregate,
) -> Result<Value, ConvertError> {
    let mut x = cx.input(0)?;
    if cx.rank(x)? == 1 {
        x = cx.reshape(x, &[1, -1])?;
    }
    let narrow = matches!(cx.element_type(x), ElementType::F32 | ElementType::F16);
    let ty = if narrow && !ensemble.double { ElementType::F32 } else { ElementType::F64 };
    let x = cast(cx, x, ty)?;
    let (nodes, roots, features) = flatten(&ensemble, ty)?;
    let leaves = ensemble.leaves;
    for target in &leaves.targets {
        if *target as usize >= ensemble.targets {
            let count = ensemble.targets;
            return Err(invalid(format!("a leaf votes for target {target} of {count}")).into());
        }
    }
    let single = leaves.offsets.windows(2).all(|w| w[1] - w[0] == 1);
    let offsets = if single { Vec::new() } else { leaves.offsets };
    let (weights, members) = if ty == ElementType::F64 {
        (values::<f64>(&leaves.weights)?, values::<f64>(&ensemble.members)?)
    } else {
        (values::<f32>(&leaves.weights)?, values::<f32>(&ensemble.members)?)
    };
    let words = node_words(ty);
    let tables = [
        u32s([nodes.len() / words, words], nodes)?,
        u32s([roots.len()], roots)?,
        u32s([offsets.len()], offsets)?,
        u32s([leaves.targets.len()], leaves.targets)?,
        weights,
        members,
    ];
    let mut inputs = vec![x];
    inputs.extend(tables.map(|t| cx.constant(t)));
    let op = TreeEnsemble {
        targets: ensemble.targets as i64,
        group: GROUP,
        features: i64::from(features),
        aggregate,
    };
    cx.add(op, &inputs)
}

/// Numbers in a list of `f32` or a tensor of any float type, and whether they are `f64`.
fn numbers(
    cx: &NodeContext<'_, '_>,
    list: &'static str,
    tensor: &'static str,
) -> Result<(Vec<f64>, bool), ConvertError> {
    if let Some(t) = cx.optional_tensor(tensor)? {
        return Ok((t.to_f64_vec()?, t.element_type() == ElementType::F64));
    }
    let list = cx.attribute(list).map(|a| a.floats.as_slice()).unwrap_or_default();
    Ok((list.iter().map(|v| f64::from(*v)).collect(), false))
}

fn ints<'a>(cx: &'a NodeContext<'_, '_>, name: &str) -> &'a [i64] {
    cx.attribute(name).map(|a| a.ints.as_slice()).unwrap_or_default()
}

/// Where each node of a tree is: by arithmetic where the nodes of a tree are numbered in order, else by look-up.
#[derive(Debug)]
enum Places {
    Ordered(HashMap<i64, (usize, usize)>),
    Any(HashMap<(i64, i64), u32>),
}

impl Places {
    fn new(trees: &[i64], nodes: &[i64]) -> OpResult<Self> {
        let mut spans: HashMap<i64, (usize, usize)> = HashMap::new();
        let mut ordered = true;
        let mut start = 0;
        for part in trees.chunk_by(|a, b| a == b) {
            let span = (start, part.len());
            let numbered = (0..).zip(&nodes[start..start + part.len()]).all(|(i, n)| i == *n);
            ordered &= numbered && spans.insert(part[0], span).is_none();
            start += part.len();
        }
        if ordered {
            return Ok(Self::Ordered(spans));
        }
        let mut places = HashMap::with_capacity(trees.len());
        for (i, key) in trees.iter().copied().zip(nodes.iter().copied()).enumerate() {
            if places.insert(key, i as u32).is_some() {
                return Err(invalid(format!("tree {} has two nodes {}", key.0, key.1)));
            }
        }
        Ok(Self::Any(places))
    }

    fn find(&self, tree: i64, node: i64) -> OpResult<u32> {
        let found = match self {
            Self::Ordered(spans) => spans.get(&tree).and_then(|(start, len)| {
                let node = usize::try_from(node).ok().filter(|n| n < len)?;
                u32::try_from(start + node).ok()
            }),
            Self::Any(places) => places.get(&(tree, node)).copied(),
        };
        found.ok_or_else(|| invalid(format!("tree {tree} has no node {node}")))
    }
}

/// Entries of the leaves, sorted by the node that they belong to.
fn leaf_entries(
    cx: &NodeContext<'_, '_>,
    prefix: &str,
    places: &Places,
    count: usize,
) -> Result<(Leaves, bool), ConvertError> {
    let [trees, nodes, ids] = ["treeids", "nodeids", "ids"].map(|n| ints(cx, &format!("{prefix}_{n}")));
    let (weights, double) = if prefix == "class" {
        numbers(cx, "class_weights", "class_weights_as_tensor")?
    } else {
        numbers(cx, "target_weights", "target_weights_as_tensor")?
    };
    if [trees.len(), nodes.len(), ids.len()] != [weights.len(); 3] {
        return Err(invalid(format!("the lists {prefix}_… differ in length")).into());
    }
    let mut of_node: Vec<u32> = Vec::with_capacity(trees.len());
    for (tree, node) in trees.iter().zip(nodes) {
        of_node.push(places.find(*tree, *node)?);
    }
    let mut offsets = vec![0u32; count + 1];
    for node in &of_node {
        offsets[*node as usize + 1] += 1;
    }
    for i in 1..offsets.len() {
        offsets[i] += offsets[i - 1];
    }
    let mut next = offsets.clone();
    let mut leaves = Leaves { offsets, targets: vec![0; ids.len()], weights: vec![0.0; ids.len()] };
    for ((node, id), weight) in of_node.iter().zip(ids).zip(&weights) {
        let at = &mut next[*node as usize];
        leaves.targets[*at as usize] = number(*id, "a target")?;
        leaves.weights[*at as usize] = *weight;
        *at += 1;
    }
    Ok((leaves, double))
}

/// The ensemble of `TreeEnsembleClassifier` and `TreeEnsembleRegressor`; `prefix` is that of the leaves' lists.
fn read_lists(
    cx: &NodeContext<'_, '_>,
    prefix: &str,
    targets: usize,
) -> Result<Ensemble, ConvertError> {
    let names = ["treeids", "nodeids", "featureids", "truenodeids", "falsenodeids"];
    let [trees, ids, features, yes, no] = names.map(|n| ints(cx, &format!("nodes_{n}")));
    let modes = cx.attribute("nodes_modes").map(|a| a.strings.as_slice()).unwrap_or_default();
    let missing = ints(cx, "nodes_missing_value_tracks_true");
    let (splits, double) = numbers(cx, "nodes_values", "nodes_values_as_tensor")?;
    let count = trees.len();
    if [ids.len(), features.len(), yes.len(), no.len(), modes.len(), splits.len()] != [count; 6]
        || count >= LEAF as usize
    {
        return Err(invalid("the lists nodes_… differ in length".to_owned()).into());
    }
    let places = Places::new(trees, ids)?;
    let (entries, double_weights) = leaf_entries(cx, prefix, &places, count)?;
    // Leaves are numbered in the order of the nodes; branches have no entries.
    let mut leaves = Leaves { offsets: vec![0], ..Leaves::default() };
    let is_leaf = |i: usize| modes[i].as_ref() == b"LEAF";
    let mut leaf_of: Vec<u32> = vec![0; count];
    for (i, leaf) in leaf_of.iter_mut().enumerate().filter(|(i, _)| is_leaf(*i)) {
        *leaf = LEAF | (leaves.offsets.len() - 1) as u32;
        let range = entries.offsets[i] as usize..entries.offsets[i + 1] as usize;
        leaves.targets.extend_from_slice(&entries.targets[range.clone()]);
        leaves.weights.extend_from_slice(&entries.weights[range]);
        leaves.offsets.push(leaves.targets.len() as u32);
    }
    let child = |tree: i64, node: i64| -> OpResult<u32> {
        let place = places.find(tree, node)?;
        Ok(if is_leaf(place as usize) { leaf_of[place as usize] } else { place })
    };
    let mut branches = Vec::with_capacity(count);
    for i in 0..count {
        let leaf = is_leaf(i);
        let mode = MODES.iter().position(|m| m.as_bytes() == modes[i].as_ref());
        let Some(mode) = mode.or_else(|| leaf.then_some(0)).filter(|m| MODES[*m] != "BRANCH_MEMBER") else {
            let got = String::from_utf8_lossy(&modes[i]).into_owned();
            let expected = format!("LEAF or one of {}", MODES[..6].join(", "));
            return Err(OpError::Attribute { name: "nodes_modes", got, expected }.into());
        };
        branches.push(Branch {
            mode: mode as u8,
            tracks_missing: missing.get(i).is_some_and(|m| *m != 0),
            feature: if leaf { 0 } else { number(features[i], "a feature")? },
            split: splits[i],
            yes: if leaf { LEAF } else { child(trees[i], yes[i])? },
            no: if leaf { LEAF } else { child(trees[i], no[i])? },
        });
    }
    // A tree begins with its root.
    let mut begun = std::collections::HashSet::new();
    let roots = (0..count)
        .filter(|i| (*i == 0 || trees[*i] != trees[*i - 1]) && begun.insert(trees[*i]))
        .map(|i| if is_leaf(i) { leaf_of[i] } else { i as u32 })
        .collect();
    Ok(Ensemble { branches, roots, leaves, members: Vec::new(), targets, double: double || double_weights })
}

fn base_values(cx: &NodeContext<'_, '_>) -> Result<Vec<f64>, ConvertError> {
    Ok(numbers(cx, "base_values", "base_values_as_tensor")?.0)
}

pub(super) fn regressor(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let targets = number(cx.i64("n_targets", 1)?, "n_targets")?;
    let aggregate = choice::<Aggregate>(cx, "aggregate_function")?;
    let ensemble = read_lists(cx, "target", targets)?;
    let scores = EnsembleScores {
        aggregate,
        trees: ensemble.roots.len() as i64,
        base_values: base_values(cx)?,
        post_transform: choice::<PostTransform>(cx, "post_transform")?,
        ..EnsembleScores::default()
    };
    let partial = partial_scores(cx, ensemble, aggregate)?;
    Ok(vec![cx.add(scores, &[partial])?])
}

pub(super) fn classifier(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let labels = labels(cx, "classlabels_int64s")?;
    let mut ensemble = read_lists(cx, "class", labels.len().max(1))?;
    let mut base = base_values(cx)?;
    let first = ensemble.leaves.targets.first().copied().unwrap_or(0);
    let mut binary = BinaryScores::No;
    if labels.len() == 2 && ensemble.leaves.targets.iter().all(|t| *t == first) {
        // One score, of the second class whichever is named.
        ensemble.targets = 1;
        ensemble.leaves.targets.fill(0);
        base = base.get(first as usize).or_else(|| base.first()).copied().into_iter().collect();
        let probable = ensemble.leaves.weights.iter().all(|w| *w >= 0.0);
        binary = if probable { BinaryScores::Probability } else { BinaryScores::Margin };
    }
    let scores = EnsembleScores {
        trees: ensemble.roots.len() as i64,
        base_values: base,
        post_transform: choice::<PostTransform>(cx, "post_transform")?,
        binary,
        classify: true,
        ..EnsembleScores::default()
    };
    let partial = partial_scores(cx, ensemble, Aggregate::Sum)?;
    let given = cx.add_multi(scores, &[partial])?;
    Ok(vec![label_of(cx, labels, given[1])?, given[0]])
}

fn given_tensor(cx: &NodeContext<'_, '_>, name: &'static str) -> Result<Tensor, ConvertError> {
    cx.optional_tensor(name)?.ok_or_else(|| {
        OpError::Attribute { name, got: "missing".to_owned(), expected: "a tensor".to_owned() }.into()
    })
}

/// `TreeEnsemble` of opset 5.
fn read_tensors(cx: &NodeContext<'_, '_>, targets: usize) -> Result<Ensemble, ConvertError> {
    let splits = given_tensor(cx, "nodes_splits")?;
    let weights = given_tensor(cx, "leaf_weights")?;
    let double = [&splits, &weights].iter().any(|t| t.element_type() == ElementType::F64);
    let (splits, weights) = (splits.to_f64_vec()?, weights.to_f64_vec()?);
    let modes = given_tensor(cx, "nodes_modes")?.to_i64_vec()?;
    let names = ["featureids", "truenodeids", "falsenodeids", "trueleafs", "falseleafs"];
    let [features, yes, no, yes_leaf, no_leaf] = names.map(|n| ints(cx, &format!("nodes_{n}")));
    let missing = ints(cx, "nodes_missing_value_tracks_true");
    let targets_of = ints(cx, "leaf_targetids");
    let count = modes.len();
    if [splits.len(), features.len(), yes.len(), no.len(), yes_leaf.len(), no_leaf.len()] != [count; 6]
        || targets_of.len() != weights.len()
        || count.max(weights.len()) >= LEAF as usize
    {
        return Err(invalid("the lists of nodes or of leaves differ in length".to_owned()).into());
    }
    let members = cx.optional_tensor("membership_values")?.map(|t| t.to_f64_vec()).transpose()?;
    let mut members = members.unwrap_or_default();
    if members.last().is_some_and(|m| !m.is_nan()) {
        members.push(f64::NAN);
    }
    let mut sets = std::iter::once(0)
        .chain(members.iter().enumerate().filter(|(_, m)| m.is_nan()).map(|(i, _)| i + 1));
    let child = |id: i64, leaf: i64| -> OpResult<u32> {
        let (limit, flag) = if leaf != 0 { (weights.len(), LEAF) } else { (count, 0) };
        let place: u32 = number(id, "a child")?;
        if place as usize >= limit {
            return Err(invalid(format!("there is no node or leaf {id}")));
        }
        Ok(place | flag)
    };
    let mut branches = Vec::with_capacity(count);
    for i in 0..count {
        let mode = usize::try_from(modes[i]).ok().filter(|m| *m < MODES.len());
        let mode = mode.ok_or_else(|| invalid(format!("mode {} is not known", modes[i])))?;
        let split = if MODES[mode] == "BRANCH_MEMBER" {
            let set = sets.next().filter(|s| *s < members.len());
            set.ok_or_else(|| invalid("membership_values has too few sets".to_owned()))? as f64
        } else {
            splits[i]
        };
        branches.push(Branch {
            mode: mode as u8,
            tracks_missing: missing.get(i).is_some_and(|m| *m != 0),
            feature: number(features[i], "a feature")?,
            split,
            yes: child(yes[i], yes_leaf[i])?,
            no: child(no[i], no_leaf[i])?,
        });
    }
    let roots = ints(cx, "tree_roots").iter().map(|r| child(*r, 0)).collect::<OpResult<_>>()?;
    let leaves = Leaves {
        offsets: (0..=weights.len() as u32).collect(),
        targets: targets_of.iter().map(|t| number(*t, "a target")).collect::<OpResult<_>>()?,
        weights,
    };
    Ok(Ensemble { branches, roots, leaves, members, targets, double })
}

pub(super) fn tree_ensemble(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    fn pick<T: Copy>(list: &[T], at: i64, name: &'static str) -> OpResult<T> {
        usize::try_from(at).ok().and_then(|i| list.get(i).copied()).ok_or_else(|| {
            let expected = format!("0 to {}", list.len() - 1);
            OpError::Attribute { name, got: at.to_string(), expected }
        })
    }
    let aggregates = [Aggregate::Average, Aggregate::Sum, Aggregate::Min, Aggregate::Max];
    let transforms = [
        PostTransform::None,
        PostTransform::Softmax,
        PostTransform::Logistic,
        PostTransform::SoftmaxZero,
        PostTransform::Probit,
    ];
    let aggregate = pick(&aggregates, cx.i64("aggregate_function", 1)?, "aggregate_function")?;
    let post_transform = pick(&transforms, cx.i64("post_transform", 0)?, "post_transform")?;
    let targets = number(cx.i64("n_targets", 1)?, "n_targets")?;
    let ensemble = read_tensors(cx, targets)?;
    let x = cx.input(0)?;
    let output_type = cx.element_type(x);
    let trees = ensemble.roots.len() as i64;
    let partial = partial_scores(cx, ensemble, aggregate)?;
    let scores =
        EnsembleScores { aggregate, trees, post_transform, output_type, ..EnsembleScores::default() };
    Ok(vec![cx.add(scores, &[partial])?])
}
