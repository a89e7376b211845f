//! Checks machine code: inner loops of the hottest kernels keep their accumulators in registers.

use anyhow::{Context, Result, ensure};
use xshell::cmd;

use crate::workspace::Workspace;

/// Functions whose inner loops must not touch the stack with vectors.
struct Hot {
    /// Path of the function, without its generic arguments.
    path: &'static str,
    /// Loops with fewer multiply-adds than this are not the main ones.
    multiply_adds: usize,
    /// Fewest such loops in all instances; fewer means that the check looks at the wrong place.
    loops: usize,
}

const HOT: &[Hot] = &[
    Hot { path: "ov_cpu::gemm::tile::tile_avx512", multiply_adds: 4, loops: 33 },
    Hot { path: "ov_cpu::gemm::tile::tile_avx512_long", multiply_adds: 4, loops: 33 },
    Hot { path: "ov_cpu::gemm::tile::tile_avx512_bf16", multiply_adds: 4, loops: 33 },
    // Tiles of a single vector per row do spill a little, at no cost that could be measured.
    Hot { path: "ov_cpu::gemm::tile::tile_avx2", multiply_adds: 32, loops: 3 },
];

/// Optimised as in a release, but for this one library, and with nothing else optimised.
const PROFILE: &[&str] = &[
    "profile.release.lto='off'",
    "profile.release.incremental=true",
    "profile.release.codegen-units=16",
    "profile.release.debug=false",
    "profile.release.package.'*'.opt-level=0",
    "profile.release.package.ov-core.opt-level=0",
];

/// Builds ov-cpu and disassembles it. Tests check their arithmetic, which changes the loops, so their build does not do.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("spills: SKIPPED, kernels are disassembled on x86-64 only");
        return Ok(());
    }
    let sh = &workspace.sh;
    if cmd!(sh, "objdump --version").quiet().ignore_stdout().ignore_stderr().run().is_err() {
        eprintln!("spills: SKIPPED, there is no objdump (binutils)");
        return Ok(());
    }
    let folder = workspace.made("spills");
    cmd!(sh, "cargo build --quiet --locked --release -p ov-cpu --lib")
        .args(PROFILE.iter().flat_map(|setting| ["--config", *setting]))
        .env("CARGO_TARGET_DIR", &folder)
        .quiet()
        .run()?;
    let library = folder.join("release/libov_cpu.rlib");
    let text = cmd!(sh, "objdump --disassemble --demangle --no-show-raw-insn {library}")
        .quiet()
        .ignore_stderr()
        .read()
        .context("objdump failed")?;
    judge(&text)
}

fn judge(disassembly: &str) -> Result<()> {
    let functions = functions(disassembly);
    let mut faults = Vec::new();
    for hot in HOT {
        let mut loops = 0;
        for (name, body) in functions.iter().filter(|(name, _)| is_instance(name, hot.path)) {
            for inner in inner_loops(&instructions(body), hot.multiply_adds) {
                loops += 1;
                faults.extend(inner.spill.map(|line| format!("{name}: {line}")));
            }
        }
        ensure!(
            loops >= hot.loops,
            "expected {} inner loops of {}, found {loops}; is the list in {} current?",
            hot.loops,
            hot.path,
            file!()
        );
    }
    ensure!(
        faults.is_empty(),
        "inner loops use the stack, which makes them several times slower; live accumulators must \
         fit the registers:\n{}",
        faults.join("\n")
    );
    Ok(())
}

/// Name and text of each function.
fn functions(disassembly: &str) -> Vec<(&str, &str)> {
    disassembly
        .split("\n\n")
        .filter_map(|part| {
            let (head, body) = part.trim_start().split_once(">:\n")?;
            Some((head.split_once('<')?.1, body))
        })
        .collect()
}

/// Whether `name` is `path`, followed by nothing, generic arguments or a hash.
fn is_instance(name: &str, path: &str) -> bool {
    name.strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::<") || rest.starts_with("::h"))
}

/// Address and text of each instruction.
fn instructions(disassembly: &str) -> Vec<(u64, &str)> {
    let parse = |line: &'_ str| -> Option<u64> {
        u64::from_str_radix(line.trim_start().split_once(':')?.0, 16).ok()
    };
    disassembly
        .lines()
        .filter_map(|line| Some((parse(line)?, line.split_once('\t')?.1.trim())))
        .collect()
}

/// A loop that holds no other.
struct Inner<'a> {
    /// The first instruction that moves a vector from or to the stack.
    spill: Option<&'a str>,
}

fn inner_loops<'a>(code: &[(u64, &'a str)], multiply_adds: usize) -> Vec<Inner<'a>> {
    let at = |address: u64| code.binary_search_by_key(&address, |(a, _)| *a).ok();
    let loops: Vec<(usize, usize)> = code
        .iter()
        .enumerate()
        .filter_map(|(end, (_, text))| {
            let (name, target) = text.split_once(char::is_whitespace)?;
            let target = target.split_whitespace().next()?;
            let start = at(u64::from_str_radix(target.trim_start_matches("0x"), 16).ok()?)?;
            (name.starts_with('j') && start <= end).then_some((start, end))
        })
        .collect();
    let is_inner = |(start, end): (usize, usize)| {
        !loops.iter().any(|l| *l != (start, end) && l.0 >= start && l.1 <= end)
    };
    loops
        .iter()
        .filter(|l| is_inner(**l))
        .map(|(start, end)| &code[*start..=*end])
        .filter(|body| body.iter().filter(|(_, t)| is_multiply_add(t)).count() >= multiply_adds)
        .map(|body| Inner { spill: body.iter().map(|(_, t)| *t).find(|t| is_spill(t)) })
        .collect()
}

fn is_multiply_add(text: &str) -> bool {
    ["vfmadd", "vfnmadd", "vdpbf16ps", "vpdpbusd"].iter().any(|name| text.starts_with(name))
}

fn is_spill(text: &str) -> bool {
    text.contains("(%rsp") && ["%xmm", "%ymm", "%zmm"].iter().any(|r| text.contains(r))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "
bench:     file format elf64-x86-64

0000000000001000 <ov_cpu::gemm::tile::tile_avx512>:
    1000:\tpush   %rbp
    1004:\tvmovups (%rcx),%zmm1
    1008:\tvfmadd231ps %zmm1,%zmm2,%zmm3
    100c:\tvfmadd231ps 0x40(%rsp),%zmm2,%zmm3
    1010:\tjne    1004 <ov_cpu::gemm::tile::tile_avx512+0x4>
    1014:\tvfmadd231ps %zmm1,%zmm2,%zmm3
    1018:\tvfmadd231ps %zmm1,%zmm2,%zmm4
    101c:\tjb     1014 <ov_cpu::gemm::tile::tile_avx512+0x14>
    1020:\tvmovups %zmm1,0x80(%rsp)
    1024:\tjmp    1000 <ov_cpu::gemm::tile::tile_avx512>
    1028:\tret
";

    #[test]
    fn spills_in_inner_loops_are_found() {
        let code = instructions(CODE);
        assert_eq!(code.len(), 11);
        let spills: Vec<_> = inner_loops(&code, 2).into_iter().map(|l| l.spill).collect();
        assert_eq!(spills, [Some("vfmadd231ps 0x40(%rsp),%zmm2,%zmm3"), None]);
        assert!(inner_loops(&code, 3).is_empty(), "small loops do not count");
    }

    #[test]
    fn functions_are_found_by_their_path() {
        let found = functions(CODE);
        assert_eq!(found.len(), 1);
        assert!(is_instance(found[0].0, "ov_cpu::gemm::tile::tile_avx512"));
        assert!(is_instance("a::tile::h0123456789abcdef", "a::tile"));
        assert!(is_instance("a::tile::<12, 2, 1>", "a::tile"));
        assert!(
            !is_instance("a::tile_bf16", "a::tile")
                && !is_instance("a::tile::{{closure}}", "a::tile")
        );
    }

    #[test]
    fn a_list_that_matches_nothing_is_an_error() {
        let error = judge(CODE).expect_err("refused").to_string();
        assert!(error.contains("tile_avx512, found 0"), "{error}");
    }
}
