//! `ov-bench query`: devices, properties, and the kernel of every node of a model.

use std::collections::BTreeMap;

use anyhow::Result;
use ov_core::{
    Core,
    plugin::NodeSupport,
    property::{self, Effect, PropertyInfo},
};
use serde_json::{Value, json};

use crate::{
    args::QueryArgs, commands::Place, devices, load::Reference, properties::Extra, report::bordered,
};

/// Prints what is asked for.
///
/// # Errors
/// Devices that are unknown, models that cannot be read.
pub(crate) fn run(args: &QueryArgs) -> Result<()> {
    let core = devices::core()?;
    if args.markdown {
        crate::output::write(format_args!("{}", markdown(&core)?));
        return Ok(());
    }
    let nodes = match &args.model {
        Some(model) => Some(query_nodes(args, model)?),
        None => None,
    };
    let shown: Vec<String> = match (&args.target.device, &nodes) {
        (Some(device), _) => vec![device.clone()],
        (None, Some(_)) => Vec::new(),
        (None, None) => core.devices().into_iter().map(|d| d.name).collect(),
    };
    if args.json {
        say!("{}", as_json(&core, &shown, nodes.as_deref())?);
        return Ok(());
    }
    crate::output::write(format_args!("{}", as_text(&core, &shown, nodes.as_deref())?));
    Ok(())
}

fn query_nodes(args: &QueryArgs, model: &str) -> Result<Vec<NodeSupport>> {
    let reference = Reference::parse(model)?;
    let place = Place::of(&args.target, Extra::default())?;
    let model = reference.model(&place.core, args.shape.as_deref())?;
    Ok(place.core.query_model(&model, &place.device, &place.properties)?)
}

fn kernel_text(node: &NodeSupport) -> String {
    match &node.kernel {
        Ok(kernel) => kernel.clone(),
        Err(reason) => format!("none: {reason}"),
    }
}

fn value_text(core: &Core, device: &str, info: &PropertyInfo) -> String {
    if info.access == property::Access::WriteOnly {
        return String::new();
    }
    core.property(device, info.name).unwrap_or_else(|e| format!("({e})"))
}

fn device_table(core: &Core) -> comfy_table::Table {
    let mut table = bordered(&["device", "what it is"]);
    for status in core.devices() {
        match status.devices {
            Err(reason) => {
                table.add_row([status.name, format!("not usable: {reason}")]);
            }
            Ok(found) => {
                for device in found {
                    let name = if device.id.is_empty() {
                        status.name.clone()
                    } else {
                        format!("{}.{}", status.name, device.id)
                    };
                    table.add_row([name, device.full_name]);
                }
            }
        }
    }
    table
}

fn as_text(core: &Core, shown: &[String], nodes: Option<&[NodeSupport]>) -> Result<String> {
    let mut text = format!("{}\n", device_table(core));
    for device in shown {
        let mut table = bordered(&["property", "access", "value"]);
        for info in core.supported_properties(device)? {
            let value = match info.name {
                "SUPPORTED_PROPERTIES" => "this list".to_owned(),
                _ => value_text(core, device, &info),
            };
            table.add_row([info.name, &info.access.to_string(), &value]);
        }
        text += &format!("\n{device}\n{table}\n");
    }
    if let Some(nodes) = nodes {
        let mut table = bordered(&["node", "op", "kernel"]);
        for node in nodes {
            table.add_row([&node.name, &node.op, &kernel_text(node)]);
        }
        let found = nodes.iter().filter(|n| n.kernel.is_ok()).count();
        text += &format!("\n{table}\n{found} of {} nodes have a kernel\n", nodes.len());
    }
    Ok(text)
}

fn as_json(core: &Core, shown: &[String], nodes: Option<&[NodeSupport]>) -> Result<Value> {
    let devices: Vec<Value> = core
        .devices()
        .into_iter()
        .map(|status| match status.devices {
            Err(reason) => json!({ "name": status.name, "usable": false, "reason": reason }),
            Ok(found) => {
                let found: Vec<Value> =
                    found.iter().map(|d| json!({ "id": d.id, "full_name": d.full_name })).collect();
                json!({ "name": status.name, "usable": true, "devices": found })
            }
        })
        .collect();
    let mut properties = serde_json::Map::new();
    for device in shown {
        let mut of_device = serde_json::Map::new();
        for info in core.supported_properties(device)? {
            let value = value_text(core, device, &info);
            let entry = json!({ "access": info.access.to_string(), "value": value });
            of_device.insert(info.name.to_owned(), entry);
        }
        properties.insert(device.clone(), of_device.into());
    }
    let mut all = json!({ "devices": devices, "properties": properties });
    if let Some(nodes) = nodes {
        let nodes: Vec<Value> = nodes
            .iter()
            .map(|n| {
                json!({ "name": n.name, "op": n.op, "kernel": n.kernel.as_ref().ok(),
                    "reason": n.kernel.as_ref().err() })
            })
            .collect();
        all["nodes"] = nodes.into();
    }
    Ok(all)
}

/// The reference page of properties: the same on every machine, so it holds no values.
fn markdown(core: &Core) -> Result<String> {
    let mut devices: BTreeMap<&str, Vec<(String, PropertyInfo)>> = BTreeMap::new();
    for status in core.devices() {
        for info in core.supported_properties(&status.name)? {
            devices.entry(info.name).or_default().push((status.name.clone(), info));
        }
    }
    let mut text = String::from(HEAD);
    let mut row = |info: &PropertyInfo, of: &[(String, PropertyInfo)]| {
        let names: Vec<String> = of
            .iter()
            .map(|(name, own)| {
                if own.access == info.access {
                    name.clone()
                } else {
                    format!("{name} ({})", own.access)
                }
            })
            .collect();
        let effect = match info.effect {
            Effect::Compile => "compile",
            Effect::Runtime => "run time",
            Effect::Info => "-",
        };
        let values = (info.expected)().replace('|', "\\|");
        let (name, access, doc) = (info.name, info.access, info.doc.replace('|', "\\|"));
        let names = if names.is_empty() { "-".to_owned() } else { names.join(", ") };
        text += &format!("| `{name}` | {access} | {effect} | {values} | {doc} | {names} |\n");
    };
    for info in property::all() {
        let of = devices.remove(info.name).unwrap_or_default();
        row(info, &of);
    }
    for of in devices.values() {
        row(&of[0].1, of);
    }
    Ok(text)
}

const HEAD: &str = "\
# Properties

Written by `cargo xtask docs-tables` from the tables in the code. Names and texts are OpenVINO's.

Access: RW may be set before compiling and read, RO may be read, WO may be set. Effect: *compile* changes what a compile
makes and is part of a cached model's key, *run time* is not. Devices: those that list the property, with their own
access where it differs.

| Property | Access | Effect | Values | What it does | Devices |
| --- | --- | --- | --- | --- | --- |
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declared_property_has_a_line() {
        let text = markdown(&Core::with_plugins([]).unwrap()).unwrap();
        for info in property::all() {
            assert!(text.contains(&format!("| `{}` |", info.name)), "{}", info.name);
        }
        let columns = |line: &str| line.replace("\\|", "").matches('|').count();
        assert!(text.lines().filter(|l| l.starts_with('|')).all(|l| columns(l) == 7));
    }
}
