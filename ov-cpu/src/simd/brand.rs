//! The processor's name, as it tells itself.

/// The name that the processor gives itself: *AMD EPYC 9654 96-Core Processor*. `None` where it has no such instruction.
#[must_use]
pub fn brand() -> Option<String> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__cpuid;
        const FIRST: u32 = 0x8000_0002;
        const LAST: u32 = 0x8000_0004;
        if __cpuid(0x8000_0000).eax < LAST {
            return None;
        }
        let bytes: Vec<u8> = (FIRST..=LAST)
            .map(__cpuid)
            .flat_map(|r| [r.eax, r.ebx, r.ecx, r.edx])
            .flat_map(u32::to_le_bytes)
            .take_while(|b| *b != 0)
            .collect();
        let name = String::from_utf8(bytes).ok()?;
        Some(name.trim().to_owned()).filter(|name| !name.is_empty())
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}
