//! The house of crates: which may use which, and how large their files may be.

use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand};

/// From the top of the house to its ground. Each may use those behind it, and never one before it.
const HOUSE: [&str; 6] =
    ["starfish", "starfish-node", "starfish-compute", "starfish-fs", "starfish-memory", "starfish-dht"];
/// Stands beside the house: nobody in it may use it.
const TESTS: &str = "starfish-tests";
/// A longer file holds more than one idea.
const MAX_LINES: usize = 900;

fn workspace() -> Result<Metadata, cargo_metadata::Error> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec()
}

#[test]
fn the_arrows_between_the_crates_run_one_way() {
    for package in workspace().unwrap().workspace_packages() {
        if package.name == TESTS {
            continue;
        }
        let place = HOUSE.iter().position(|name| package.name == *name);
        let place = place.unwrap_or_else(|| panic!("{} has no place in the house", package.name));
        let may_use = &HOUSE[place + 1..];
        for used in package.dependencies.iter().filter(|used| used.name.starts_with("starfish")) {
            assert!(may_use.contains(&used.name.as_str()), "{} uses {}", package.name, used.name);
        }
    }
}

#[test]
fn versions_of_dependencies_stand_in_one_place() {
    for package in workspace().unwrap().workspace_packages() {
        let manifest = &package.manifest_path;
        let text = fs::read_to_string(manifest).unwrap();
        let versioned = text.lines().find(|line| line.contains("version = \""));
        assert_eq!(versioned, None, "{manifest}");
        assert!(text.contains("[lints]\nworkspace = true"), "{manifest} has lints of its own");
    }
}

#[test]
fn every_file_says_what_it_is_for_and_is_not_too_long() {
    let mut files = Vec::new();
    for package in workspace().unwrap().workspace_packages() {
        let folder = package.manifest_path.parent().unwrap();
        for room in ["src", "tests", "benches"] {
            sources(folder.join(room).as_std_path(), &mut files);
        }
    }
    assert!(files.len() > 100, "only {} files were found", files.len());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines", file.display());
        assert!(text.starts_with("//!"), "{} does not say what it is for", file.display());
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
