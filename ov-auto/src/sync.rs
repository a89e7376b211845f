//! Primitives of synchronisation: those of std, or in unit tests those of the model checker.

#[cfg(test)]
pub(crate) use shuttle::sync::{Arc, Mutex, atomic};
#[cfg(not(test))]
pub(crate) use std::sync::{Arc, Mutex, atomic};

pub(crate) use std::sync::PoisonError;
