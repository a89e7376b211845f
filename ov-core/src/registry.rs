//! The plugins that are linked into the program, by name.

use std::sync::Arc;

use crate::{
    error::{DeviceError, Result},
    plugin::Plugin,
};

/// A linked device plugin. Made by [`register_plugin!`](crate::register_plugin).
pub struct PluginRegistration {
    /// The device name.
    pub name: &'static str,
    /// The crate, for errors.
    pub crate_name: &'static str,
    /// Creates the plugin; cheap, as the device is looked for in [`Plugin::probe`].
    pub create: fn() -> Arc<dyn Plugin>,
}

impl std::fmt::Debug for PluginRegistration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.name, self.crate_name)
    }
}

inventory::collect!(PluginRegistration);

/// Registers a device plugin with every [`Core`](crate::Core) of a program that links the crate:
/// `register_plugin!("CPU", CpuPlugin::create)` with `create: fn() -> Arc<dyn Plugin>`.
///
/// A crate is linked only if the program names it once: `use ov_cpu as _;`.
#[macro_export]
macro_rules! register_plugin {
    ($name:literal, $create:expr) => {
        $crate::inventory::submit! {
            $crate::registry::PluginRegistration {
                name: $name,
                crate_name: env!("CARGO_PKG_NAME"),
                create: $create,
            }
        }
    };
}

/// Every linked plugin, sorted by name.
///
/// # Errors
/// [`DeviceError::Duplicate`] when two crates claim one name.
pub fn registered() -> Result<Vec<Arc<dyn Plugin>>> {
    let mut linked: Vec<&PluginRegistration> =
        inventory::iter::<PluginRegistration>.into_iter().collect();
    linked.sort_by_key(|r| (r.name, r.crate_name));
    check_names(linked.iter().map(|r| (r.name, r.crate_name)))?;
    Ok(linked.into_iter().map(|r| (r.create)()).collect())
}

/// Checks that names, which come sorted, differ.
pub(crate) fn check_names<'a>(names: impl Iterator<Item = (&'a str, &'a str)>) -> Result<()> {
    let mut last: Option<(&str, &str)> = None;
    for (name, origin) in names {
        if let Some((_, first)) = last.filter(|(n, _)| *n == name) {
            return Err(DeviceError::Duplicate {
                name: name.to_owned(),
                first: first.to_owned(),
                second: origin.to_owned(),
            }
            .into());
        }
        last = Some((name, origin));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_plugins_of_one_name_are_an_error() {
        assert!(check_names([("AUTO", "a"), ("CPU", "b")].into_iter()).is_ok());
        let text = check_names([("CPU", "ov-cpu"), ("CPU", "other")].into_iter())
            .expect_err("duplicate")
            .to_string();
        assert_eq!(
            text,
            "device CPU is registered twice, by ov-cpu and other: link only one of them"
        );
    }
}
