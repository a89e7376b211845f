//! Text forms of property values, as OpenVINO prints and parses them.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use crate::tensor::ElementType;

/// A type of property values with its text form.
pub trait PropertyValue: Sized {
    /// The canonical text.
    fn to_text(&self) -> String;

    /// The value of a text, or `None` when it is not one.
    fn parse_text(text: &str) -> Option<Self>;

    /// What values look like, for errors: *expected …*.
    fn expected() -> String;
}

/// An enum whose values are words. Implementing it gives [`PropertyValue`] through a table.
pub trait TextEnum: Copy + PartialEq + 'static {
    /// Every value with its text; further spellings of a value follow its canonical one.
    const TEXTS: &'static [(Self, &'static str)];

    /// The canonical text.
    #[must_use]
    fn text(self) -> &'static str {
        Self::TEXTS.iter().find(|(v, _)| *v == self).map_or("", |(_, t)| t)
    }

    /// The value of a text.
    #[must_use]
    fn from_text(text: &str) -> Option<Self> {
        Self::TEXTS.iter().find(|(_, t)| *t == text).map(|(v, _)| *v)
    }
}

/// Declares an enum of property values from one line per value.
macro_rules! text_enum {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal $(| $also:literal)*),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $crate::property::TextEnum for $name {
            const TEXTS: &'static [(Self, &'static str)] =
                &[$((Self::$variant, $text) $(, (Self::$variant, $also))*),+];
        }

        impl $crate::property::PropertyValue for $name {
            fn to_text(&self) -> String {
                $crate::property::TextEnum::text(*self).to_owned()
            }

            fn parse_text(text: &str) -> Option<Self> {
                $crate::property::TextEnum::from_text(text)
            }

            fn expected() -> String {
                const CANONICAL: &[&str] = &[$($text),+];
                format!("one of {}", CANONICAL.join(", "))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad($crate::property::TextEnum::text(*self))
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            /// The error is what was expected.
            fn from_str(text: &str) -> Result<Self, String> {
                $crate::property::TextEnum::from_text(text)
                    .ok_or_else(<Self as $crate::property::PropertyValue>::expected)
            }
        }
    };
}
pub(crate) use text_enum;

impl PropertyValue for bool {
    /// `YES` or `NO`.
    fn to_text(&self) -> String {
        if *self { "YES" } else { "NO" }.to_owned()
    }

    fn parse_text(text: &str) -> Option<Self> {
        const TRUE: &[&str] = &["YES", "true", "1"];
        const FALSE: &[&str] = &["NO", "false", "0"];
        let is = |words: &[&str]| words.iter().any(|w| w.eq_ignore_ascii_case(text));
        if is(TRUE) { Some(true) } else { is(FALSE).then_some(false) }
    }

    fn expected() -> String {
        "YES or NO".to_owned()
    }
}

macro_rules! number {
    ($($t:ty: $expected:literal),* $(,)?) => {$(
        impl PropertyValue for $t {
            fn to_text(&self) -> String {
                self.to_string()
            }

            fn parse_text(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn expected() -> String {
                $expected.to_owned()
            }
        }
    )*};
}
number!(
    i32: "an integer",
    u32: "an integer of at least 0",
    u64: "an integer of at least 0",
    f32: "a number",
    String: "a text",
);

impl PropertyValue for PathBuf {
    fn to_text(&self) -> String {
        self.to_string_lossy().into_owned()
    }

    fn parse_text(text: &str) -> Option<Self> {
        (!text.contains('\0')).then(|| text.into())
    }

    fn expected() -> String {
        "a path".to_owned()
    }
}

impl PropertyValue for ElementType {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn parse_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn expected() -> String {
        "an element type such as f32, bf16, f16, u8 or dynamic".to_owned()
    }
}

impl<T: PropertyValue> PropertyValue for Vec<T> {
    /// Items joined by commas; the empty list is the empty text.
    fn to_text(&self) -> String {
        self.iter().map(T::to_text).collect::<Vec<_>>().join(",")
    }

    fn parse_text(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::new());
        }
        text.split(',').map(|t| T::parse_text(t.trim())).collect()
    }

    fn expected() -> String {
        format!("a list, separated by commas, of: {}", T::expected())
    }
}

impl PropertyValue for (u32, u32) {
    fn to_text(&self) -> String {
        format!("{},{}", self.0, self.1)
    }

    fn parse_text(text: &str) -> Option<Self> {
        match Vec::parse_text(text)?[..] {
            [a, b] => Some((a, b)),
            _ => None,
        }
    }

    fn expected() -> String {
        "two integers: low,high".to_owned()
    }
}

impl PropertyValue for (u32, u32, u32) {
    fn to_text(&self) -> String {
        format!("{},{},{}", self.0, self.1, self.2)
    }

    fn parse_text(text: &str) -> Option<Self> {
        match Vec::parse_text(text)?[..] {
            [a, b, c] => Some((a, b, c)),
            _ => None,
        }
    }

    fn expected() -> String {
        "three integers: low,high,step".to_owned()
    }
}

/// Properties by device, the value of `DEVICE_PROPERTIES`: `{CPU:{NUM_STREAMS:2},CUDA:{PERF_COUNT:YES}}`.
///
/// Names and values may stand in double quotes; a value with `,`, `}` or `{` has to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceProperties(pub BTreeMap<String, BTreeMap<String, String>>);

impl fmt::Display for DeviceProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (device, properties)) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{device}:{{")?;
            for (j, (name, value)) in properties.iter().enumerate() {
                let comma = if j > 0 { "," } else { "" };
                if value.contains([',', '{', '}', ' ', '"']) {
                    write!(f, "{comma}{name}:\"{value}\"")?;
                } else {
                    write!(f, "{comma}{name}:{value}")?;
                }
            }
            f.write_str("}")?;
        }
        f.write_str("}")
    }
}

impl PropertyValue for DeviceProperties {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn parse_text(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        if rest.is_empty() {
            return Some(Self::default());
        }
        let mut devices = BTreeMap::new();
        expect(&mut rest, '{')?;
        while !accept(&mut rest, '}') {
            let device = word(&mut rest)?;
            expect(&mut rest, ':')?;
            expect(&mut rest, '{')?;
            let properties: &mut BTreeMap<_, _> = devices.entry(device).or_default();
            while !accept(&mut rest, '}') {
                let name = word(&mut rest)?;
                expect(&mut rest, ':')?;
                properties.insert(name, word(&mut rest)?);
                if !accept(&mut rest, ',') && !rest.trim_start().starts_with('}') {
                    return None;
                }
            }
            if !accept(&mut rest, ',') && !rest.trim_start().starts_with('}') {
                return None;
            }
        }
        rest.trim().is_empty().then_some(Self(devices))
    }

    fn expected() -> String {
        "properties by device, as {CPU:{NUM_STREAMS:2},CUDA:{PERF_COUNT:YES}}".to_owned()
    }
}

fn accept(rest: &mut &str, c: char) -> bool {
    match rest.trim_start().strip_prefix(c) {
        Some(after) => {
            *rest = after;
            true
        }
        None => false,
    }
}

fn expect(rest: &mut &str, c: char) -> Option<()> {
    accept(rest, c).then_some(())
}

fn word(rest: &mut &str) -> Option<String> {
    let text = rest.trim_start();
    if let Some(quoted) = text.strip_prefix('"') {
        let (word, after) = quoted.split_once('"')?;
        *rest = after;
        return Some(word.to_owned());
    }
    let end = text.find([',', '{', '}', ':', '"'])?;
    *rest = &text[end..];
    let word = text[..end].trim();
    (!word.is_empty()).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: PropertyValue>(cases: &[(&str, Option<&str>)]) {
        for (text, canonical) in cases {
            assert_eq!(T::parse_text(text).map(|v| v.to_text()).as_deref(), *canonical, "{text:?}");
        }
    }

    #[test]
    fn texts_parse_and_print_as_in_openvino() {
        round_trip::<bool>(&[
            ("YES", Some("YES")),
            ("NO", Some("NO")),
            ("true", Some("YES")),
            ("0", Some("NO")),
            ("", None),
            ("2", None),
        ]);
        round_trip::<u32>(&[("7", Some("7")), ("-1", None), ("4294967296", None), ("x", None)]);
        round_trip::<f32>(&[("1.5", Some("1.5")), ("x", None)]);
        round_trip::<ElementType>(&[
            ("f32", Some("f32")),
            ("FP16", Some("f16")),
            ("dynamic", Some("dynamic")),
            ("f33", None),
        ]);
        round_trip::<Vec<String>>(&[("a, b", Some("a,b")), ("", Some(""))]);
        round_trip::<(u32, u32)>(&[("1,2", Some("1,2")), ("1", None)]);
        round_trip::<(u32, u32, u32)>(&[("1,2,1", Some("1,2,1")), ("1,2", None)]);
        round_trip::<DeviceProperties>(&[
            (
                "{CPU:{NUM_STREAMS:2},CUDA:{PERF_COUNT:YES}}",
                Some("{CPU:{NUM_STREAMS:2},CUDA:{PERF_COUNT:YES}}"),
            ),
            (" { \"CPU\" : { \"A\" : \"1,2\" , B : 3 } } ", Some("{CPU:{A:\"1,2\",B:3}}")),
            ("{}", Some("{}")),
            ("{CPU:{}}", Some("{CPU:{}}")),
            ("{CPU:{A:1}", None),
            ("{CPU:{A:1 B:2}}", None),
            ("{CPU}", None),
            ("{CPU:{A:1}} x", None),
            ("{CPU:{A:\"1}}", None),
        ]);
    }
}
