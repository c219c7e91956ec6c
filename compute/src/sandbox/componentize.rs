//! Core modules that use interfaces of components, made into components.
//!
//! Compilers for C, Zig, Go or AssemblyScript know core modules and preview 1, and no components. So a module may import
//! functions of `wasi:keyvalue` and `wasi:http` in the form that the canonical ABI gives to them, such as `open` of
//! `wasi:keyvalue/store@0.2.0-draft2`, beside those of preview 1, and no tool needs to come between its compiler and
//! Starfish. (What is lost on the way: of exit codes a component knows 0 and 1 only.) What `wit-bindgen` adds to a module about its world counts; without that, its world is one of `guest.wit`.

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmtime::Module;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata, metadata};
use wit_parser::Resolve;

/// What a module may import: the worlds.
const GUEST: &str = include_str!("../../wit/guest.wit");
/// The package that they stand on.
const KEYVALUE: &str = include_str!("../../wit/keyvalue.wit");

/// Whether a module imports an interface, or exports one. Their names have a colon, as those of preview 1 have not.
pub(super) fn uses_interfaces(module: &Module) -> bool {
    module.imports().any(|import| import.module().contains(':'))
        || module.exports().any(|export| export.name().contains(':'))
}

/// The same program as a component.
pub(super) fn into_component(module: &Module, wasm: &[u8]) -> Result<Vec<u8>, String> {
    encode(module, wasm).map_err(|error| format!("no component can be made of it: {error:#}"))
}

fn encode(module: &Module, wasm: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let is_command = module.get_export("_start").is_some();
    let adapter = if is_command {
        WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER
    } else {
        WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER
    };
    let mut wasm = wasm.to_vec();
    if let (None, _) = metadata::decode(&wasm)? {
        let mut resolve = Resolve::default();
        resolve.push_str("keyvalue.wit", KEYVALUE)?;
        let package = resolve.push_str("guest.wit", GUEST)?;
        let world = resolve.select_world(&[package], Some(if is_command { "command" } else { "service" }))?;
        embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8)?;
    }
    let mut encoder =
        ComponentEncoder::default().module(&wasm)?.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)?;
    Ok(encoder.encode()?)
}
