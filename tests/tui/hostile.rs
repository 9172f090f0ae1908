//! More than any cluster has, and worse: ten thousand nodes, a million events, numbers at their ends.

use cachectl::proto::event::{Event, Severity};
use cachectl::proto::net::watch::LinkEvent;
use cachectl::proto::status::WatchView;
use cachectl::tui::cluster::EVENTS_MAX;
use cachectl::tui::event::{Msg, Now};
use cachectl::tui::model::{Model, Screen, Setup};
use cachectl::tui::snapshot::picture;
use cachectl::tui::update::update;

use crate::fixture;

fn model() -> Model {
    let mut m = Model::new(Setup { masters: vec!["127.0.0.1:7101".into()], ..Setup::default() });
    update(&mut m, Msg::Resize(120, 36));
    m
}

fn view(m: &mut Model, v: WatchView) {
    update(m, Msg::Link(LinkEvent::View(Box::new(v))));
}

/// Every screen is drawn and holds nothing that steers a terminal.
fn draw_all(m: &mut Model) {
    for screen in Screen::ALL {
        m.screen = screen;
        for size in [(120, 36), (80, 24), (200, 60)] {
            update(m, Msg::Resize(size.0, size.1));
            for cell in &picture(m).content {
                let bad = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) || c == '\u{200b}';
                assert!(!cell.symbol().chars().any(bad), "{:?}", cell.symbol());
            }
        }
    }
}

#[test]
fn ten_thousand_nodes() {
    let mut m = model();
    let mut v = fixture::hostile();
    let template = v.status.nodes[0].clone();
    v.status.nodes = (0..10_000)
        .map(|i| {
            let mut n = template.clone();
            n.id = format!("n{i}\x1b[2J\u{202e}");
            n
        })
        .collect();
    view(&mut m, v);
    draw_all(&mut m);
    assert!(m.rows().len() <= 2_000, "what is kept is bounded");
}

#[test]
fn a_million_events() {
    let mut m = model();
    let event = |seq: u64| Event {
        seq,
        at_ms: seq,
        index: seq,
        severity: if seq.is_multiple_of(3) { Severity::Error } else { Severity::Info },
        kind: "demo".into(),
        subject: String::new(),
        text: format!("event {seq} \u{9b}31m\u{200b}"),
        by: None,
    };
    let mut v = fixture::healthy();
    for batch in 0..245u64 {
        // As many at a time as the link holds for a slow reader.
        v.events = (1..=4096).map(|i| event(batch * 4096 + i)).collect();
        v.slots = None;
        view(&mut m, v.clone());
    }
    let c = m.shown().expect("views came");
    assert_eq!(c.events.len(), EVENTS_MAX);
    assert_eq!(c.events_dropped + EVENTS_MAX as u64, 245 * 4096, "every one is accounted for");
    assert_eq!(c.events_missed, 0);
    draw_all(&mut m);
}

#[test]
fn numbers_at_their_ends() {
    for number in [0, 1, u64::MAX] {
        for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, f64::MAX] {
            let mut m = model();
            let mut v = fixture::hostile();
            for n in &mut v.status.nodes {
                (n.ops_per_s, n.hit_ratio, n.weight) = (float, Some(float), float);
                (n.primary_slots, n.memory_limit, n.p99_us) = (number, number, Some(number));
                n.heartbeat_age_ms = Some(number);
            }
            for o in &mut v.status.operations {
                (o.slots_total, o.slots_done, o.bytes_left, o.eta_ms) = (number, number, number, number);
                (o.rate_bytes_per_s, o.retries) = (number, number);
            }
            v.events.iter_mut().for_each(|e| e.at_ms = number);
            view(&mut m, v);
            // A clock that jumps, forwards and back.
            for mono_ms in [number, 0, u64::MAX] {
                update(&mut m, Msg::Tick(Now { mono_ms, wall_ms: number }));
                draw_all(&mut m);
            }
        }
    }
}
