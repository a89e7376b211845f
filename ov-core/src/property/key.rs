//! Typed property keys and their descriptions.

use std::{fmt, marker::PhantomData};

use super::PropertyValue;

/// Whether a property may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// May only be read.
    ReadOnly,
    /// May be set before compiling, and read.
    ReadWrite,
    /// May be set, but not read back.
    WriteOnly,
}

impl fmt::Display for Access {
    /// `RO`, `RW`, `WO`, as OpenVINO prints them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ReadOnly => "RO",
            Self::ReadWrite => "RW",
            Self::WriteOnly => "WO",
        })
    }
}

/// What a property changes, and so whether it belongs to the key of a cached blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Changes what a compile makes: part of the cache key.
    Compile,
    /// Changes how a compiled model runs or is kept, never what the compile makes: not part of the cache key.
    Runtime,
    /// Nothing is changed; a fact to read.
    Info,
}

/// A property's name, value type, access and effect.
pub struct Property<T> {
    name: &'static str,
    access: Access,
    effect: Effect,
    doc: &'static str,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Property<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Property<T> {}

impl<T> fmt::Debug for Property<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Property")
            .field("name", &self.name)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl<T: PropertyValue> Property<T> {
    /// Declares a property. `doc` is one sentence for the generated table.
    #[must_use]
    pub const fn new(
        name: &'static str,
        access: Access,
        effect: Effect,
        doc: &'static str,
    ) -> Self {
        Self { name, access, effect, doc, value: PhantomData }
    }

    /// The name, as in OpenVINO.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The description that device lists are made of.
    #[must_use]
    pub const fn info(&self) -> PropertyInfo {
        PropertyInfo {
            name: self.name,
            access: self.access,
            effect: self.effect,
            doc: self.doc,
            canonical: canonical::<T>,
            expected: T::expected,
        }
    }

    /// The same property as a device that only reports it lists it.
    #[must_use]
    pub const fn read_only(mut self) -> Self {
        self.access = Access::ReadOnly;
        self.effect = Effect::Info;
        self
    }
}

fn canonical<T: PropertyValue>(text: &str) -> Option<String> {
    T::parse_text(text).map(|v| v.to_text())
}

/// The description of a property without its value type.
#[derive(Clone, Copy)]
pub struct PropertyInfo {
    /// The name, as in OpenVINO.
    pub name: &'static str,
    /// Whether it may be set.
    pub access: Access,
    /// What it changes.
    pub effect: Effect,
    /// One sentence.
    pub doc: &'static str,
    /// The text that stands for the value, or `None` when the text is not a value.
    pub canonical: fn(&str) -> Option<String>,
    /// What the values look like, for errors and tables.
    pub expected: fn() -> String,
}

impl fmt::Debug for PropertyInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.access)
    }
}
