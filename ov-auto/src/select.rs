//! Which devices, in which order.

use ov_core::{
    PropertyMap, Result,
    error::{DeviceError, PropertyError},
    plugin::{DeviceInfo, DeviceResolver},
    property::{auto, device, hint::Priority},
};

use crate::{DEVICE_NAME, priority::make_way};

/// The device that serves while a better one compiles: it is there at once.
const HELPER: &str = "CPU";

/// A device that may run the model.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) properties: PropertyMap,
    /// Whether it may serve while a better one compiles.
    pub(crate) is_helper: bool,
}

/// The candidates in order of preference, each with the properties that it knows.
///
/// # Errors
/// Those of the list of names; properties that no candidate knows.
pub(crate) fn plan(
    properties: &PropertyMap,
    priority: Priority,
    devices: &dyn DeviceResolver,
) -> Result<Vec<Candidate>> {
    let list = properties.get_or(device::PRIORITIES, Vec::new())?;
    let names = make_way(candidates(&list, &devices.devices())?, priority);
    let mut own = vec![device::PRIORITIES.name(), device::PROPERTIES.name()];
    own.extend(auto::ALL.iter().map(|p| p.name));
    let shared: Vec<(&str, &str)> = properties.iter().filter(|(n, _)| !own.contains(n)).collect();
    if let Some((name, _)) =
        shared.iter().find(|(n, _)| !names.iter().any(|d| devices.accepts(d, n)))
    {
        return Err(PropertyError::Unknown {
            name: (*name).to_owned(),
            device: format!("any device that {DEVICE_NAME} may choose ({})", names.join(", ")),
            nearest: String::new(),
        }
        .into());
    }
    let single = properties.get_or(device::PROPERTIES, Default::default())?.0;
    if let Some(name) = single
        .keys()
        .find(|n| !names.contains(n) && !devices.devices().iter().any(|(d, _)| d == *n))
    {
        return Err(DeviceError::BadName {
            text: name.clone(),
            detail: format!("DEVICE_PROPERTIES names a device that is not registered; {DEVICE_NAME} may choose {}", names.join(", ")),
        }
        .into());
    }
    names
        .into_iter()
        .map(|name| {
            let mut map = PropertyMap::new();
            for (property, text) in &shared {
                if devices.accepts(&name, property) {
                    map.set_text(property, text)?;
                }
            }
            for (property, text) in single.get(&name).into_iter().flatten() {
                map.set_text(property, text)?;
            }
            let is_helper = name == HELPER;
            Ok(Candidate { name, properties: map, is_helper })
        })
        .collect()
}

/// What is registered, with what each probe found.
type Registered = [(String, Result<Vec<DeviceInfo>, String>)];

/// The usable devices of a list of names and exclusions (all when it is empty), in order of preference.
///
/// # Errors
/// Names that are not registered, twice the same, both listed and excluded; nothing usable, with the reasons.
pub(crate) fn candidates(list: &[String], registered: &Registered) -> Result<Vec<String>> {
    let bad = |detail: String| DeviceError::BadName {
        text: format!("{DEVICE_NAME}:{}", list.join(",")),
        detail,
    };
    let (mut listed, mut excluded) = (Vec::new(), Vec::new());
    for entry in list {
        let (name, to) = match entry.strip_prefix('-') {
            Some(name) => (name, &mut excluded),
            None => (entry.as_str(), &mut listed),
        };
        let kind = name.split_once('.').map_or(name, |(kind, _)| kind);
        if kind == DEVICE_NAME {
            return Err(bad(format!("{DEVICE_NAME} cannot choose itself")).into());
        }
        if !registered.iter().any(|(r, _)| r == kind) {
            let known: Vec<&str> = registered.iter().map(|(r, _)| r.as_str()).collect();
            return Err(bad(format!(
                "{name:?} is not registered (registered: {})",
                known.join(", ")
            ))
            .into());
        }
        if to.contains(&name) {
            return Err(bad(format!("{name} is named twice")).into());
        }
        to.push(name);
    }
    if let Some(both) = listed.iter().find(|n| excluded.contains(n)) {
        return Err(bad(format!("{both} is both listed and excluded")).into());
    }
    if listed.is_empty() {
        listed = registered.iter().map(|(r, _)| r.as_str()).collect();
        listed.sort_by_key(|name| rank(name));
    }
    listed.retain(|name| !excluded.contains(name));
    let mut reasons = Vec::new();
    let usable: Vec<String> = listed
        .iter()
        .filter(|name| {
            let (kind, id) = name.split_once('.').map_or((**name, None), |(k, i)| (k, Some(i)));
            let found = registered.iter().find(|(r, _)| r == kind).map(|(_, f)| f);
            let reason = match found {
                Some(Ok(devices)) if id.is_none_or(|id| devices.iter().any(|d| d.id == id)) => {
                    return true;
                }
                Some(Err(reason)) => reason.as_str(),
                _ => "there is no device of that number",
            };
            tracing::debug!(device = name, reason, "not a candidate");
            reasons.push(format!("{name}: {reason}"));
            false
        })
        .map(|name| (*name).to_owned())
        .collect();
    if usable.is_empty() {
        let reason = if reasons.is_empty() {
            "no other device is left: link one, for example ov-cpu with `use ov_cpu as _;`"
                .to_owned()
        } else {
            reasons.join("; ")
        };
        return Err(DeviceError::NotUsable { name: DEVICE_NAME.to_owned(), reason }.into());
    }
    Ok(usable)
}

/// Accelerators, then others, then the CPU.
fn rank(name: &str) -> u8 {
    match name {
        "CUDA" => 0,
        "CPU" => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(text: &str) -> String {
        let device = |id: &str| DeviceInfo { id: id.to_owned(), full_name: String::new() };
        let registered = [
            ("CPU".to_owned(), Ok(vec![device("")])),
            ("CUDA".to_owned(), Ok(vec![device("0"), device("1")])),
            ("NPU".to_owned(), Err("no driver".to_owned())),
            ("TEST".to_owned(), Ok(vec![device("")])),
        ];
        let list: Vec<String> =
            text.split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect();
        match candidates(&list, &registered) {
            Ok(names) => names.join(","),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn lists_are_strict_and_the_cpu_comes_last() {
        for (list, expected) in [
            ("", "CUDA,TEST,CPU"),
            ("CPU,CUDA", "CPU,CUDA"),
            ("-CUDA", "TEST,CPU"),
            ("CUDA.1,CPU", "CUDA.1,CPU"),
            ("NPU,CPU", "CPU"),
        ] {
            assert_eq!(choose(list), expected, "{list}");
        }
        for (list, expected) in [
            ("GPU,CPU", "\"GPU\" is not registered (registered: CPU, CUDA, NPU, TEST)"),
            ("-GPU", "\"GPU\" is not registered"),
            ("CPU,CPU", "CPU is named twice"),
            ("CPU,-CPU", "CPU is both listed and excluded"),
            ("AUTO", "AUTO cannot choose itself"),
            ("NPU", "device AUTO is linked but not usable: NPU: no driver"),
            ("CUDA.7", "CUDA.7: there is no device of that number"),
            ("-CPU,-CUDA,-TEST", "NPU: no driver"),
        ] {
            assert!(choose(list).contains(expected), "{list}: {}", choose(list));
        }
    }
}
