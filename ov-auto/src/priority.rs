//! `MODEL_PRIORITY` across devices: a model leaves alone what models of higher priority are on.
//!
//! As in OpenVINO it is decided when a model is compiled, so the order of compiling matters.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use ov_core::property::hint::Priority;

/// Models by device and priority, of the whole process.
static IN_USE: Mutex<BTreeMap<String, [usize; 3]>> = Mutex::new(BTreeMap::new());

/// A model's claim on a device, until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    device: String,
    priority: Priority,
}

impl Hold {
    pub(crate) fn new(device: &str, priority: Priority) -> Self {
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.entry(device.to_owned()).or_default()[priority as usize] += 1;
        Self { device: device.to_owned(), priority }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = in_use.get_mut(&self.device) {
            counts[self.priority as usize] = counts[self.priority as usize].saturating_sub(1);
        }
    }
}

/// Moves devices that models of strictly higher priority are on behind the others; when all are, the last one leads.
pub(crate) fn make_way(names: Vec<String>, priority: Priority) -> Vec<String> {
    let in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    let is_taken = |name: &String| {
        in_use.get(name).is_some_and(|c| c[priority as usize + 1..].iter().any(|n| *n > 0))
    };
    let (taken, mut free): (Vec<String>, Vec<String>) = names.into_iter().partition(is_taken);
    if free.is_empty() {
        free.extend(taken.into_iter().rev());
    } else {
        free.extend(taken);
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_priorities_make_way_for_higher_ones() {
        let names = || ["P_A", "P_B", "P_CPU"].map(str::to_owned).to_vec();
        let order = |priority| make_way(names(), priority).join(",");
        assert_eq!(order(Priority::Low), "P_A,P_B,P_CPU");
        let high = Hold::new("P_A", Priority::High);
        assert_eq!(order(Priority::High), "P_A,P_B,P_CPU");
        assert_eq!(order(Priority::Medium), "P_B,P_CPU,P_A");
        let medium = Hold::new("P_B", Priority::Medium);
        assert_eq!(order(Priority::Medium), "P_B,P_CPU,P_A");
        assert_eq!(order(Priority::Low), "P_CPU,P_A,P_B");
        let cpu = Hold::new("P_CPU", Priority::High);
        assert_eq!(order(Priority::Low), "P_CPU,P_B,P_A");
        drop((high, medium, cpu));
        assert_eq!(order(Priority::Low), "P_A,P_B,P_CPU");
    }
}
