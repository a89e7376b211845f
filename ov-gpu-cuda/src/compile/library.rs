//! Where the optional CUDA libraries are: in folders of the user's, where the loader looks, in a toolkit, or in the
//! wheels of a Python environment.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use libloading::Library;

/// Folders that the user names, separated as in `PATH`; each holds libraries itself or is a Python `site-packages`.
pub(crate) const PATH_VARIABLE: &str = "OV_CUDA_LIBRARY_PATH";

/// Where wheels put the libraries of CUDA 13 and 12 below `site-packages`.
const WHEELS: &[&str] = &["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"];

/// Opens the first of `names` that is found in the first group of places that holds one. Libraries in the same folder whose names start with `companion` are opened
/// before it: a library that has no run path of its own finds them only so.
///
/// # Errors
/// Where it was looked for.
pub(crate) fn open(names: &[&str], companion: &str) -> Result<&'static Library, String> {
    let named: Vec<PathBuf> = env::var_os(PATH_VARIABLE)
        .iter()
        .flat_map(env::split_paths)
        .flat_map(with_wheels)
        .collect();
    if let Some(library) = open_in(&named, names, companion) {
        return Ok(library);
    }
    if let Some(library) = names.iter().find_map(|name| load(name)) {
        return Ok(library);
    }
    let others = other_folders();
    open_in(&others, names, companion).ok_or_else(|| {
        format!(
            "{} is not installed: looked in {PATH_VARIABLE}, where the loader looks, in CUDA_HOME \
             and in Python environments; set {PATH_VARIABLE} to its folder",
            names[0]
        )
    })
}

fn open_in(folders: &[PathBuf], names: &[&str], companion: &str) -> Option<&'static Library> {
    let places = names.iter().flat_map(|name| folders.iter().map(move |f| (f, f.join(name))));
    places.filter(|(_, path)| path.exists()).find_map(|(folder, path)| {
        for entry in fs::read_dir(folder).ok()?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(companion) {
                load(entry.path());
            }
        }
        load(path)
    })
}

/// Libraries stay loaded as long as the process.
fn load(name: impl AsRef<OsStr>) -> Option<&'static Library> {
    // SAFETY: the initialisers of NVIDIA's libraries ask nothing of their caller.
    let library = unsafe { Library::new(name.as_ref()) }.ok()?;
    Some(Box::leak(Box::new(library)))
}

/// The folder, and where it holds wheels if it is a `site-packages`.
fn with_wheels(folder: PathBuf) -> Vec<PathBuf> {
    let wheels = WHEELS.iter().map(|wheel| folder.join(wheel));
    let mut all: Vec<PathBuf> = wheels.collect();
    all.insert(0, folder);
    all
}

/// Toolkits and Python environments.
fn other_folders() -> Vec<PathBuf> {
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(env::var_os).map(PathBuf::from);
    let usual = [PathBuf::from("/usr/local/cuda"), PathBuf::from("/opt/cuda")];
    let mut folders: Vec<PathBuf> =
        toolkits.chain(usual).flat_map(|t| [t.join("lib64"), t.join("lib")]).collect();
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(env::var_os);
    for environment in environments {
        folders.extend(site_packages(Path::new(&environment)).into_iter().flat_map(with_wheels));
    }
    folders
}

/// `lib/python3.*/site-packages` of an environment.
fn site_packages(environment: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(environment.join("lib")) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .map(|entry| entry.path().join("site-packages"))
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_folder_may_be_site_packages() {
        let folders = with_wheels(PathBuf::from("/x"));
        let expected = ["/x", "/x/nvidia/cu13/lib", "/x/nvidia/cuda_nvrtc/lib"];
        assert_eq!(folders, expected.map(PathBuf::from));
    }

    #[test]
    fn says_where_it_looked_for_what_is_missing() {
        let error = open(&["libno-such-library-of-ov.so.1"], "libno-such").unwrap_err();
        assert!(error.contains(PATH_VARIABLE), "{error}");
    }
}
