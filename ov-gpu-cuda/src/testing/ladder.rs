//! Every kernel through NVRTC for every architecture: it compiles, keeps its values in registers and stays within what a
//! block may have.

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use super::host_compiler::{publish, target_folder};
use crate::{
    compile::{Compiler, Nvrtc, Target},
    kernels::{Source, ladder},
};

/// Gives the modules of a family.
type Sources = fn() -> Vec<Source>;

/// The modules that models use, by family: each text with every define that changes its code much.
const FAMILIES: &[(&str, Sources)] = &[
    ("memory-bound", crate::kernels::tests::sources),
    ("product", ladder::product),
    ("linear", ladder::linear),
    ("convolution", ladder::convolution),
    ("integer", ladder::integer),
    ("matmul", ladder::matmul),
    ("attention", ladder::attention),
    ("recurrence", ladder::recurrence),
];

/// Ampere, Ada, Hopper, and the two Blackwells.
const CAPABILITIES: [(u32, u32); 5] = [(8, 0), (8, 9), (9, 0), (10, 0), (12, 0)];

/// Static shared memory that a kernel may have.
const STATIC_SHARED: usize = 48 << 10;

/// What the assembler says about one kernel.
#[derive(Debug, Default, PartialEq, Eq)]
struct Usage {
    kernel: String,
    registers: usize,
    spilled: usize,
    shared: usize,
}

/// Reads the log of an assembler that was asked for resource usage.
fn usages(log: &str) -> Vec<Usage> {
    let mut all: Vec<Usage> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            all.push(Usage { kernel, ..Usage::default() });
        }
        let Some(last) = all.last_mut() else { continue };
        for part in line.split(',').map(str::trim) {
            let number = || {
                let word =
                    part.split(' ').find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
                word.and_then(|w| w.parse().ok()).unwrap_or(0)
            };
            if part.ends_with(" registers") {
                last.registers = number();
            } else if part.ends_with("bytes spill stores") || part.ends_with("bytes spill loads") {
                last.spilled += number();
            } else if part.ends_with("bytes smem") {
                last.shared = number();
            }
        }
    }
    all
}

/// The log of a compilation, kept under `target` as long as text, options and compiler stay.
fn log_of(nvrtc: &Nvrtc, source: &Source, target: Target) -> Result<(String, bool), String> {
    let mut hasher = blake3::Hasher::new();
    for part in [nvrtc.identity(), target.name(), source.text()] {
        hasher.update(&part.len().to_le_bytes()).update(part.as_bytes());
    }
    let folder = target_folder().join("ov-nvrtc");
    fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let file = folder.join(format!("{}.log", &hasher.finalize().to_hex()[..32]));
    let kept = file.exists();
    publish(&file, |at| {
        let image = nvrtc.compile(source, target).map_err(|e| e.to_string())?;
        fs::write(at, image.log).map_err(|e| e.to_string())
    })?;
    Ok((fs::read_to_string(&file).map_err(|e| e.to_string())?, kept))
}

/// What came of some compilations.
#[derive(Default)]
struct Found {
    faults: Vec<String>,
    kernels: usize,
    reused: usize,
}

impl Found {
    fn add(&mut self, nvrtc: &Nvrtc, family: &str, source: &Source, capability: (u32, u32)) {
        let target = Target::cubin(capability);
        let what = format!("{family} {:?} for {}", source.defines, target.name());
        let (log, kept) = match log_of(nvrtc, source, target) {
            Ok(found) => found,
            Err(e) => return self.faults.push(format!("{what}: {e}")),
        };
        self.reused += usize::from(kept);
        let found = usages(&log);
        if found.is_empty() {
            self.faults.push(format!("{what}: no kernels in the log:\n{log}"));
        }
        self.kernels += found.len();
        for usage in found {
            let over = usage.spilled > 0 || usage.registers > 255 || usage.shared > STATIC_SHARED;
            if over || usage.registers == 0 {
                self.faults.push(format!("{what}: {usage:?}"));
            }
        }
    }
}

#[test]
fn every_kernel_compiles_for_every_architecture_without_spills() {
    let sources: Vec<(&str, Source)> =
        FAMILIES.iter().flat_map(|(name, list)| list().into_iter().map(|s| (*name, s))).collect();
    let count = sources.len() * CAPABILITIES.len();
    let nvrtc = match Nvrtc::get(13_000) {
        Ok(nvrtc) => nvrtc,
        Err(reason) => return println!("SKIPPED {count} compilations: {reason}"),
    };
    let start = Instant::now();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Found::default();
        while let Some((family, source)) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
            CAPABILITIES.iter().for_each(|c| found.add(nvrtc, family, source, *c));
        }
        found
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let found: Vec<Found> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        all.into_iter().map(|t| t.join().expect("does not panic")).collect()
    });
    let (kernels, reused) = found.iter().fold((0, 0), |(k, r), f| (k + f.kernels, r + f.reused));
    let faults: Vec<String> = found.into_iter().flat_map(|f| f.faults).collect();
    println!(
        "{count} compilations ({reused} reused) of {} modules, {kernels} kernels, {:.1} s",
        sources.len(),
        start.elapsed().as_secs_f64()
    );
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The entries of an assembly text with their bodies.
fn entries(ptx: &str) -> impl Iterator<Item = (&str, &str)> {
    ptx.split(".entry ").skip(1).map(|text| {
        let name = text.split(|c: char| c == '(' || c.is_whitespace()).next().unwrap_or_default();
        (name, text)
    })
}

/// What is wrong with a kernel as a part of a chain of kernels that overlap.
fn chain_fault(body: &str, streams_weights: bool) -> Option<&'static str> {
    let Some(wait) = body.find("griddepcontrol.wait") else {
        return Some("does not wait for the kernel before it");
    };
    let Some(release) = body.find("griddepcontrol.launch_dependents") else {
        return Some("does not let the kernel after it begin");
    };
    if release < wait {
        return Some("lets the kernel after it begin before it waits itself");
    }
    let writes = |word: &str| ["st.g", "atom.g", "red.g"].iter().any(|s| word.starts_with(s));
    if body[..wait].split_whitespace().any(writes) {
        return Some("writes before it waits");
    }
    // Only weights, which nothing writes while a model runs, may come through the cache that is not coherent.
    let past = body.contains(".global.nc") && !streams_weights;
    past.then_some("reads past the coherent caches")
}

#[test]
fn every_kernel_waits_before_it_writes_and_reads_coherently() {
    let Ok(nvrtc) = Nvrtc::get(13_000) else { return println!("SKIPPED: no NVRTC") };
    let sources: Vec<Source> = FAMILIES.iter().flat_map(|(_, list)| list()).collect();
    let mut faults = Vec::new();
    let mut kernels = 0;
    for source in &sources {
        let image = nvrtc.compile(source, Target::ptx((9, 0))).expect("compiles");
        let ptx = String::from_utf8(image.bytes).expect("a text");
        for (name, body) in entries(&ptx) {
            kernels += 1;
            if let Some(fault) = chain_fault(body, source.body.contains("ov_load_16_stream")) {
                faults.push(format!("{name} {:?} {fault}", source.defines));
            }
        }
    }
    println!("{kernels} kernels of {} modules", sources.len());
    assert!(kernels >= sources.len() && faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn chains_of_kernels_have_rules() {
    let wait = "griddepcontrol.wait; ";
    let release = "griddepcontrol.launch_dependents; ";
    let cases = [
        (format!("{wait}{release}st.global.f32 [a], b;"), None),
        (format!("ld.global.nc.f32 a, [b]; {wait}{release}"), Some("coherent")),
        (format!("st.global.f32 [a], b; {wait}{release}"), Some("writes")),
        (format!("cp.async.cg.shared.global [a], [b], 16; {wait}{release}"), None),
        (format!("{release}{wait}"), Some("begin before")),
        (release.to_owned(), Some("does not wait")),
        (wait.to_owned(), Some("does not let")),
    ];
    for (body, fault) in cases {
        let ptx = format!(".visible .entry f(.param .u64 a) {{ {body} }}");
        let (name, body) = entries(&ptx).next().expect("one");
        assert_eq!(name, "f");
        let found = chain_fault(body, false);
        assert_eq!(found.is_some(), fault.is_some(), "{body}");
        assert!(found.unwrap_or_default().contains(fault.unwrap_or_default()), "{body}");
    }
}

#[test]
fn reads_what_the_assembler_says() {
    let log = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'a' for 'sm_90a'
ptxas info    : Function properties for a
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 4096 bytes smem
ptxas info    : Compiling entry function 'b' for 'sm_90a'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers";
    let a = Usage { kernel: "a".to_owned(), registers: 40, spilled: 20, shared: 4096 };
    let b = Usage { kernel: "b".to_owned(), registers: 8, spilled: 0, shared: 0 };
    assert_eq!(usages(log), [a, b]);
}
