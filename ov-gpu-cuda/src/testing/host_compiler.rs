//! Builds kernels for the processor with the system's C++ compiler.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    compile::{CompileError, Compiler, Image, Target},
    kernels::Source,
};

const SHIM_HEADER: &str = include_str!("cpp/ov_shim.h");
const SHIM: &str = include_str!("cpp/ov_shim.cpp");
const HOST: &str = include_str!("cpp/ov_host.h");
const WRAPPERS: &str = include_str!("../kernels/cuda/ov_dev.cuh");

/// A C++ compiler for modules that run on the processor. Its images are shared objects.
#[derive(Debug)]
pub(crate) struct HostCompiler {
    /// Where objects are kept.
    folder: PathBuf,
    /// What hashes start with: the compiler's version and all that every module includes.
    identity: blake3::Hash,
    /// Where modules find the library's header.
    include: PathBuf,
    /// The library that runs kernels.
    shim: PathBuf,
}

impl HostCompiler {
    /// The compiler of this system, `c++` or what `CXX` names; `None` with a line that says so when there is none.
    pub(crate) fn get() -> Option<&'static Self> {
        static COMPILER: OnceLock<Option<HostCompiler>> = OnceLock::new();
        COMPILER
            .get_or_init(|| match Self::new() {
                Ok(compiler) => Some(compiler),
                Err(reason) => {
                    println!("SKIPPED: kernels do not run on the processor: {reason}");
                    None
                }
            })
            .as_ref()
    }

    fn new() -> Result<Self, String> {
        let version = Command::new(program())
            .arg("--version")
            .output()
            .map_err(|e| format!("{} does not start: {e}", program()))?;
        if !version.status.success() {
            return Err(format!("{} --version fails", program()));
        }
        let mut hasher = blake3::Hasher::new();
        for option in sanitizers() {
            hasher.update(option.as_bytes());
        }
        for part in [version.stdout.as_slice(), SHIM_HEADER.as_bytes(), SHIM.as_bytes()] {
            hasher.update(&part.len().to_le_bytes()).update(part);
        }
        let folder = target_folder().join("ov-host-kernels");
        let include = folder.join(format!("include-{}", &hasher.finalize().to_hex()[..16]));
        fs::create_dir_all(&include).map_err(|e| format!("{}: {e}", include.display()))?;
        let shim = folder.join(format!("libovshim-{}.so", &hasher.finalize().to_hex()[..16]));
        publish(&include.join("ov_shim.h"), |at| {
            fs::write(at, SHIM_HEADER).map_err(|e| e.to_string())
        })?;
        publish(&shim, |at| {
            let source = PathBuf::from(format!("{}.cpp", at.display()));
            fs::write(&source, SHIM).map_err(|e| e.to_string())?;
            let options = ["-O2", "-I"].map(Path::new);
            let built = build(&source, at, options.into_iter().chain([include.as_path()]));
            drop(fs::remove_file(&source));
            built
        })?;
        hasher.update(HOST.as_bytes()).update(WRAPPERS.as_bytes());
        Ok(Self { folder, identity: hasher.finalize(), include, shim })
    }

    /// The library of this soname, built of these parts, named as files; the header of the shim is among their includes.
    pub(crate) fn library(
        &self,
        soname: &str,
        header: (&str, &str),
        parts: &[&str],
    ) -> Result<PathBuf, String> {
        let mut hasher = blake3::Hasher::new_keyed(self.identity.as_bytes());
        for part in parts.iter().chain([&soname, &header.1]) {
            hasher.update(&part.len().to_le_bytes()).update(part.as_bytes());
        }
        let library = self.folder.join(format!("{soname}-{}", &hasher.finalize().to_hex()[..16]));
        publish(&library, |at| {
            let folder = PathBuf::from(format!("{}.d", at.display()));
            fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
            fs::write(folder.join(header.0), header.1).map_err(|e| e.to_string())?;
            let mut names = Vec::new();
            for (i, part) in parts.iter().enumerate() {
                names.push(folder.join(format!("part{i}.cpp")));
                fs::write(&names[i], part).map_err(|e| e.to_string())?;
            }
            let soname = format!("-Wl,-soname,{soname}");
            let options = ["-O1", "-pthread", soname.as_str(), "-ldl", "-I"].map(Path::new);
            let paths = [self.include.as_path(), Path::new("-I"), folder.as_path()];
            let more = names[1..].iter().map(PathBuf::as_path);
            let cpp = ["-x", "c++"].map(Path::new).into_iter();
            build(&names[0], at, cpp.chain(more).chain(options).chain(paths))?;
            fs::remove_dir_all(&folder).map_err(|e| e.to_string())
        })?;
        Ok(library)
    }

    /// The shared object of a module, built on first use and kept under `target`.
    pub(crate) fn object(&self, source: &Source) -> Result<PathBuf, String> {
        let text = source.text();
        let hash = blake3::keyed_hash(self.identity.as_bytes(), text.as_bytes()).to_hex();
        let object = self.folder.join(format!("{}.so", &hash[..32]));
        publish(&object, |at| {
            let kernels = kernel_names(&text);
            if kernels.is_empty() {
                return Err("the text has no OV_KERNEL at the start of a line".to_owned());
            }
            let mut whole =
                format!("{SHIM_HEADER}\n{HOST}\n{WRAPPERS}\n#line 1 \"kernel\"\n{text}\n");
            for (name, threads) in kernels {
                whole.push_str(&format!("OV_SHIM_EXPORT({name}, {threads})\n"));
            }
            let file = PathBuf::from(format!("{}.cpp", at.display()));
            fs::write(&file, whole).map_err(|e| e.to_string())?;
            let built = build(&file, at, [Path::new("-O1"), self.shim.as_path()].into_iter());
            if built.is_ok() {
                drop(fs::remove_file(&file));
            }
            built
        })?;
        Ok(object)
    }
}

impl Compiler for HostCompiler {
    fn identity(&self) -> String {
        format!("host {}", self.identity.to_hex())
    }

    fn compile(&self, source: &Source, _: Target) -> Result<Image, CompileError> {
        let object = self.object(source).map_err(CompileError)?;
        let bytes = fs::read(&object).map_err(|e| CompileError(e.to_string()))?;
        Ok(Image { bytes, log: String::new() })
    }
}

/// The kernels of a text with the most threads that a block of each may have.
pub(crate) fn kernel_names(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix("OV_KERNEL")?;
            let (threads, rest) = match rest.strip_prefix("_BOUNDS(") {
                Some(bounds) => {
                    let (inside, rest) = bounds.split_once(')')?;
                    (inside.split(',').next()?.trim(), rest)
                }
                None => ("1024", rest),
            };
            let name = rest.trim_start().split('(').next()?.trim();
            (!name.is_empty()).then_some((name, threads))
        })
        .collect()
}

/// The folder of build outputs that this test runs from.
pub(crate) fn target_folder() -> PathBuf {
    // Tests are `target/PROFILE/deps/NAME`.
    let test = std::env::current_exe().unwrap_or_default();
    test.ancestors().nth(3).map_or_else(std::env::temp_dir, Path::to_path_buf)
}

/// With this variable set to 1, kernels are built with [`SANITIZERS`]; the process must have their library loaded.
pub(super) const SANITIZE: &str = "OV_HOST_SANITIZE";

/// Errors of memory and what the language leaves undefined, misaligned vectors above all. Frames are left out: fibers
/// end without leaving theirs. Pointers that are null and not followed may be added to.
const SANITIZERS: &[&str] = &[
    "-fsanitize=address,undefined",
    "-fno-sanitize=pointer-overflow",
    "-fno-sanitize-recover=all",
    "--param=asan-stack=0",
];

fn sanitizers() -> &'static [&'static str] {
    if std::env::var_os(SANITIZE).is_some_and(|v| v == "1") { SANITIZERS } else { &[] }
}

/// A library that comes with the compiler, if it has it.
pub(super) fn compilers_library(name: &str) -> Option<PathBuf> {
    let output = Command::new(program()).arg(format!("-print-file-name={name}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_absolute().then_some(path)
}

fn program() -> String {
    std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned())
}

/// Makes a file under a name of its own, then gives it its name, unless it is there already.
pub(crate) fn publish(
    path: &Path,
    make: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    if path.exists() {
        return Ok(());
    }
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}", std::process::id()));
    make(&temporary)?;
    let renamed = fs::rename(&temporary, path);
    renamed.or_else(|e: io::Error| if path.exists() { Ok(()) } else { Err(e.to_string()) })
}

/// Builds a shared object.
pub(crate) fn build<'a>(
    source: &Path,
    object: &Path,
    more: impl Iterator<Item = &'a Path>,
) -> Result<(), String> {
    let output = Command::new(program())
        .args(["-shared", "-fPIC", "-std=c++17", "-fno-exceptions", "-fno-rtti", "-w"])
        // As written: no product and sum in one, whatever the processor.
        .args(["-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"])
        .args(sanitizers())
        .args(["-x", "c++"])
        .arg(source)
        .args(["-x", "none", "-o"])
        .arg(object)
        .args(more)
        .output()
        .map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", source.display(), String::from_utf8_lossy(&output.stderr)))
}
