//! Device strings: `CPU`, `CUDA.1`, `AUTO:CUDA,CPU`.

use std::sync::Arc;

use crate::{
    error::{DeviceError, Result},
    plugin::Plugin,
    property::{PropertyMap, device, nearest},
};

/// What a device string names.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) plugin: Arc<dyn Plugin>,
    /// The device with its number, if it has one.
    pub(super) name: String,
    /// What the string says as properties: `DEVICE_ID` or `MULTI_DEVICE_PRIORITIES`.
    pub(super) properties: PropertyMap,
}

/// The parts of a device string: name, number, list.
fn split(text: &str) -> Result<(&str, Option<&str>, Option<&str>)> {
    let bad = |detail: String| DeviceError::BadName { text: text.to_owned(), detail };
    let (head, list) = match text.split_once(':') {
        Some((head, list)) => (head, Some(list)),
        None => (text, None),
    };
    let (name, id) = match head.split_once('.') {
        Some((name, id)) => (name, Some(id)),
        None => (head, None),
    };
    let word = |t: &str| !t.is_empty() && t.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !word(name) {
        let detail =
            format!("{name:?} is no device name, expected the form CPU, CUDA.1 or AUTO:CUDA,CPU");
        return Err(bad(detail).into());
    }
    if let Some(id) = id.filter(|id| !id.split('.').all(word)) {
        return Err(bad(format!("{id:?} is no device number, expected the form CUDA.1")).into());
    }
    if list.is_some_and(|l| l.is_empty() || l.contains(char::is_whitespace)) {
        return Err(bad(
            "expected device names after the colon, without spaces, as AUTO:CUDA,CPU".to_owned()
        )
        .into());
    }
    Ok((name, id, list))
}

/// Whether a plugin runs models on other devices.
pub(super) fn is_meta(plugin: &dyn Plugin) -> bool {
    plugin.properties().iter().any(|p| p.name == device::PRIORITIES.name())
}

/// The plugin that a device string names; whether it is usable is not asked.
pub(super) fn find(plugins: &[Arc<dyn Plugin>], text: &str) -> Result<Target> {
    let (name, id, list) = split(text)?;
    let Some(plugin) = plugins.iter().find(|p| p.name() == name) else {
        return Err(not_registered(plugins, name).into());
    };
    let mut properties = PropertyMap::new();
    let bad = |detail: String| DeviceError::BadName { text: text.to_owned(), detail };
    if let Some(id) = id {
        if !plugin.properties().iter().any(|p| p.name == device::ID.name()) {
            return Err(bad(format!("{name} has no numbers: write {name}")).into());
        }
        properties.set(device::ID, &id.to_owned());
    }
    if let Some(list) = list {
        if !is_meta(&**plugin) {
            return Err(bad(format!("{name} runs on no other devices: write {name}")).into());
        }
        properties.set(device::PRIORITIES, &list.split(',').map(str::to_owned).collect());
    }
    let name = id.map_or_else(|| name.to_owned(), |id| format!("{name}.{id}"));
    Ok(Target { plugin: Arc::clone(plugin), name, properties })
}

impl Target {
    /// Checks that the plugin finds the device.
    pub(super) fn expect_usable(&self) -> Result<()> {
        let devices = self.plugin.probe().map_err(|reason| DeviceError::NotUsable {
            name: self.plugin.name().to_owned(),
            reason,
        })?;
        let Some(id) = self.properties.text(device::ID.name()) else { return Ok(()) };
        if devices.iter().any(|d| d.id == id) {
            return Ok(());
        }
        let found: Vec<String> =
            devices.iter().map(|d| format!("{}.{}", self.plugin.name(), d.id)).collect();
        Err(DeviceError::NotUsable {
            name: self.name.clone(),
            reason: format!("there is no such device; there are {}", found.join(", ")),
        }
        .into())
    }
}

fn not_registered(plugins: &[Arc<dyn Plugin>], name: &str) -> DeviceError {
    const CRATES: &[(&str, &str)] =
        &[("CPU", "ov-cpu"), ("CUDA", "ov-gpu-cuda"), ("AUTO", "ov-auto")];
    let registered: Vec<&str> = plugins.iter().map(|p| p.name()).collect();
    let hint = if let Some((_, found)) = CRATES.iter().find(|(n, _)| *n == name) {
        let module = found.replace('-', "_");
        format!(". If the program depends on {found}, name it once: `use {module} as _;`")
    } else if let Some(near) = nearest(name, registered.iter().copied()) {
        format!(". Did you mean {near}?")
    } else {
        String::new()
    };
    let registered = if registered.is_empty() { "none".to_owned() } else { registered.join(", ") };
    DeviceError::NotRegistered { name: name.to_owned(), registered, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_strings_split_or_are_refused() {
        for (text, parts) in [
            ("CPU", Some(("CPU", None, None))),
            ("CUDA.1", Some(("CUDA", Some("1"), None))),
            ("GPU.0.1", Some(("GPU", Some("0.1"), None))),
            ("AUTO:CUDA,CPU", Some(("AUTO", None, Some("CUDA,CPU")))),
            ("AUTO:-CPU", Some(("AUTO", None, Some("-CPU")))),
            ("", None),
            (" CPU", None),
            ("CPU.", None),
            ("CUDA.x-1", None),
            ("AUTO:", None),
            ("AUTO: CPU", None),
        ] {
            assert_eq!(split(text).ok(), parts, "{text:?}");
        }
    }
}
