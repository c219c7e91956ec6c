//! Programs for the sandbox: the samples of `compute`, in binary form.

use std::path::{Path, PathBuf};

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wit_component::ComponentEncoder;

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

/// The same preview 1 command as a component of the world `wasi:cli/command`.
#[track_caller]
pub fn as_component(module: &[u8]) -> Vec<u8> {
    let adapter = (WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER);
    let component = ComponentEncoder::default()
        .module(module)
        .and_then(|encoder| encoder.adapter(adapter.0, adapter.1))
        .and_then(|mut encoder| encoder.encode());
    component.unwrap_or_else(|error| panic!("no component can be made of it: {error:#}"))
}

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../compute/samples")
}
