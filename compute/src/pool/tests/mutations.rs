//! Real programs with bytes changed, left out and put in: each is refused or ends, with a name, in time.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// How long a mutant may run.
const TIMEOUT: Duration = Duration::from_millis(100);
/// How long one may take to be refused or compiled, on a machine that does much else.
const COMPILES_WITHIN: Duration = Duration::from_secs(20);

/// Changes a program a little, in one of the ways in which files break and attackers try. Mostly by a byte, since
/// that is what most often leaves a program that can be run.
fn mutate(wasm: &[u8], chance: &mut StdRng) -> Vec<u8> {
    let mut mutant = wasm.to_vec();
    let at = chance.random_range(8..mutant.len());
    let end = (at + chance.random_range(1..16)).min(mutant.len());
    match chance.random_range(0..10) {
        0 => mutant.truncate(at),
        1 => drop(mutant.drain(at..end)),
        2 => {
            let piece = mutant[at..end].to_vec();
            let to = chance.random_range(8..mutant.len());
            mutant.splice(to..to, piece);
        }
        3 => mutant[at..end].fill_with(|| chance.random()),
        4..=6 => mutant[at] = chance.random(),
        _ => mutant[at] ^= 1 << chance.random_range(0..8),
    }
    mutant
}

/// Runs mutants of programs; returns how many were not refused.
async fn run_mutants(fixture: &Fixture, programs: &[Vec<u8>], seed: u64, mutants: usize) -> usize {
    let mut ran = 0;
    for number in 0..mutants {
        // Each by its own seed, so that one that fails can be looked at by itself.
        let mut chance = StdRng::seed_from_u64(seed + number as u64);
        let program = &programs[number % programs.len()];
        let mutant = mutate(program, &mut chance);
        let started = Instant::now();
        let order = fixture.order_of("mutant", mutant).await;
        assert!(started.elapsed() < COMPILES_WITHIN, "mutant {number}: {:?}", started.elapsed());
        let mut order = match order {
            Ok(order) => order,
            Err(PrepareError::Compile(CompileError::Rejected(why))) => {
                assert!(!why.is_empty());
                continue;
            }
            Err(error) => panic!("mutant {number}: {error:?}"),
        };
        ran += 1;
        order.timeout_ms = u64::try_from(TIMEOUT.as_millis()).unwrap();
        let end = fixture.run(&order, &["some ", "input"]).await;
        assert!(end.took < TIMEOUT + Duration::from_secs(1), "mutant {number} took {:?}", end.took);
        // Panics where the worker was lost or the program is not as it was compiled.
        assert!(!end.outcome().to_string().is_empty());
    }
    let hello = fixture.run(&fixture.order("hello").await, &[]).await;
    assert_eq!(hello.stdout, b"hello, swarm\n");
    ran
}

fn modules() -> Vec<Vec<u8>> {
    ["upper", "cat", "write", "exit", "sleep", "print", "eat", "recurse"].map(sample).to_vec()
}

fn components() -> Vec<Vec<u8>> {
    modules().iter().map(|module| as_component(module)).collect()
}

#[tokio::test]
async fn mutated_modules_are_refused_or_end() {
    let fixture = Fixture::new();
    let ran = run_mutants(&fixture, &modules(), 1, 150).await;
    assert!(ran > 5, "{ran} were worth running");
}

#[tokio::test]
async fn mutated_components_are_refused_or_end() {
    let fixture = Fixture::new();
    let ran = run_mutants(&fixture, &components(), 1, 40).await;
    assert!(ran > 0, "{ran} were worth running");
}

/// `cargo test -p starfish-compute --lib -- --ignored soak`
#[tokio::test]
#[ignore = "takes many minutes"]
async fn a_soak_of_mutants() {
    let fixture = Fixture::new();
    let seed = rand::random::<u64>() >> 1;
    println!("seed {seed}");
    let modules = run_mutants(&fixture, &modules(), seed, 5000).await;
    let components = run_mutants(&fixture, &components(), seed, 1000).await;
    println!("{modules} modules and {components} components ran");
}
