//! The one place that says what requests run on: read without a lock, replaced under one.

use crate::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// A shared value that is replaced now and then, with a number that changes whenever it does.
///
/// A reader that keeps the number of what it has sees with one load that there is something newer. What was replaced
/// lives as long as a reader keeps it.
#[derive(Debug)]
pub(crate) struct Switch<T> {
    epoch: AtomicU64,
    current: Mutex<(u64, Option<Arc<T>>)>,
}

impl<T> Switch<T> {
    /// Without a value; the number is 0.
    pub(crate) fn new() -> Self {
        Self { epoch: AtomicU64::new(0), current: Mutex::new((0, None)) }
    }

    /// The number of the newest value.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The value and its number.
    pub(crate) fn get(&self) -> (u64, Option<Arc<T>>) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (current.0, current.1.clone())
    }

    /// Replaces the value by what `make` gives for its number, and gives the old one, to be dropped outside of locks.
    pub(crate) fn set(&self, make: impl FnOnce(u64) -> Option<Arc<T>>) -> Option<Arc<T>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let number = current.0 + 1;
        let old = std::mem::replace(&mut *current, (number, make(number)));
        self.epoch.store(number, Ordering::Release);
        old.1
    }
}

#[cfg(test)]
mod tests {
    use shuttle::{check_random, thread};

    use super::*;
    use crate::sync::atomic::AtomicUsize;

    /// Counts the live values, and refuses to be used after it was dropped.
    struct Value(Arc<AtomicUsize>, u64);

    impl Drop for Value {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn readers_only_go_forward_and_every_old_value_goes() {
        check_random(
            || {
                let live = Arc::new(AtomicUsize::new(0));
                let switch = Arc::new(Switch::<Value>::new());
                let make = |live: &Arc<AtomicUsize>| {
                    let live = Arc::clone(live);
                    move |number| {
                        live.fetch_add(1, Ordering::SeqCst);
                        Some(Arc::new(Value(live, number)))
                    }
                };
                drop(switch.set(make(&live)));
                let readers: Vec<_> = (0..2)
                    .map(|_| {
                        let switch = Arc::clone(&switch);
                        thread::spawn(move || {
                            let mut held = switch.get();
                            for _ in 0..3 {
                                let seen = switch.epoch();
                                if seen != held.0 {
                                    let newer = switch.get();
                                    assert!(newer.0 >= seen && newer.0 > held.0);
                                    held = newer;
                                }
                                let value = held.1.as_ref().expect("never emptied");
                                assert_eq!(value.1, held.0);
                            }
                        })
                    })
                    .collect();
                let writer = {
                    let (switch, live) = (Arc::clone(&switch), Arc::clone(&live));
                    thread::spawn(move || {
                        for _ in 0..2 {
                            drop(switch.set(make(&live)));
                        }
                    })
                };
                for thread in readers.into_iter().chain([writer]) {
                    thread.join().expect("no panic");
                }
                assert_eq!(switch.get().0, 3);
                assert_eq!(live.load(Ordering::SeqCst), 1);
                drop(switch.set(|_| None));
                assert_eq!(live.load(Ordering::SeqCst), 0);
            },
            3000,
        );
    }
}
