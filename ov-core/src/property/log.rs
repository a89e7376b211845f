//! Logging.

use super::{Access, Effect, Property, PropertyInfo, value::text_enum};

text_enum! {
    /// How much is logged.
    pub enum Level {
        /// Nothing.
        No = "LOG_NONE" | "-1",
        /// What the user must act on.
        Err = "LOG_ERROR" | "0",
        /// What is slower or less than asked for, too.
        Warning = "LOG_WARNING" | "1",
        /// One line per compile or load, too.
        Info = "LOG_INFO" | "2",
        /// Decisions with their reasons, too.
        Debug = "LOG_DEBUG" | "3",
        /// Dumps, too.
        Trace = "LOG_TRACE" | "4",
    }
}

/// How much is logged.
pub const LEVEL: Property<Level> =
    Property::new("LOG_LEVEL", Access::ReadWrite, Effect::Runtime, "how much is logged");

/// The properties of this category.
pub const ALL: &[PropertyInfo] = &[LEVEL.info()];
