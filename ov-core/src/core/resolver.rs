//! The core as plugins reach it.

use std::sync::Arc;

use super::{Inner, target};
use crate::{
    error::Result,
    model::Model,
    plugin::{CompiledDevice, DeviceInfo, DeviceResolver, ModelSource, NodeSupport},
    property::{Access, PropertyMap, cache},
};

/// The core as meta devices see it.
pub(super) struct Resolver {
    pub(super) inner: Arc<Inner>,
    pub(super) caller: String,
}

impl DeviceResolver for Resolver {
    fn devices(&self) -> Vec<(String, Result<Vec<DeviceInfo>, String>)> {
        let others = self.inner.plugins.iter().filter(|p| p.name() != self.caller);
        others.map(|p| (p.name().to_owned(), p.probe())).collect()
    }

    fn property(&self, device: &str, name: &str) -> Result<String> {
        self.inner.property_text(device, name)
    }

    fn accepts(&self, device: &str, name: &str) -> bool {
        target::find(&self.inner.plugins, device).is_ok_and(|target| {
            let known = self.inner.known(&target);
            known.iter().any(|p| p.name == name && p.access != Access::ReadOnly)
        })
    }

    fn compile(
        &self,
        model: &ModelSource,
        device: &str,
        properties: &PropertyMap,
    ) -> Result<CompiledDevice> {
        self.inner.compile(model, device, properties)
    }

    fn load_cached(
        &self,
        model: &ModelSource,
        device: &str,
        properties: &PropertyMap,
    ) -> Result<Option<CompiledDevice>> {
        // Who asks has another device to serve with meanwhile, so there is no waiting for another process.
        let properties = properties.clone().with(cache::CACHE_WAIT_MS, 0);
        Ok(self.inner.prepare(model, device, &properties)?.load())
    }

    fn query(
        &self,
        model: &Model,
        device: &str,
        properties: &PropertyMap,
    ) -> Result<Vec<NodeSupport>> {
        self.inner.query(model, device, properties)
    }
}
