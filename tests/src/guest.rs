//! Programs for the sandbox: the samples of `compute`, in binary form.

use std::path::{Path, PathBuf};

use crate::scratch::Scratch;

impl Scratch {
    /// Writes the sample program `NAME.wat` of `compute/samples` as `NAME.wasm`, and gives its path.
    #[track_caller]
    pub fn guest(&self, name: &str) -> String {
        let source = samples().join(name).with_extension("wat");
        let binary = wat::parse_file(&source);
        let binary = binary.unwrap_or_else(|error| panic!("{} is no program: {error}", source.display()));
        self.write(&format!("{name}.wasm"), binary)
    }
}

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../compute/samples")
}
