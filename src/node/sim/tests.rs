//! Seeds by the hundred, and single ones with their trace.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::script::{SCRIPTS, perform};
use super::*;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What a failing seed shows: the violation, the end of its trace, and how to see it again.
fn explain(seed: u64, mutant: Option<Mutant>) -> String {
    let (result, lines) = run(seed, mutant, true);
    let from = lines.len().saturating_sub(TRACE_LINES);
    let why = match result {
        Err(v) => v.text,
        Ok(_) => "nothing: the seed does not replay".into(),
    };
    format!(
        "seed {seed}: {why}\n{}\nreplay: CACHECTL_SEED={seed} cargo test --lib sim::tests::one_seed -- --nocapture",
        lines[from..].join("\n")
    )
}

/// Seeds where nobody says how many: a few seconds' worth.
const SOME_SEEDS: u64 = 12;

/// Runs seeds on all cores until so many have failed.
fn many(mutant: Option<Mutant>, first: u64, count: u64, failures: usize) -> (Summary, Vec<u64>) {
    let next = AtomicU64::new(first);
    let failed = Mutex::new(Vec::new());
    let total = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while failed.lock().unwrap().len() < failures {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    match run(seed, mutant, false).0 {
                        Ok(s) => {
                            let mut t = total.lock().unwrap();
                            t.events += s.events;
                            t.operations += s.operations;
                            t.lost += s.lost;
                            t.undecided += s.undecided;
                        }
                        Err(v) => {
                            println!("seed {seed}: {}", v.text);
                            failed.lock().unwrap().push(seed);
                        }
                    }
                }
            });
        }
    });
    (total.into_inner().unwrap(), failed.into_inner().unwrap())
}

#[test]
fn fresh_seeds() {
    let asked = number("CACHECTL_SEEDS");
    // Without a number of seeds this is a quick look, the same each time.
    let first = number("CACHECTL_SEED").unwrap_or_else(|| asked.map_or(1, |_| u64::from(rand::random::<u32>())));
    let count = asked.unwrap_or(SOME_SEEDS);
    println!("{count} seeds from {first}");
    let begun = Instant::now();
    let (total, failed) = many(None, first, count, number("CACHECTL_FAILURES").map_or(1, |n| n as usize));
    if let Some(seed) = failed.first() {
        panic!("{}", explain(*seed, None));
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64() * 60.0;
    println!("{count} seeds from {first}: {rate:.0} a minute; {total:?}");
}

#[test]
fn one_seed() {
    let Some(seed) = number("CACHECTL_SEED") else { return };
    let (result, lines) = run(seed, None, true);
    if let Err(v) = &result {
        let from = lines.len().saturating_sub(number("CACHECTL_LINES").map_or(TRACE_LINES, |n| n as usize));
        println!("{}", lines[from..].join("\n"));
        panic!("seed {seed}: {}", v.text);
    }
    println!("{result:?}");
}

/// What failed once is run for ever.
#[test]
fn seeds_that_failed_once() {
    let lines = include_str!("seeds.txt").lines().filter(|l| !l.starts_with('#'));
    let seeds: Vec<u64> = lines.map(|l| l.split_whitespace().next().unwrap().parse().unwrap()).collect();
    assert!(!seeds.is_empty());
    for seed in seeds {
        let (_, failed) = many(None, seed, 1, 1);
        assert!(failed.is_empty(), "{}", explain(seed, None));
    }
}

/// A seed decides everything.
#[test]
fn a_seed_replays() {
    let (a, b) = (run(11, None, false).0.unwrap(), run(11, None, true).0.unwrap());
    assert_eq!((a.digest, a.events, a.operations), (b.digest, b.events, b.operations));
}

/// Every rule of PROTOCOL section 9 that is switched off is noticed within this many seeds.
const MUTANT_SEEDS: u64 = 2000;

const MUTANTS: &[Mutant] = &[
    Mutant::AckBeforeBackup,
    Mutant::SoloByItself,
    Mutant::NoLeaseCheckAfterRead,
    Mutant::NoReadGating,
    Mutant::ReadyBeforeAckSet,
    Mutant::PromoteLearner,
    Mutant::IgnoreIncarnation,
    Mutant::LowerLeader,
    Mutant::KeepTails,
    Mutant::WipeBeforeSwitch,
    Mutant::PullFromMastersOnly,
    Mutant::LeaseBehindPterm,
    Mutant::RestartCopy,
    Mutant::OldRelinquish,
    Mutant::EmptyAckSet,
    Mutant::NoWaitAfterHandOut,
    Mutant::HalfAnItem,
    Mutant::NoPromiseWait,
    Mutant::FencedHolderWipes,
    Mutant::LastBackupGoes,
];

/// A script is played with so many seeds: each has its own delays.
const SCRIPT_SEEDS: u64 = 5;

/// The schedules of COUNTEREXAMPLES: `CACHECTL_SCRIPT=n` takes one of them.
#[test]
fn what_broke_drafts_holds_and_breaks_without_its_rule() {
    let only = number("CACHECTL_SCRIPT").map(|n| n as usize);
    let mut wrong = Vec::new();
    for (n, script) in SCRIPTS.iter().enumerate().filter(|(n, _)| only.is_none_or(|o| o == n + 1)) {
        let (name, mutant, end) = (script.name, script.rule, script.end);
        for seed in 1..=SCRIPT_SEEDS {
            for off in [None, Some(mutant)] {
                let (done, lines) = perform(script, seed, off);
                let fits = match (&done, off) {
                    (Ok(()), None) => true,
                    (Err(v), Some(_)) => end.split('|').any(|end| v.text.contains(end)),
                    _ => false,
                };
                if !fits {
                    let from = lines.len().saturating_sub(TRACE_LINES);
                    println!("{}\n{} {name}, seed {seed}, without {off:?}: {done:?}", lines[from..].join("\n"), n + 1);
                    wrong.push((n + 1, seed, off));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Long: `cargo test --lib sim::tests::mutants_are_caught -- --ignored --nocapture`; `CACHECTL_MUTANT=n` takes one of them.
#[test]
#[ignore = "takes minutes; CI runs it apart"]
fn mutants_are_caught() {
    let seeds = number("CACHECTL_SEEDS").unwrap_or(MUTANT_SEEDS);
    let only = number("CACHECTL_MUTANT").map(|n| n as usize);
    let mut missed = Vec::new();
    for (n, mutant) in MUTANTS.iter().enumerate().filter(|(n, _)| only.is_none_or(|o| o == *n)) {
        let (_, failed) = many(Some(*mutant), 1, seeds, 1);
        match failed.first() {
            Some(seed) => println!("{n} {mutant:?}: caught by seed {seed}"),
            None => missed.push(mutant),
        }
    }
    assert!(missed.is_empty(), "not caught within {seeds} seeds: {missed:?}");
}
