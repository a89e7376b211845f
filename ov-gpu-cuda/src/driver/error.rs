//! Codes of the driver as errors.

use super::api::Code;

/// What an error means for what may be done afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// Not enough memory on the GPU, or not enough pinned memory.
    OutOfMemory,
    /// The context is corrupt: every further call fails, and nothing that was computed can be trusted.
    DeviceLost,
    /// The code of a module does not suit this GPU or driver.
    NoImage,
    /// Work is still going on.
    NotReady,
    /// Anything else: a call that the driver refuses.
    Refused,
}

impl ErrorKind {
    /// The meaning of a code.
    pub(crate) fn of(code: Code) -> Self {
        match code {
            2 => Self::OutOfMemory,
            // A driver that is shutting down, or was started before the process was forked.
            3 | 4 => Self::DeviceLost,
            // Uncorrectable memory and link errors, faults that were contained, and what a kernel may do wrong.
            214 | 220 | 226 | 700 | 702 | 709 | 710 | 714..=719 | 721 => Self::DeviceLost,
            200 | 209 | 218 | 221..=223 => Self::NoImage,
            600 => Self::NotReady,
            _ => Self::Refused,
        }
    }
}

/// A failed call of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DriverError {
    /// The code.
    pub(crate) code: Code,
    /// The function.
    pub(crate) call: &'static str,
    /// The driver's name of the code, and its explanation.
    pub(crate) text: String,
}

impl DriverError {
    /// The meaning.
    pub(crate) fn kind(&self) -> ErrorKind {
        ErrorKind::of(self.code)
    }
}

impl std::fmt::Display for DriverError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fix = match self.kind() {
            ErrorKind::OutOfMemory => {
                ": the memory of the GPU is full; use fewer streams, a smaller model or batch, or another device"
            }
            ErrorKind::DeviceLost if self.code == 3 => {
                ": the driver was started before this process was forked from its parent, and serves the parent only; \
                 start processes anew instead (`spawn`)"
            }
            ErrorKind::DeviceLost => {
                ": the GPU's context is lost and the device cannot be used again in this process; restart it"
            }
            ErrorKind::NoImage => {
                ": install a newer driver, or NVRTC so that kernels can be rebuilt"
            }
            ErrorKind::NotReady | ErrorKind::Refused => "",
        };
        write!(f, "{} gave {} ({}){fix}", self.call, self.code, self.text)
    }
}

impl std::error::Error for DriverError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sticky_codes_are_told_from_what_can_be_tried_again() {
        for code in [3, 4, 214, 220, 226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721] {
            assert_eq!(ErrorKind::of(code), ErrorKind::DeviceLost, "{code}");
        }
        for code in [1, 201, 400, 701, 720, 999, 47, 919] {
            assert_eq!(ErrorKind::of(code), ErrorKind::Refused, "{code}");
        }
        assert_eq!(ErrorKind::of(2), ErrorKind::OutOfMemory);
        assert_eq!(ErrorKind::of(209), ErrorKind::NoImage);
        let error = DriverError { code: 2, call: "cuMemAlloc", text: "out of memory".into() };
        assert!(error.to_string().contains("cuMemAlloc gave 2 (out of memory): "));
    }
}
