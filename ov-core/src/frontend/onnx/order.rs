//! The order in which the nodes of a graph are converted: the file's where it works, else producers before consumers.

use std::collections::HashMap;

use super::proto::{GraphProto, NodeProto};

/// Nodes that wait for each other: the names along the way, the first one again at the end.
#[derive(Debug)]
pub(super) struct Cycle(pub(super) String);

/// Positions of `nodes` in an order of execution, or `None` when the file's own order is one.
///
/// The specification asks for sorted files, but other runtimes take unsorted ones, so exporters write them.
pub(super) fn sorted(nodes: &[NodeProto]) -> Result<Option<Vec<usize>>, Cycle> {
    let mut makers: HashMap<&str, usize> = HashMap::with_capacity(nodes.len());
    for (at, node) in nodes.iter().enumerate() {
        for name in node.output.iter().filter(|n| !n.is_empty()) {
            makers.entry(name).or_insert(at);
        }
    }
    let needs = |node: &NodeProto| -> Vec<usize> {
        let mut needed = Vec::new();
        read_names(node, &mut |name| needed.extend(makers.get(name)));
        needed
    };
    if nodes.iter().enumerate().all(|(at, node)| {
        let mut in_order = true;
        read_names(node, &mut |name| in_order &= makers.get(name).is_none_or(|m| *m < at));
        in_order
    }) {
        return Ok(None);
    }
    let mut state = vec![State::New; nodes.len()];
    let mut order = Vec::with_capacity(nodes.len());
    let mut stack: Vec<(usize, Vec<usize>)> = Vec::new();
    for root in 0..nodes.len() {
        if state[root] != State::New {
            continue;
        }
        state[root] = State::Open;
        stack.push((root, needs(&nodes[root])));
        while let Some((at, waiting)) = stack.last_mut() {
            let Some(next) = waiting.pop() else {
                state[*at] = State::Done;
                order.push(*at);
                stack.pop();
                continue;
            };
            match state[next] {
                State::New => {
                    state[next] = State::Open;
                    stack.push((next, needs(&nodes[next])));
                }
                State::Open => {
                    let on_the_way = stack.iter().map(|(n, _)| *n).skip_while(|n| *n != next);
                    let names: Vec<&str> =
                        on_the_way.chain([next]).map(|n| shown(&nodes[n])).collect();
                    return Err(Cycle(path(&names)));
                }
                State::Done => {}
            }
        }
    }
    Ok(Some(order))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Done,
}

/// `a -> b -> a`, with the middle left out when it is long.
pub(super) fn path(names: &[&str]) -> String {
    const SHOWN: usize = 12;
    if names.len() <= SHOWN {
        return names.join(" -> ");
    }
    let (head, tail) = (&names[..SHOWN / 2], &names[names.len() - SHOWN / 2..]);
    format!("{} -> ({} more) -> {}", head.join(" -> "), names.len() - SHOWN, tail.join(" -> "))
}

/// A node's name, or its first output's when it has none.
fn shown(node: &NodeProto) -> &str {
    if node.name.is_empty() { node.output.first().map_or("", String::as_str) } else { &node.name }
}

/// Calls `see` with every name that a node reads from the graph around it, those of its nested graphs included.
fn read_names<'n>(node: &'n NodeProto, see: &mut dyn FnMut(&'n str)) {
    for name in node.input.iter().filter(|n| !n.is_empty()) {
        see(name);
    }
    for graph in graphs(node) {
        captured_names(graph, see);
    }
}

/// The graphs inside a node.
pub(super) fn graphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs))
}

fn captured_names<'n>(graph: &'n GraphProto, see: &mut dyn FnMut(&'n str)) {
    let mut own: std::collections::HashSet<&str> = graph
        .input
        .iter()
        .map(|i| i.name.as_str())
        .chain(graph.initializer.iter().map(|t| t.name.as_str()))
        .chain(
            graph.sparse_initializer.iter().filter_map(|s| Some(s.values.as_ref()?.name.as_str())),
        )
        .collect();
    own.extend(graph.node.iter().flat_map(|n| &n.output).map(String::as_str));
    let mut see_outer = |name: &'n str| {
        if !own.contains(name) {
            see(name);
        }
    };
    for node in &graph.node {
        read_names(node, &mut see_outer);
    }
    for output in &graph.output {
        see_outer(&output.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::onnx::proto::AttributeProto;

    fn node(inputs: &[&str], outputs: &[&str]) -> NodeProto {
        NodeProto {
            input: inputs.iter().map(|s| (*s).to_owned()).collect(),
            output: outputs.iter().map(|s| (*s).to_owned()).collect(),
            ..NodeProto::default()
        }
    }

    #[test]
    fn a_sorted_file_keeps_its_order() {
        let nodes = [node(&["x"], &["a"]), node(&["a", ""], &["b"]), node(&["x"], &["c"])];
        assert_eq!(sorted(&nodes).expect("no cycle"), None);
    }

    #[test]
    fn producers_come_before_consumers() {
        let nodes = [node(&["b", "c"], &["d"]), node(&["a"], &["b"]), node(&["b"], &["c"])];
        assert_eq!(sorted(&nodes).expect("no cycle"), Some(vec![1, 2, 0]));
    }

    #[test]
    fn a_nested_graph_waits_for_what_it_captures() {
        let body = GraphProto {
            node: vec![node(&["late", "own"], &["y"]), node(&["x"], &["own"])],
            ..GraphProto::default()
        };
        let mut branch = node(&["c"], &["out"]);
        branch.attribute.push(AttributeProto { g: Some(body), ..AttributeProto::default() });
        let nodes = [branch, node(&["x"], &["late"])];
        assert_eq!(sorted(&nodes).expect("no cycle"), Some(vec![1, 0]));
    }

    #[test]
    fn a_cycle_is_told_with_its_way() {
        for (nodes, way) in [
            (vec![node(&["a"], &["a"])], "a -> a"),
            (vec![node(&["x"], &["s"]), node(&["c"], &["b"]), node(&["b"], &["c"])], "b -> c -> b"),
        ] {
            assert_eq!(sorted(&nodes).expect_err("a cycle").0, way);
        }
        let names: Vec<String> = (0..30).map(|i| format!("n{i}")).collect();
        let ring: Vec<NodeProto> =
            (0..30).map(|i| node(&[&names[(i + 1) % 30]], &[&names[i]])).collect();
        let told = sorted(&ring).expect_err("a cycle").0;
        assert!(told.starts_with("n0 -> n1 -> ") && told.contains("more"), "{told}");
    }
}
