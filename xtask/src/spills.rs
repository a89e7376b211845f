//! Checks machine code: inner loops of the hottest kernels keep their accumulators in registers.

use std::collections::BTreeMap;
use std::path::Path;

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
    Hot { path: "ov_cpu::gemm::tile::tile_avx512_bf16", multiply_adds: 4, loops: 33 },
    // Tiles of a single vector per row do spill a little, at no cost that could be measured.
    Hot { path: "ov_cpu::gemm::tile::tile_avx2", multiply_adds: 32, loops: 3 },
];

/// Disassembles the unoptimised `ov-bench`, in which the kernels are optimised all the same.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("spills: SKIPPED, kernels are disassembled on x86-64 only");
        return Ok(());
    }
    if cmd!(workspace.sh, "objdump --version")
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()
        .is_err()
    {
        eprintln!("spills: SKIPPED, there is no objdump (binutils)");
        return Ok(());
    }
    let program = workspace.dev_ov_bench()?;
    let symbols = cmd!(workspace.sh, "objdump --syms --demangle {program}").quiet().read()?;
    let mut faults = Vec::new();
    for hot in HOT {
        let mut loops = 0;
        for (start, end) in ranges(&symbols, hot.path) {
            let text = disassemble(workspace, &program, start, end)?;
            for inner in inner_loops(&instructions(&text), hot.multiply_adds) {
                loops += 1;
                if let Some(line) = inner.spill {
                    faults.push(format!("{} at {start:#x}: {line}", hot.path));
                }
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

fn disassemble(workspace: &Workspace, program: &Path, start: u64, end: u64) -> Result<String> {
    let (start, end) = (format!("--start-address={start:#x}"), format!("--stop-address={end:#x}"));
    let command =
        cmd!(workspace.sh, "objdump --disassemble --no-show-raw-insn {start} {end} {program}");
    command.quiet().read().context("objdump failed")
}

/// Addresses of the instances of the function at `path`, in order.
fn ranges(symbols: &str, path: &str) -> Vec<(u64, u64)> {
    let mut found = BTreeMap::new();
    for line in symbols.lines() {
        let Some((head, name)) = line.split_once(path) else { continue };
        // Followed by generic arguments, a hash, or nothing; not the start of a longer name.
        if name.starts_with(|c: char| c.is_alphanumeric() || c == '_') || name.contains("closure") {
            continue;
        }
        let mut words = head.split_whitespace();
        let address = words.next().and_then(|w| u64::from_str_radix(w, 16).ok());
        let len = words.filter_map(|w| u64::from_str_radix(w, 16).ok()).next_back();
        if let (Some(address), Some(len @ 1..)) = (address, len) {
            found.insert(address, address + len);
        }
    }
    found.into_iter().collect()
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
    fn symbols_give_the_instances_of_exactly_one_function() {
        let symbols = "\
0000000000002000 l     F .text\t0000000000000020 a::tile_avx512::h0123456789abcdef
0000000000001000 g     F .text\t0000000000000010 .hidden a::tile_avx512::<12, 2, 1>
0000000000003000 l     F .text\t0000000000000010 a::tile_avx512_bf16::<1, 2, 3>
0000000000004000 l     O .data\t0000000000000000 a::tile_avx512";
        assert_eq!(ranges(symbols, "a::tile_avx512"), [(0x1000, 0x1010), (0x2000, 0x2020)]);
        assert_eq!(ranges(symbols, "a::tile_avx512_bf16"), [(0x3000, 0x3010)]);
        assert!(ranges(symbols, "a::tile").is_empty());
    }
}
