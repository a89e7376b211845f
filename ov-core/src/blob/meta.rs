//! The META section, which every device writes alike: names, ports and properties.

use super::{Blob, Decoder, Encoder, SectionKind, format::failed};
use crate::{error::Result, model::Variable, plugin::PortInfo, property::PropertyMap};

/// What is known of a compiled model without decoding its program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Name of the model.
    pub model_name: String,
    /// The inputs.
    pub inputs: Vec<PortInfo>,
    /// The outputs.
    pub outputs: Vec<PortInfo>,
    /// Values that live from one inference to the next.
    pub variables: Vec<Variable>,
    /// Effective properties of the compile.
    pub properties: PropertyMap,
}

impl Meta {
    /// The bytes of the section.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        e.text(&self.model_name);
        for ports in [&self.inputs, &self.outputs] {
            e.list(ports.iter(), |e, port| {
                e.text(&port.name);
                e.element_type(port.element_type);
                e.partial_shape(&port.shape);
            });
        }
        e.variables(&self.variables);
        let properties: Vec<_> = self.properties.iter().collect();
        e.list(properties.into_iter(), |e, (name, text)| {
            e.text(name);
            e.text(text);
        });
        e.into_bytes()
    }

    /// Reads the section of a blob.
    ///
    /// # Errors
    /// When there is none or it is damaged.
    pub fn of(blob: &Blob) -> Result<Self> {
        let bytes = blob
            .copy_section(SectionKind::Meta)
            .ok_or_else(|| failed("sections", "a META section", "none"))?;
        Self::decode(&bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut d = Decoder::new(bytes);
        let model_name = d.text()?.to_owned();
        let ports = |d: &mut Decoder<'_>| {
            d.list(|d| {
                Ok(PortInfo {
                    name: d.text()?.to_owned(),
                    element_type: d.element_type()?,
                    shape: d.partial_shape()?,
                })
            })
        };
        let (inputs, outputs) = (ports(&mut d)?, ports(&mut d)?);
        let variables = d.variables()?;
        let mut properties = PropertyMap::new();
        for (name, text) in d.list(|d| Ok((d.text()?, d.text()?)))? {
            properties.set_text(name, text)?;
        }
        d.end()?;
        Ok(Self { model_name, inputs, outputs, variables, properties })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ElementType, PartialShape, property::hint};

    #[test]
    fn comes_back_and_refuses_cuts() {
        let port = |name: &str| PortInfo {
            name: name.to_owned(),
            element_type: ElementType::F32,
            shape: PartialShape::dynamic_rank(2),
        };
        let meta = Meta {
            model_name: "m".to_owned(),
            inputs: vec![port("a"), port("b")],
            outputs: vec![port("c")],
            variables: vec![Variable {
                name: "v".to_owned(),
                element_type: ElementType::F16,
                shape: PartialShape::dynamic_rank(1),
                has_initial: true,
            }],
            properties: PropertyMap::new().with(hint::NUM_REQUESTS, 3),
        };
        let bytes = meta.encode();
        assert_eq!(Meta::decode(&bytes).expect("whole"), meta);
        for len in 0..bytes.len() {
            assert!(Meta::decode(&bytes[..len]).is_err(), "cut to {len}");
        }
    }
}
