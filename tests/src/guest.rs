//! Programs for the sandbox: the samples of `compute`, in binary form.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

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

/// A component that answers each HTTP request with 201, its path and query in a line, and its own body.
#[track_caller]
pub fn http_service() -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compute/src/pool/tests");
    let build = || -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let mut module = wat::parse_file(folder.join("service.wat"))?;
        let mut resolve = Resolve::default();
        let package =
            resolve.push_str("service.wit", &std::fs::read_to_string(folder.join("service.wit"))?)?;
        let world = resolve.select_world(&[package], Some("service"))?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
        Ok(ComponentEncoder::default().module(&module)?.encode()?)
    };
    build().unwrap_or_else(|error| panic!("the service cannot be built: {error}"))
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
