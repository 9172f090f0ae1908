//! More than any cluster has, and worse: ten thousand nodes, a million events, numbers at their ends.

use cachectl::proto::event::{Event, Severity};
use cachectl::proto::net::watch::LinkEvent;
use cachectl::proto::status::WatchView;
use cachectl::tui::cluster::EVENTS_MAX;
use cachectl::tui::event::{Msg, Now};
use cachectl::tui::model::{Found, Model, Screen, Setup};
use cachectl::tui::request::{KeyAnswer, Refusal};
use cachectl::tui::snapshot::picture;
use cachectl::tui::update::update;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::fixture;

fn model() -> Model {
    let mut m = Model::new(Setup { masters: vec!["127.0.0.1:7101".into()], ..Setup::default() });
    update(&mut m, Msg::Resize(120, 36));
    m
}

fn view(m: &mut Model, v: WatchView) {
    update(m, Msg::Link(LinkEvent::View(Box::new(v))));
}

/// What is drawn holds nothing that steers a terminal, turns words round or hides.
fn draw(m: &mut Model) {
    for size in [(120, 36), (80, 24), (200, 60)] {
        update(m, Msg::Resize(size.0, size.1));
        for cell in &picture(m).content {
            let turns =
                |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
            let hides = |c: char| matches!(c, '\u{200b}'..='\u{200d}' | '\u{2028}' | '\u{2029}' | '\u{feff}');
            let bad = |c: char| c.is_control() || turns(c) || hides(c);
            assert!(!cell.symbol().chars().any(bad), "{:?}", cell.symbol());
        }
    }
}

fn draw_all(m: &mut Model) {
    for screen in Screen::ALL {
        m.screen = screen;
        draw(m);
    }
}

/// ESC, OSC, C1, turned words, nothing visible, wide and combining signs, in one.
const NASTY: &str = "\x1b[2J\x1b]52;c;cm0gLXJm\x07\u{9b}31m\u{90}q\u{202e}cba\u{2066}\u{200b}\u{200d}\u{feff}日本語e\u{301}\u{301}\u{0}\r\n\t";

fn press(m: &mut Model, keys: &str) {
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            c => KeyCode::Char(c),
        };
        update(m, Msg::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    }
}

#[test]
fn names_and_keys_that_steer_terminals_in_every_window() {
    // Forms, plans and windows about a node with such a name; the palette that completes it; logs.
    for keys in
        ["?", "\n", "+", "-", "-\n", "s", "b", "F", "K", "4R", "x", "l", ":remove ", "/", "2w", "2v", "2vv", "6e", "5w"]
    {
        for asked in [false, true] {
            let mut m = model();
            m.setup.local = true;
            let mut v = fixture::hostile();
            for n in &mut v.status.nodes {
                n.id = format!("{NASTY}{}", n.id);
                n.addr = NASTY.into();
                n.zone = NASTY.into();
            }
            v.status.masters.iter_mut().for_each(|m| (m.id, m.addr) = (NASTY.into(), NASTY.into()));
            view(&mut m, v);
            press(&mut m, keys);
            update(&mut m, Msg::Paste(NASTY.repeat(20)));
            draw(&mut m);
            if asked {
                // What it was asked is refused in such words, and a link is lost in them.
                let (id, text) = (m.last_request, NASTY.to_owned());
                let refusal = Refusal { code: NASTY.into(), text: text.clone(), unknown: false };
                update(&mut m, Msg::Ordered(id, Err(refusal.clone())));
                update(&mut m, Msg::Keyed(id, Err(refusal)));
                update(&mut m, Msg::Local(id, Err(text.clone())));
                update(&mut m, Msg::Written(text.clone(), Err(text.clone())));
                update(&mut m, Msg::Link(LinkEvent::Lost { addr: text.clone(), why: text, next_try_ms: 0 }));
                update(&mut m, Msg::Tick(Now { mono_ms: 9_000, wall_ms: 0 }));
                draw(&mut m);
            }
        }
    }
    // A key of that name, with such a value.
    for view_as in ["", "v", "vv"] {
        let mut m = model();
        view(&mut m, fixture::healthy());
        press(&mut m, "6\n");
        update(&mut m, Msg::Paste(NASTY.into()));
        press(&mut m, "\n");
        let (id, value) = (m.last_request, NASTY.as_bytes().to_vec());
        let found = Found { size: value.len() as u64, value: Some(value), ttl_ms: i64::MIN, addr: NASTY.into() };
        update(&mut m, Msg::Keyed(id, Ok(KeyAnswer::Found(found))));
        press(&mut m, view_as);
        draw(&mut m);
        press(&mut m, "d");
        draw(&mut m);
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
