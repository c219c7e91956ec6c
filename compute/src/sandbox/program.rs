//! Programs: which kind one is, whether it may run, its compiled form, and its start.
//!
//! What tasks can be granted is what is linked here, and nothing is linked that would always refuse: of WASI's
//! sockets, for one, only what operates on a socket, since libraries mention that in programs that never have
//! one, and nothing that makes one. So a program that asks for more is found out when it is compiled, and one that asks
//! for what it was not granted when it is started ([`Program::check`]).

use std::path::Path;
use std::sync::Arc;

use wasmtime::component::{self, Component};
use wasmtime::{Engine, ExternType, InstancePre, Linker, Module, Precompiled, Store, UnknownImportError};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::{CommandPre, cli, filesystem, random, sockets};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};
use wasmtime_wasi::{WasiView, p1, p2};

use wasmtime_wasi_http::p2::bindings::{ProxyPre, http};
use wasmtime_wasi_http::{WasiHttp, WasiHttpView};

use super::Guest;
use super::service::{self, Answer};
use super::{clocks, componentize, handlers, keyvalue, outgoing};
use crate::guest_io::GuestInput;
use crate::order::RequestHead;
use crate::reach::Reach;

/// What a module exports to be a command.
const START: &str = "_start";
/// What a component exports to be a command, in any version of it.
const RUN: &str = "wasi:cli/run";
/// What a component exports to answer HTTP requests.
const HANDLER: &str = "wasi:http/incoming-handler";

/// A program that is ready to be started many times.
#[derive(Clone)]
pub(crate) struct Program {
    kind: Kind,
    /// The names of what it imports and can only use where it was granted.
    wants: Arc<[Want]>,
}

/// An import that needs a grant.
struct Want {
    import: String,
    what: Wanted,
}

#[derive(Clone, Copy)]
enum Wanted {
    Buckets,
    Requests,
}

#[derive(Clone)]
enum Kind {
    /// A WASI preview 1 command, or a library of handlers.
    Module(InstancePre<Guest>),
    /// A component of the world `wasi:cli/command`.
    Component(CommandPre<Guest>),
    /// A component of the world `wasi:http/proxy`.
    Service(ProxyPre<Guest>),
}

/// Why a program cannot be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("{0}")]
    Rejected(String),
    #[error("its compiled form cannot be read")]
    Read(#[source] std::io::Error),
    #[error("its compiled form is damaged")]
    Damaged,
    #[error("its compiled form does not load: {0:#}")]
    Load(wasmtime::Error),
}

/// What programs of either kind are given.
pub(super) struct Linkers {
    modules: Linker<Guest>,
    components: component::Linker<Guest>,
}

impl Program {
    /// Starts it, or a handler of that name if it exports one, and waits for its end; returns its exit code.
    pub(super) async fn run(&self, store: &mut Store<Guest>, handler: Option<&str>) -> wasmtime::Result<i32> {
        if let Some(handler) = handler {
            let was_called = match &self.kind {
                Kind::Module(program) => handlers::call_of_module(program, store, handler).await?,
                Kind::Component(program) => {
                    handlers::call_of_component(program.instance_pre(), store, handler).await?
                }
                Kind::Service(_) => false,
            };
            if was_called {
                return Ok(0);
            }
        }
        match &self.kind {
            Kind::Module(program) if !is_command(program.module()) => {
                Err(handler.map_or_else(no_command, |handler| handlers::lacks(program, handler)))
            }
            Kind::Module(program) => {
                let instance = program.instantiate_async(&mut *store).await?;
                let entry = instance.get_typed_func::<(), ()>(&mut *store, START)?;
                entry.call_async(store, ()).await?;
                Ok(0)
            }
            Kind::Component(program) => {
                let command = program.instantiate_async(&mut *store).await?;
                let ended = command.wasi_cli_run().call_run(store).await?;
                Ok(if ended.is_ok() { 0 } else { 1 })
            }
            Kind::Service(_) => Err(wasmtime::Error::msg("it is not a command: it answers HTTP requests")),
        }
    }

    /// Whether it is one that answers HTTP requests.
    pub(crate) fn answers(&self) -> bool {
        matches!(self.kind, Kind::Service(_))
    }

    /// Whether it was granted what it imports; if not, what it lacks.
    pub(crate) fn check(&self, reach: &[Reach]) -> Result<(), String> {
        let lacks = |want: &&Want| match want.what {
            Wanted::Buckets => !reach.iter().any(|reach| matches!(reach, Reach::Memory { .. })),
            Wanted::Requests => reach.iter().all(|reach| matches!(reach, Reach::Memory { .. })),
        };
        let Some(Want { import, what }) = self.wants.iter().find(lacks) else { return Ok(()) };
        let grants = match what {
            Wanted::Buckets => "mem:SPACE",
            Wanted::Requests => "http:HOST, or fn:NAME",
        };
        Err(format!("it asks for {import}, which is not granted to it (--grant {grants})"))
    }

    /// Lets it answer an HTTP request.
    pub(super) async fn answer(
        &self,
        store: &mut Store<Guest>,
        request: &RequestHead,
        input: GuestInput,
        to: Answer,
    ) -> wasmtime::Result<()> {
        match &self.kind {
            Kind::Service(program) => service::answer(program, store, request, input, to).await,
            _ => Err(wasmtime::Error::msg(format!("it answers no HTTP requests: it exports no {HANDLER}"))),
        }
    }
}

impl Linkers {
    pub(super) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let mut modules = Linker::new(engine);
        p1::add_to_linker_async(&mut modules, |guest: &mut Guest| &mut guest.wasi)?;
        // The library's takes any code from 126 on for an error of the program's; to systems they are codes like others.
        modules.allow_shadowing(true);
        modules.func_wrap("wasi_snapshot_preview1", "proc_exit", |code: i32| -> wasmtime::Result<()> {
            Err(I32Exit(code).into())
        })?;
        clocks::shadow_preview1(&mut modules)?;
        modules.allow_shadowing(false);
        let mut components = component::Linker::new(engine);
        grant_to_components(&mut components)?;
        components.allow_shadowing(true);
        clocks::shadow_components(&mut components)?;
        components.allow_shadowing(false);
        Ok(Self { modules, components })
    }

    /// Compiles a program, if it is one that can be run here.
    pub(super) fn compile(&self, engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>, LoadError> {
        let broken = |error| LoadError::Rejected(format!("it does not compile: {error:#}"));
        // A layer of 0 is a core module, 1 a component.
        match wasm.get(..8) {
            Some(b"\0asm\x01\0\0\0") => {
                let module = Module::new(engine, wasm).map_err(broken)?;
                if componentize::uses_interfaces(&module) {
                    let component =
                        componentize::into_component(&module, wasm).map_err(LoadError::Rejected)?;
                    return self.compile(engine, &component);
                }
                self.link_module(&module)?;
                module.serialize().map_err(LoadError::Load)
            }
            Some([b'\0', b'a', b's', b'm', _, _, 1, 0]) => {
                let component = Component::new(engine, wasm).map_err(broken)?;
                self.link_component(&component)?;
                component.serialize().map_err(LoadError::Load)
            }
            _ => Err(LoadError::Rejected("it is not a WASM program".to_owned())),
        }
    }

    /// Reads a compiled program.
    pub(super) fn load(&self, engine: &Engine, path: &Path) -> Result<Program, LoadError> {
        let bytes = std::fs::read(path).map_err(LoadError::Read)?;
        let (seal, code) = bytes.split_at_checked(blake3::OUT_LEN).ok_or(LoadError::Damaged)?;
        if blake3::hash(code) != *seal {
            return Err(LoadError::Damaged);
        }
        match Engine::detect_precompiled(code) {
            Some(Precompiled::Module) => self.link_module(&deserialize_module(engine, code)?),
            Some(Precompiled::Component) => self.link_component(&deserialize_component(engine, code)?),
            _ => Err(LoadError::Damaged),
        }
    }

    fn link_module(&self, module: &Module) -> Result<Program, LoadError> {
        match module.get_export(START) {
            Some(ExternType::Func(start)) if handlers::takes_and_gives_nothing(&start) => {}
            Some(_) => return Err(rejected("it is not a command: its _start is not one")),
            None if handlers::of_module(module).next().is_some() => {}
            None => return Err(LoadError::Rejected(no_command().to_string())),
        }
        let program = self.modules.instantiate_pre(module);
        let program = program.map(|program| Program { kind: Kind::Module(program), wants: Arc::default() });
        program.map_err(|error| match error.downcast_ref::<UnknownImportError>() {
            Some(import) => not_granted(&format!("{}::{}", import.module(), import.name())),
            None => LoadError::Rejected(format!("it asks for what tasks are not granted: {error:#}")),
        })
    }

    fn link_component(&self, component: &Component) -> Result<Program, LoadError> {
        let kind = component.component_type();
        let engine = component.engine();
        let exports = |wanted| kind.exports(engine).any(|(name, _)| name.split('@').next() == Some(wanted));
        let (is_command, is_service) = (exports(RUN), exports(HANDLER));
        if !is_command && !is_service {
            let why = format!("it is not a command: it exports no {RUN}, nor {HANDLER}");
            return Err(LoadError::Rejected(why));
        }
        let program = self.components.instantiate_pre(component).map_err(|error| {
            let words = error.to_string();
            let import = kind.imports(engine).find(|(name, _)| words.contains(&format!("`{name}`")));
            match import {
                Some((name, _)) => not_granted(name),
                None => LoadError::Rejected(format!("it asks for what tasks are not granted: {error:#}")),
            }
        })?;
        let wants = kind.imports(engine).filter_map(|(name, _)| want(name)).collect();
        let kind = if is_command {
            CommandPre::new(program).map(Kind::Component)
        } else {
            ProxyPre::new(program).map(Kind::Service)
        };
        kind.map(|kind| Program { kind, wants })
            .map_err(|error| LoadError::Rejected(format!("its exports are not as they should be: {error:#}")))
    }
}

fn want(import: &str) -> Option<Want> {
    let what = if import.starts_with(keyvalue::PACKAGE) {
        Wanted::Buckets
    } else if import.split('@').next() == Some(outgoing::INTERFACE) {
        Wanted::Requests
    } else {
        return None;
    };
    Some(Want { import: import.to_owned(), what })
}

/// All of `wasi:cli/imports`, `wasi:http/imports` and `wasi:keyvalue/imports`, but for what would make sockets or look
/// names up.
fn grant_to_components(linker: &mut component::Linker<Guest>) -> wasmtime::Result<()> {
    // Streams, clocks, random numbers and the three standard streams.
    p2::add_to_linker_proxy_interfaces_async(linker)?;
    random::insecure::add_to_linker::<Guest, WasiRandom>(linker, |guest| guest.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<Guest, WasiRandom>(linker, |guest| guest.ctx().ctx.random())?;
    cli::environment::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::exit::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::terminal_input::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::terminal_output::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::terminal_stdin::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::terminal_stdout::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::terminal_stderr::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    filesystem::preopens::add_to_linker::<Guest, WasiFilesystem>(linker, Guest::filesystem)?;
    filesystem::types::add_to_linker::<Guest, WasiFilesystem>(linker, Guest::filesystem)?;
    let stable = sockets::network::LinkOptions::default();
    sockets::network::add_to_linker::<Guest, WasiSockets>(linker, &stable, Guest::sockets)?;
    let stable = http::types::LinkOptions::default();
    http::types::add_to_linker::<Guest, WasiHttp>(linker, &stable, Guest::http)?;
    http::outgoing_handler::add_to_linker::<Guest, WasiHttp>(linker, Guest::http)?;
    keyvalue::add_to_linker(linker, Guest::buckets)?;
    sockets::tcp::add_to_linker::<Guest, WasiSockets>(linker, Guest::sockets)?;
    sockets::udp::add_to_linker::<Guest, WasiSockets>(linker, Guest::sockets)
}

/// The bytes of a compiled program, with their hash in front so that damage on the disk is found.
pub(crate) fn seal_artifact(code: &[u8]) -> Vec<u8> {
    [blake3::hash(code).as_bytes(), code].concat()
}

#[expect(unsafe_code, reason = "wasmtime can check its own compiled code for compatibility only")]
fn deserialize_module(engine: &Engine, code: &[u8]) -> Result<Module, LoadError> {
    // SAFETY: this code came out of `Linkers::compile` in a process of this node that never ran a guest. The
    // node alone writes to the cache folder, nothing in it ever comes from a peer, and its seal has just shown
    // that it is what was written.
    unsafe { Module::deserialize(engine, code) }.map_err(LoadError::Load)
}

#[expect(unsafe_code, reason = "wasmtime can check its own compiled code for compatibility only")]
fn deserialize_component(engine: &Engine, code: &[u8]) -> Result<Component, LoadError> {
    // SAFETY: as for modules.
    unsafe { Component::deserialize(engine, code) }.map_err(LoadError::Load)
}

fn is_command(module: &Module) -> bool {
    module.get_export(START).is_some()
}

fn no_command() -> wasmtime::Error {
    wasmtime::Error::msg(format!("it is not a command: it exports no {START}"))
}

fn not_granted(import: &str) -> LoadError {
    LoadError::Rejected(format!("it asks for {import}, which is not granted to tasks"))
}

fn rejected(why: &str) -> LoadError {
    LoadError::Rejected(why.to_owned())
}
