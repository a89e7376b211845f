//! Streams, threads and the facts that follow from them.

use std::fmt;

use super::{Access, Effect, Property, PropertyInfo, PropertyValue};

/// How many inferences a device runs side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Streams {
    /// As many as give the best throughput.
    Auto,
    /// One per NUMA node.
    Numa,
    /// So many.
    Count(u32),
}

impl fmt::Display for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("AUTO"),
            Self::Numa => f.pad("NUMA"),
            Self::Count(n) => write!(f, "{n}"),
        }
    }
}

impl PropertyValue for Streams {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn parse_text(text: &str) -> Option<Self> {
        match text {
            "AUTO" | "-1" => Some(Self::Auto),
            "NUMA" | "-2" => Some(Self::Numa),
            _ => text.parse().ok().filter(|n| i32::try_from(*n).is_ok()).map(Self::Count),
        }
    }

    fn expected() -> String {
        "AUTO, NUMA or a number of at least 0".to_owned()
    }
}

/// How many inferences a device runs side by side.
pub const NUM_STREAMS: Property<Streams> = Property::new(
    "NUM_STREAMS",
    Access::ReadWrite,
    Effect::Compile,
    "how many inferences run side by side",
);
/// Threads for inference; 0 is all that are eligible.
pub const INFERENCE_NUM_THREADS: Property<u32> = Property::new(
    "INFERENCE_NUM_THREADS",
    Access::ReadWrite,
    Effect::Compile,
    "threads for inference; 0 is all that are eligible",
);
/// Threads for compiling; 0 is all that are eligible.
pub const COMPILATION_NUM_THREADS: Property<u32> = Property::new(
    "COMPILATION_NUM_THREADS",
    Access::ReadWrite,
    Effect::Runtime,
    "threads for compiling; 0 is all that are eligible",
);
/// Milliseconds that a lone request waits to be joined into a batch.
pub const AUTO_BATCH_TIMEOUT: Property<u32> = Property::new(
    "AUTO_BATCH_TIMEOUT",
    Access::ReadWrite,
    Effect::Runtime,
    "milliseconds that a lone request waits to be joined into a batch",
);
/// Requests that keep the compiled model busy.
pub const OPTIMAL_NUMBER_OF_INFER_REQUESTS: Property<u32> = Property::new(
    "OPTIMAL_NUMBER_OF_INFER_REQUESTS",
    Access::ReadOnly,
    Effect::Info,
    "requests that keep the compiled model busy",
);
/// Least, most and step of sensible numbers of requests.
pub const RANGE_FOR_ASYNC_INFER_REQUESTS: Property<(u32, u32, u32)> = Property::new(
    "RANGE_FOR_ASYNC_INFER_REQUESTS",
    Access::ReadOnly,
    Effect::Info,
    "least, most and step of sensible numbers of requests",
);
/// Least and most streams.
pub const RANGE_FOR_STREAMS: Property<(u32, u32)> =
    Property::new("RANGE_FOR_STREAMS", Access::ReadOnly, Effect::Info, "least and most streams");

/// The properties of this category.
pub const ALL: &[PropertyInfo] = &[
    NUM_STREAMS.info(),
    INFERENCE_NUM_THREADS.info(),
    COMPILATION_NUM_THREADS.info(),
    AUTO_BATCH_TIMEOUT.info(),
    OPTIMAL_NUMBER_OF_INFER_REQUESTS.info(),
    RANGE_FOR_ASYNC_INFER_REQUESTS.info(),
    RANGE_FOR_STREAMS.info(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_a_number_or_a_word() {
        for (text, streams) in [
            ("AUTO", Some(Streams::Auto)),
            ("-1", Some(Streams::Auto)),
            ("NUMA", Some(Streams::Numa)),
            ("-2", Some(Streams::Numa)),
            ("0", Some(Streams::Count(0))),
            ("7", Some(Streams::Count(7))),
            ("-3", None),
            ("2147483648", None),
            ("auto", None),
        ] {
            assert_eq!(Streams::parse_text(text), streams, "{text}");
        }
    }
}
