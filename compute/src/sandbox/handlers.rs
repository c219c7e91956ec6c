//! Handlers: functions that a program exports under names of their own, to be called in place of the whole program.
//!
//! A handler takes nothing and gives nothing back: it reads its standard input and writes its standard output, as a command does. A module that is
//! a library of handlers (a *reactor*) is made ready by its `_initialize` first, if it has one.

use wasmtime::component::{Component, InstancePre as ComponentPre, types::ComponentItem};
use wasmtime::{ExternType, FuncType, InstancePre, Module, Store};

use super::Guest;

/// What makes a library of functions ready, by the convention of preview 1.
const INITIALIZE: &str = "_initialize";
/// The most handlers that are named to someone who asked for another.
const MAX_NAMED: usize = 16;

/// The handlers of a module. Names with an underscore in front belong to compilers.
pub(super) fn of_module(module: &Module) -> impl Iterator<Item = &str> {
    let handlers = module.exports().filter(|export| is_handler(&export.ty()));
    handlers.map(|export| export.name()).filter(|name| !name.starts_with('_'))
}

fn is_handler(export: &ExternType) -> bool {
    matches!(export, ExternType::Func(function) if takes_and_gives_nothing(function))
}

/// Whether that is the type of `_start`, `_initialize` and handlers.
pub(super) fn takes_and_gives_nothing(function: &FuncType) -> bool {
    function.params().len() + function.results().len() == 0
}

/// Calls a handler of a module; says whether it has it.
pub(super) async fn call_of_module(
    program: &InstancePre<Guest>,
    store: &mut Store<Guest>,
    handler: &str,
) -> wasmtime::Result<bool> {
    if !of_module(program.module()).any(|name| name == handler) {
        return Ok(false);
    }
    let instance = program.instantiate_async(&mut *store).await?;
    if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut *store, INITIALIZE) {
        initialize.call_async(&mut *store, ()).await?;
    }
    instance.get_typed_func::<(), ()>(&mut *store, handler)?.call_async(store, ()).await?;
    Ok(true)
}

/// Calls a handler of a component; says whether it has it.
pub(super) async fn call_of_component(
    program: &ComponentPre<Guest>,
    store: &mut Store<Guest>,
    handler: &str,
) -> wasmtime::Result<bool> {
    if !has(program.component(), handler) {
        return Ok(false);
    }
    let instance = program.instantiate_async(&mut *store).await?;
    instance.get_typed_func::<(), ()>(&mut *store, handler)?.call_async(store, ()).await?;
    Ok(true)
}

fn has(component: &Component, handler: &str) -> bool {
    let is_one = |item: &ComponentItem| match item {
        ComponentItem::ComponentFunc(function) => {
            function.params().len() == 0 && function.results().len() == 0
        }
        _ => false,
    };
    component.get_export(None, handler).is_some_and(|(item, _)| is_one(&item))
}

/// Why a handler is not called: what there is instead.
pub(super) fn lacks(program: &InstancePre<Guest>, handler: &str) -> wasmtime::Error {
    let names: Vec<_> = of_module(program.module()).take(MAX_NAMED).collect();
    wasmtime::Error::msg(format!("it has no handler {handler}: its handlers are {}", names.join(", ")))
}
