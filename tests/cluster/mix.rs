//! The nemesis mix: random faults, one at a time, for as long as asked, under load that is checked every minute.
//!
//! `CACHECTL_MIX_SECONDS` says how long, `CACHECTL_SEED` what is drawn, `CACHECTL_RESULTS` a file that a line is added to after
//! each leg. Each fault begins when every slot has its backup: what is promised is to survive any single one.

use std::io::Write;
use std::time::{Duration, Instant};

use cachectl::proto::operation::OperationKind;
use cachectl::proto::status::NodeState;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::alone;
use super::fleet::{Fleet, Plan, is, is_backed};
use super::load::Shape;

/// How long one load runs before everything it was told is checked.
const LEG: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
enum Fault {
    KillNode,
    KillMaster,
    KillLeader,
    PauseNode,
    PauseMaster,
    IsolateNode,
    IsolateMaster,
    CutPair,
    CutOneWay,
    CutFromMasters,
    KillAllMasters,
    Bounce,
    ScaleOut,
    ScaleIn,
}

const FAULTS: &[Fault] = &[
    Fault::KillNode,
    Fault::KillMaster,
    Fault::KillLeader,
    Fault::PauseNode,
    Fault::PauseMaster,
    Fault::IsolateNode,
    Fault::IsolateMaster,
    Fault::CutPair,
    Fault::CutOneWay,
    Fault::CutFromMasters,
    Fault::KillAllMasters,
    Fault::Bounce,
    Fault::ScaleOut,
    Fault::ScaleIn,
];

#[test]
#[ignore = "runs for as long as CACHECTL_MIX_SECONDS says; `just soak` does"]
fn mix() {
    let _alone = alone();
    let seconds = std::env::var("CACHECTL_MIX_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1800);
    let mut f = Fleet::start(Plan { spare: 1, ..Plan::default() });
    let mut rng = SmallRng::seed_from_u64(f.plan.seed);
    let (mut ops, mut faults) = (0, 0);
    let begun = Instant::now();
    let mut leg = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        leg += 1;
        let leg_begun = Instant::now();
        let prefix: &'static str = Box::leak(format!("leg{leg}-").into_boxed_str());
        let load = f.load(Shape { clients: 8, rest: Duration::from_millis(4), prefix, ..Shape::default() });
        let mut met = Vec::new();
        while leg_begun.elapsed() < LEG {
            load.wait_more(50);
            let fault = *FAULTS.choose(&mut rng).expect("some");
            println!("{:8.1} s  {fault:?}", begun.elapsed().as_secs_f64());
            strike(&mut f, fault, &mut rng);
            met.push(format!("{fault:?}"));
            let running: Vec<String> = (1..=4).map(|i| format!("n{i}")).filter(|n| f.runs(n)).collect();
            f.wait("everybody back and everything backed", |v| {
                is_backed(v)
                    && running.iter().all(|n| is(v, n, NodeState::Up))
                    && v.status.masters.iter().all(|m| m.alive)
                    && !v.status.operations.iter().any(|o| matches!(o.state.as_str(), "planned" | "running"))
            });
        }
        let done = load.end();
        done.check(&mut f.client());
        let lost = f.wait("figures", |v| v.status.leader.is_some()).status.slots.lost_total;
        assert_eq!(lost, 0, "no single fault loses anything");
        (ops, faults) = (ops + done.ops, faults + met.len());
        println!("leg {leg}: {} faults, {}", met.len(), done.line());
        if let Ok(file) = std::env::var("CACHECTL_RESULTS") {
            let line = serde_json::json!({
                "scenario": "mix", "commit": std::env::var("CACHECTL_COMMIT").unwrap_or_default(), "ok": true,
                "seed": f.plan.seed, "leg": leg, "seconds": leg_begun.elapsed().as_secs(), "operations": done.ops,
                "acknowledged": done.acked, "errors": done.errors, "faults": met,
            });
            let mut out = std::fs::File::options().create(true).append(true).open(file).expect("the results file");
            writeln!(out, "{line}").expect("the results file");
        }
    }
    println!("mix: {ops} operations, {faults} faults, nothing lost, every register explained; seed {}", f.plan.seed);
}

fn strike(f: &mut Fleet, fault: Fault, rng: &mut SmallRng) {
    let nodes: Vec<String> = (1..=4).map(|i| format!("n{i}")).filter(|n| f.runs(n)).collect();
    let node = nodes.choose(rng).expect("nodes run").clone();
    let other = nodes.iter().filter(|n| **n != node).collect::<Vec<_>>().choose(rng).expect("another").to_string();
    let masters = f.masters();
    let master = masters.choose(rng).expect("masters").clone();
    let masters: Vec<&str> = masters.iter().map(String::as_str).collect();
    let a_while = Duration::from_millis(rng.random_range(300..5000));
    match fault {
        Fault::KillNode => {
            f.kill(&node);
            f.wait("it given up", |v| is(v, &node, NodeState::Dead) && is_backed(v));
            f.run(&node);
        }
        Fault::Bounce => {
            f.kill(&node);
            f.run(&node);
        }
        Fault::KillMaster => restart(f, &master, a_while),
        Fault::KillLeader => {
            let leader = f.leader();
            restart(f, &leader, a_while);
        }
        Fault::KillAllMasters => {
            f.kill_all(&masters);
            std::thread::sleep(a_while);
            masters.iter().for_each(|m| f.run(m));
        }
        Fault::PauseNode | Fault::PauseMaster => {
            let who = if matches!(fault, Fault::PauseNode) { &node } else { &master };
            f.pause(who);
            std::thread::sleep(a_while);
            f.resume(who);
        }
        Fault::IsolateNode | Fault::IsolateMaster => {
            f.net.isolate(&[if matches!(fault, Fault::IsolateNode) { &node } else { &master }]);
            std::thread::sleep(a_while);
            f.net.heal();
        }
        Fault::CutPair => {
            f.net.cut(&[&node], &[&other]);
            std::thread::sleep(a_while);
            f.net.heal();
        }
        Fault::CutOneWay => {
            f.net.cut_one_way(&node, &other);
            std::thread::sleep(a_while);
            f.net.heal();
        }
        Fault::CutFromMasters => {
            f.net.cut(&[&node], &masters);
            std::thread::sleep(a_while);
            f.net.heal();
        }
        Fault::ScaleOut => {
            if !f.runs("n4") {
                f.run("n4");
                f.wait("n4 up", |v| is(v, "n4", NodeState::Up));
            }
        }
        Fault::ScaleIn => {
            if f.runs("n4") {
                f.apply(OperationKind::ScaleIn, &["n4"]);
                assert_eq!(f.wait_end("n4"), Some(0));
            }
        }
    }
    // A fault may be over before anybody noticed; what it does shows within the dead timer.
    std::thread::sleep(Duration::from_millis(300));
}

fn restart(f: &mut Fleet, who: &str, after: Duration) {
    f.kill(who);
    std::thread::sleep(after);
    f.run(who);
}
