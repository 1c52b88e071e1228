//! The contract over many seeds, and the bugs that seeds find.

use std::{env, time::Instant};
use touchline_simulation::{Faults, Sabotage, Setting, run, run_all, trace};

/// Within so many seeds a broken rule is to show.
const ENOUGH: u64 = 3_000;

fn keeps_the_contract(name: &str, seeds: u64, faults: Faults) {
    let began = Instant::now();
    let setting = Setting { faults, sabotage: Sabotage::Nothing };
    let figures = run_all(0..seeds, setting).unwrap_or_else(|failure| panic!("{failure}"));
    let per_second = seeds as f64 / began.elapsed().as_secs_f64();
    println!("{name}: {seeds} seeds, {per_second:.0} a second, {figures:?}");
}

fn is_found(sabotage: Sabotage) {
    let Err(failure) = run_all(0..ENOUGH, Setting { faults: Faults::Many, sabotage }) else {
        panic!("{sabotage:?} was not found in {ENOUGH} seeds");
    };
    println!("{sabotage:?} is found by seed {}: {}", failure.seed, failure.wrong[0]);
    let honest = Setting { faults: Faults::Many, sabotage: Sabotage::Nothing };
    assert!(run(failure.seed, honest).is_ok(), "seed {} fails without it too", failure.seed);
}

#[test]
fn ten_thousand_seeds_keep_the_contract() {
    keeps_the_contract("many faults", 10_000, Faults::Many);
}

#[test]
fn under_one_fault_healthy_devices_have_everything_in_six_seconds() {
    keeps_the_contract("one fault", 2_000, Faults::One);
}

#[test]
fn without_faults_nobody_is_notified_falsely() {
    keeps_the_contract("no fault", 200, Faults::None);
}

#[test]
fn a_database_that_lost_its_tail_is_noticed_by_everybody() {
    keeps_the_contract("a lost tail", 1_000, Faults::LostTail);
}

#[test]
fn a_seed_runs_one_way_only() {
    for seed in 0..20 {
        let setting = Setting { faults: Faults::Many, sabotage: Sabotage::Nothing };
        let (one, other) = (trace(seed, setting), trace(seed, setting));
        assert_eq!(one.0, other.0, "seed {seed}");
        let differs = one.1.iter().zip(&other.1).position(|(one, other)| one != other);
        assert!(
            differs.is_none() && one.1.len() == other.1.len(),
            "seed {seed}, step {differs:?}: {:?}",
            differs.map(|at| (&one.1[at], &other.1[at]))
        );
    }
}

#[test]
fn acking_on_receipt_is_found() {
    is_found(Sabotage::AckOnReceipt);
}

#[test]
fn syncing_before_the_route_is_registered_is_found() {
    is_found(Sabotage::SyncBeforeReady);
}

#[test]
fn saying_ready_before_the_route_is_registered_is_found() {
    is_found(Sabotage::ReadyBeforeRegister);
}

#[test]
fn without_takeover_messages_are_lost_and_it_is_found() {
    is_found(Sabotage::NoTakeover);
}

#[test]
fn without_re_registration_it_is_found() {
    is_found(Sabotage::NoReRegistration);
}

#[test]
fn unregistering_without_compare_is_found() {
    is_found(Sabotage::UnregisterWithoutCompare);
}

/// `SEED=123` shows every step of that seed.
#[test]
fn one_seed() {
    let Some(seed) = env::var("SEED").ok().and_then(|seed| seed.parse().ok()) else { return };
    let faults = match env::var("FAULTS").as_deref() {
        Ok("none") => Faults::None,
        Ok("one") => Faults::One,
        Ok("tail") => Faults::LostTail,
        _ => Faults::Many,
    };
    let (wrong, trace) = trace(seed, Setting { faults, sabotage: Sabotage::Nothing });
    trace.iter().for_each(|line| println!("{line}"));
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
}
