//! Which processors models have reserved for themselves, one registry per process.
//!
//! A reservation keeps models off that are compiled after it; those from before stay where they are. It takes whole
//! cores. The threads of the model and of its asynchronous requests are bound to its processors; a thread that calls
//! `infer` is the caller's own and stays as it is.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use ov_core::{
    error::{DeviceError, Result},
    property::{ProcessorSet, PropertyMap},
};

use crate::{DEVICE_NAME, config::CpuConfig, placement::Eligible, topology::Topology};

/// The reservations of a process.
#[derive(Debug)]
pub(crate) struct Reservations {
    held: Mutex<Vec<(u64, ProcessorSet)>>,
    next: AtomicU64,
}

/// Those of this process.
static RESERVATIONS: Reservations = Reservations::new();

/// Processors that a model has for itself, until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    reservations: &'static Reservations,
    number: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut held = self.reservations.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|(number, _)| *number != self.number);
    }
}

/// Resolves properties for a compile on the processors that no model has reserved, and reserves those of the result if
/// the properties say so.
///
/// # Errors
/// As [`CpuConfig::resolve`]; [`DeviceError::Reserved`] when nothing is left.
pub(crate) fn claim(
    properties: &PropertyMap,
    topology: &Topology,
) -> Result<(CpuConfig, Option<Lease>)> {
    RESERVATIONS.claim(properties, topology)
}

impl Reservations {
    const fn new() -> Self {
        Self { held: Mutex::new(Vec::new()), next: AtomicU64::new(0) }
    }

    fn claim(
        &'static self,
        properties: &PropertyMap,
        topology: &Topology,
    ) -> Result<(CpuConfig, Option<Lease>)> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let reserved = held.iter().flat_map(|(_, set)| set.ids()).copied().collect();
        let config = CpuConfig::resolve_beside(properties, topology, &reserved)?;
        if !config.reservation {
            return Ok((config, None));
        }
        // A core is reserved with all its logical processors: they share what makes it fast.
        let used: ProcessorSet =
            config.places.iter().flat_map(|place| &place.processors).copied().collect();
        let cores: ProcessorSet =
            topology.processors.iter().filter(|p| used.contains(p.id)).map(|p| p.core).collect();
        let whole = topology.processors.iter().filter(|p| cores.contains(p.core)).map(|p| p.id);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        held.push((number, whole.collect()));
        Ok((config, Some(Lease { reservations: self, number })))
    }
}

/// The error of a compile for which no processor is left.
#[cold]
pub(crate) fn nothing_left(eligible: &Eligible, reserved: &ProcessorSet) -> ov_core::Error {
    DeviceError::Reserved {
        name: DEVICE_NAME.to_owned(),
        asked: format!("processors among {} ({})", eligible.topology.ids(), eligible.core_type),
        reserved: reserved.to_string(),
        hint: ": drop a model that was compiled with ENABLE_CPU_RESERVATION, or leave it fewer processors with \
               INFERENCE_NUM_THREADS or CPU_PROCESSORS"
            .to_owned(),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::machines::{self, Machine};

    fn claim(
        reservations: &'static Reservations,
        machine: &Machine,
        properties: &[(&str, &str)],
    ) -> Result<(CpuConfig, Option<Lease>)> {
        let mut map = PropertyMap::new();
        for (name, text) in properties {
            map.set_text(name, text).expect("valid");
        }
        reservations.claim(&map, &machine.topology())
    }

    fn processors(config: &CpuConfig) -> String {
        let ids: ProcessorSet = config.places.iter().flat_map(|p| &p.processors).copied().collect();
        ids.to_string()
    }

    fn reservations() -> &'static Reservations {
        Box::leak(Box::new(Reservations::new()))
    }

    #[test]
    fn a_reserving_model_has_its_processors_for_itself_until_it_is_dropped() {
        let here = reservations();
        let machine = machines::plain(8);
        let reserve = ("ENABLE_CPU_RESERVATION", "YES");
        let (first, lease) =
            claim(here, &machine, &[reserve, ("INFERENCE_NUM_THREADS", "3")]).expect("free");
        assert_eq!(processors(&first), "0-2");
        assert!(first.pinning, "reserving pins");
        let (other, none) = claim(here, &machine, &[]).expect("five are left");
        assert!(none.is_none());
        assert_eq!((processors(&other).as_str(), other.threads), ("3-7", 5));
        assert!(other.places[0].is_confined && !other.pinning);
        let (second, all) = claim(here, &machine, &[reserve]).expect("five are left");
        assert_eq!(processors(&second), "3-7");
        let error = claim(here, &machine, &[("INFERENCE_NUM_THREADS", "1")]).expect_err("full");
        assert_eq!(
            error.to_string(),
            "No CPU resources available: asked for processors among 0-7 (ANY_CORE), reserved by other models are 0-7: \
             drop a model that was compiled with ENABLE_CPU_RESERVATION, or leave it fewer processors with \
             INFERENCE_NUM_THREADS or CPU_PROCESSORS"
        );
        drop(lease);
        assert_eq!(processors(&claim(here, &machine, &[]).expect("three are back").0), "0-2");
        drop(all);
        let (whole, _) = claim(here, &machine, &[]).expect("all are back");
        assert_eq!((processors(&whole).as_str(), whole.places[0].is_confined), ("0-7", false));
    }

    #[test]
    fn cores_are_reserved_with_their_siblings() {
        let here = reservations();
        let reserve = ("ENABLE_CPU_RESERVATION", "YES");
        let (first, _lease) = claim(
            here,
            &machines::HYBRID,
            &[reserve, ("INFERENCE_NUM_THREADS", "2"), ("SCHEDULING_CORE_TYPE", "PCORE_ONLY")],
        )
        .expect("free");
        assert_eq!(processors(&first), "0,2");
        let (rest, _) = claim(here, &machines::HYBRID, &[("PERFORMANCE_HINT", "THROUGHPUT")])
            .expect("some are left");
        assert_eq!(processors(&rest), "4-15");
    }

    #[test]
    fn a_model_confined_to_reserved_processors_fails_though_others_are_free() {
        let here = reservations();
        let reserve = ("ENABLE_CPU_RESERVATION", "YES");
        let p_cores = ("SCHEDULING_CORE_TYPE", "PCORE_ONLY");
        let _held = claim(here, &machines::HYBRID, &[reserve, p_cores]).expect("free");
        for (properties, asked) in
            [(p_cores, "0-7 (PCORE_ONLY)"), (("CPU_PROCESSORS", "2-3"), "2-3 (ANY_CORE)")]
        {
            let error = claim(here, &machines::HYBRID, &[properties]).expect_err("reserved");
            assert!(error.to_string().contains(asked), "{error}");
        }
        claim(here, &machines::HYBRID, &[("SCHEDULING_CORE_TYPE", "ECORE_ONLY")]).expect("free");
    }

    #[test]
    fn a_failed_claim_holds_nothing() {
        let here = reservations();
        let machine = machines::plain(2);
        let wrong = [("ENABLE_CPU_RESERVATION", "YES"), ("INFERENCE_PRECISION_HINT", "i8")];
        claim(here, &machine, &wrong).expect_err("no such precision");
        claim(here, &machine, &[]).expect("free");
        assert!(here.held.lock().expect("not poisoned").is_empty());
    }
}
