//! Which values and nodes somebody reads.

use super::Executable;

/// Values that nodes from `end` on read.
pub(super) fn wanted_later(exe: &Executable, end: usize) -> Vec<bool> {
    let mut wanted = vec![false; exe.program.values.len()];
    for value in exe.program.nodes[end..].iter().flat_map(|n| &n.inputs) {
        wanted[*value as usize] = true;
    }
    wanted
}

/// Nodes among `computed` whose results somebody reads at run time.
pub(super) fn needed_nodes(exe: &Executable, computed: &[usize], wanted: &[bool]) -> Vec<usize> {
    let mut read: Vec<bool> = wanted.to_vec();
    for p in &exe.program.outputs {
        read[p.value as usize] = true;
    }
    let mut needed: Vec<usize> = computed
        .iter()
        .rev()
        .copied()
        .filter(|index| {
            let node = exe.node(*index);
            let used = node.outputs.iter().any(|v| read[*v as usize]);
            if used {
                node.inputs.iter().for_each(|v| read[*v as usize] = true);
            }
            used
        })
        .collect();
    needed.reverse();
    needed
}
