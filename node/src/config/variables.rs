//! `STARFISH_*` variables that nobody reads. They are most likely slips in typing, and are told of at the start.

use std::cell::RefCell;

use super::Layer;
use crate::data_dir::DATA_DIR_ENV;

/// What they all begin with.
const PREFIX: &str = "STARFISH_";
/// Variables that are read by what builds and tests this program.
const OF_TESTS: [&str; 8] = [
    "STARFISH_BENCH_OPEN",
    "STARFISH_MEMORY_TEST_DIR",
    "STARFISH_SAMPLES",
    "STARFISH_SEED",
    "STARFISH_STATIC_BINARY",
    "STARFISH_TEST_AT_REST",
    "STARFISH_TEST_PROGRAM",
    "STARFISH_TOOLS",
];
/// Variables that tasks are given. One that starts a node hands them on.
const OF_TASKS: [&str; 3] = ["STARFISH_CHANGE", "STARFISH_TICK", "STARFISH_VERSION"];

/// A variable that looks like a setting and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// The name that was probably meant.
    pub nearest: Option<String>,
}

/// Those of `names` that begin as this program's variables do and are neither a node's nor `others`.
pub fn unknown_variables(names: impl IntoIterator<Item = String>, others: &[&str]) -> Vec<UnknownVariable> {
    let known: Vec<String> =
        settings().into_iter().chain(others.iter().map(|other| (*other).to_owned())).collect();
    let is_known = |name: &String| {
        known.contains(name) || OF_TESTS.contains(&name.as_str()) || OF_TASKS.contains(&name.as_str())
    };
    let unknown = names.into_iter().filter(|name| name.starts_with(PREFIX) && !is_known(name));
    let mut unknown: Vec<UnknownVariable> =
        unknown.map(|name| UnknownVariable { nearest: nearest(&name, &known), name }).collect();
    unknown.sort_by(|left, right| left.name.cmp(&right.name));
    unknown
}

/// The variables that settings are read from, and the one that names the folder.
fn settings() -> Vec<String> {
    let asked = RefCell::new(vec![DATA_DIR_ENV.to_owned()]);
    // Whoever reads them says which they are. Nothing is set here, so nothing can be misunderstood.
    let _ = Layer::from_environment(|name| {
        asked.borrow_mut().push(name.to_owned());
        None
    });
    asked.into_inner()
}

/// The known name that `name` is a slip of: a letter more or less for every four, or a part that was left out.
fn nearest(name: &str, known: &[String]) -> Option<String> {
    let rest = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    let own = rest(name);
    let is_part = |known: &str| known.split('_').next_back() == Some(own.as_str());
    let distance = |known: &String| match rest(known) {
        known if is_part(&known) => 1,
        known => strsim::osa_distance(&own, &known),
    };
    let (distance, nearest) = known.iter().map(|known| (distance(known), known)).min()?;
    (distance <= 1 + own.len() / 4).then(|| nearest.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(names: &[&str]) -> Vec<(String, Option<String>)> {
        let names = names.iter().map(|name| (*name).to_owned());
        let unknown = unknown_variables(names, &["STARFISH_JOIN"]);
        unknown.into_iter().map(|unknown| (unknown.name, unknown.nearest)).collect()
    }

    #[test]
    fn what_somebody_reads_is_not_told_of() {
        let known = ["STARFISH_PORT", "STARFISH_SCRUB_RATE", "STARFISH_DATA_DIR", "STARFISH_JOIN"];
        assert_eq!(told(&known), []);
        assert_eq!(told(&["STARFISH_TICK", "STARFISH_TEST_PROGRAM", "PATH", "STARFIS_PORT"]), []);
    }

    #[test]
    fn a_slip_is_told_of_with_the_name_that_is_near() {
        let near = |slip: &str, meant: &str| {
            assert_eq!(told(&[slip]), [(slip.to_owned(), Some(meant.to_owned()))]);
        };
        near("STARFISH_STORAGE_QOUTA", "STARFISH_STORAGE_QUOTA");
        near("STARFISH_STORAGE__QUOTA", "STARFISH_STORAGE_QUOTA");
        near("STARFISH_QUOTA", "STARFISH_STORAGE_QUOTA");
        near("STARFISH_PROT", "STARFISH_PORT");
        near("STARFISH_JOINS", "STARFISH_JOIN");
        assert_eq!(told(&["STARFISH_WEATHER"]), [("STARFISH_WEATHER".to_owned(), None)]);
    }
}
