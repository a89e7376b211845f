//! Variables in a plan: their values are read where they lie on the device, and what they hold after the inference is
//! written there, in place where nobody could tell.

use std::collections::BTreeMap;

use super::{
    Argument, DevicePlace, HostSource, Kept, KeptFrom, Move, Part, StateMemory, StateUse,
    build::{Builder, Home},
};
use crate::{
    kernels::{Bound, Reject},
    program::ValueId,
};

/// A bound node, with its place in the program.
type BoundNode = (usize, Result<Bound, Reject>);

impl Builder<'_> {
    /// Lets `value` be that of a variable before the inference.
    pub(super) fn read_state(&mut self, value: ValueId, variable: usize) {
        self.on_device[value as usize] = Some(Home::State(StateMemory::Before(variable)));
    }

    /// The variable on the device whose value before the inference this is.
    pub(super) fn variable_of(&self, value: ValueId) -> Option<usize> {
        let exe = self.exe;
        let is_read = |input: usize| exe.program.inputs[input].value == value;
        exe.states.iter().position(|s| s.on_device && is_read(s.input))
    }

    /// Gives values that variables hold after the inference their memory. `assigned`: outputs with their values; `last`:
    /// whether no other stage follows.
    pub(super) fn claim(
        &mut self,
        assigned: &[(usize, ValueId)],
        bound: &mut [BoundNode],
        last: bool,
    ) {
        let exe = self.exe;
        // An inference that fails must not have changed anything. One graph either does not start, or ends, or takes the
        // GPU with it and all that is there.
        let one_graph = last && bound.iter().all(|(_, what)| what.is_ok());
        for (output, value) in assigned {
            let Some(variable) = exe.states.iter().position(|s| s.output == *output) else {
                continue;
            };
            let root = self.root[*value as usize];
            let made = bound.iter().position(|(node, what)| {
                matches!(what, Ok(Bound::Step(_))) && exe.node(*node).outputs.contains(&root)
            });
            let Some(at) = made.filter(|_| exe.states[variable].on_device) else { continue };
            if self.claims.contains_key(&root) || self.known(*value).is_some() {
                continue;
            }
            let in_place = one_graph && self.updates_in_place(variable, root, at, assigned, bound);
            let memory = match (in_place, &mut bound[at].1) {
                (true, Ok(Bound::Step(step))) => {
                    let copies = step.update.map_or(0, |u| u.copies);
                    step.launches.drain(..copies);
                    StateMemory::Before(variable)
                }
                _ => StateMemory::After(variable),
            };
            self.claims.insert(root, memory);
        }
    }

    /// Whether node `at` of `bound`, which makes `root`, may work in the memory of the variable's value before the inference:
    /// it changes some of its elements, and nobody reads the value from then on.
    fn updates_in_place(
        &self,
        variable: usize,
        root: ValueId,
        at: usize,
        assigned: &[(usize, ValueId)],
        bound: &[BoundNode],
    ) -> bool {
        let exe = self.exe;
        let (index, Ok(Bound::Step(step))) = &bound[at] else { return false };
        let Some(update) = step.update else { return false };
        let node = exe.node(*index);
        let before = exe.program.inputs[exe.states[variable].input].value;
        let is_before = |value: &ValueId| self.root[*value as usize] == before;
        let own = node.inputs.iter().enumerate().all(|(i, v)| is_before(v) == (i == update.input));
        let read_later =
            bound[at + 1..].iter().any(|(later, _)| exe.node(*later).inputs.iter().any(is_before));
        let given = self.outputs.contains_key(&before)
            || assigned.iter().any(|(_, value)| is_before(value));
        let same_len = self.state(before).len() == self.state(root).len();
        own && node.outputs.first() == Some(&root) && !read_later && !given && same_len
    }

    /// Says what variables hold after the inference, of those whose values this stage makes.
    pub(super) fn keep(&mut self, assigned: &[(usize, ValueId)]) {
        for (output, value) in assigned {
            let Some(variable) = self.exe.states.iter().position(|s| s.output == *output) else {
                continue;
            };
            let state = self.state(*value);
            let (element_type, shape, len) = (state.element_type, state.shape.clone(), state.len());
            let root = self.root[*value as usize];
            let from = match (self.known(*value), self.on_device[root as usize]) {
                (Some(value), _) => KeptFrom::Held(value),
                (None, Some(Home::State(StateMemory::Before(v)))) if v == variable => {
                    KeptFrom::Same
                }
                (None, Some(Home::State(StateMemory::After(v)))) if v == variable => {
                    KeptFrom::Written
                }
                (None, Some(home)) => {
                    self.opened();
                    let time = self.tick();
                    if let Home::Need(need) = home {
                        self.needs[need].last = time;
                    }
                    let (part, drafts) = self.opened();
                    part.moves.push(Move { from: DevicePlace::Arena(0), to: variable, len });
                    drafts.moves.push(home);
                    KeptFrom::Written
                }
                (None, None) => {
                    let made = HostSource::Made(root);
                    KeptFrom::Host(self.on_host[root as usize].unwrap_or(made))
                }
            };
            self.kept.push(Kept { variable, element_type, shape, from });
        }
    }
}

/// What the parts use of variables' memory.
pub(super) fn uses(parts: &[Part], kept: &[Kept]) -> Vec<StateUse> {
    let mut all: BTreeMap<usize, StateUse> = BTreeMap::new();
    let mut before = |variable: usize| {
        let entry = all.entry(variable).or_default();
        (entry.variable, entry.before) = (variable, true);
    };
    for part in parts {
        let Part::Graph(part) = part else { continue };
        let places = part.moves.iter().map(|m| &m.from);
        for place in places.chain(part.downloads.iter().map(|d| &d.device)) {
            if let DevicePlace::State(StateMemory::Before(variable)) = place {
                before(*variable);
            }
        }
        for argument in part.launches.iter().flat_map(|l| &l.args) {
            if let Argument::State(StateMemory::Before(variable)) = argument {
                before(*variable);
            }
        }
    }
    for kept in kept.iter().filter(|k| matches!(k.from, KeptFrom::Written)) {
        let entry = all.entry(kept.variable).or_default();
        entry.variable = kept.variable;
        entry.after = kept.element_type.byte_len(kept.shape.elements());
    }
    all.into_values().collect()
}
