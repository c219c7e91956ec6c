//! Programs for the sandbox: the samples of `compute`, in binary form.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

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

/// The folder of the samples in real languages: built before, or built now, below `target`, with whatever compilers are
/// here.
#[track_caller]
pub fn built_samples(target: &str) -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(folder) = std::env::var_os("STARFISH_SAMPLES") {
            return folder.into();
        }
        let folder = Path::new(target).join("samples");
        let status = Command::new(samples().join("build")).arg(&folder).status();
        assert!(status.is_ok_and(|status| status.success()), "what cannot be built is no error");
        folder
    })
}

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../compute/samples")
}
