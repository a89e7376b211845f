//! Denormal numbers as zero: they cost a hundred cycles each and mean nothing in a network.
#![allow(unsafe_code, reason = "writes the floating-point control register")]

/// Flush-to-zero and denormals-are-zero bits of MXCSR (Intel SDM volume 1, 10.2.3).
#[cfg(target_arch = "x86_64")]
const FLUSH: u32 = 0x8040;

/// Treats denormal numbers as zero on this thread until the value is dropped.
#[derive(Debug)]
pub struct FlushDenormals {
    #[cfg(target_arch = "x86_64")]
    saved: u32,
}

#[cfg(target_arch = "x86_64")]
fn control() -> u32 {
    let mut value = 0u32;
    // SAFETY: stmxcsr stores 32 bits to the address of `value`.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags));
    };
    value
}

#[cfg(target_arch = "x86_64")]
fn set_control(value: u32) {
    // SAFETY: ldmxcsr loads 32 bits; the value differs from one read before in the two denormal bits only.
    unsafe {
        std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags));
    };
}

impl FlushDenormals {
    /// Starts treating denormal numbers as zero on this thread.
    #[must_use]
    pub fn new() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let saved = control();
            set_control(saved | FLUSH);
            Self { saved }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Self {}
    }
}

impl Default for FlushDenormals {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for FlushDenormals {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        set_control(self.saved);
    }
}

/// Treats denormal numbers as zero on this thread for good.
pub fn flush() {
    std::mem::forget(FlushDenormals::new());
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn denormals_are_zero_only_while_asked_for() {
        let tiny = std::hint::black_box(f32::MIN_POSITIVE / 4.0);
        let product = || std::hint::black_box(tiny) * std::hint::black_box(2.0f32);
        assert!(product() > 0.0);
        {
            let _flush = FlushDenormals::new();
            assert_eq!(product(), 0.0);
        }
        assert!(product() > 0.0);
    }
}
