//! Any model, any size, any messages: nothing panics, nothing is drawn outside the area, nothing reaches a cell that
//! could steer a terminal.

use cachectl::proto::control::{Message, RefreshMaster};
use cachectl::proto::event::{Event, Severity};
use cachectl::proto::id::{LeaderId, MasterId};
use cachectl::proto::net::watch::LinkEvent;
use cachectl::proto::operation::Accepted;
use cachectl::proto::slot::Slot;
use cachectl::proto::status::{Health, NodeState, WatchView};
use cachectl::proto::view::{Phase, SlotRange};
use cachectl::tui::event::{DemoEvent, Msg, Now};
use cachectl::tui::model::{Found, Model, Setup};
use cachectl::tui::replay::Played;
use cachectl::tui::request::{KeyAnswer, LocalAnswer, Refusal};
use cachectl::tui::screen;
use cachectl::tui::theme::ThemeName;
use cachectl::tui::update::update;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

use crate::fixture;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9.:-]{0,12}",
        any::<String>().prop_map(|s| s.chars().take(40).collect()),
        select(vec![
            "\x1b[2J",
            "\u{202e}abc",
            "日本語日本語日本語",
            "e\u{301}\u{200d}",
            "\u{1f468}\u{200d}\u{1f469}",
            "لا"
        ])
        .prop_map(str::to_owned),
    ]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..2000u64, Just(0), Just(u64::MAX), any::<u64>()]
}

fn float() -> impl Strategy<Value = f64> {
    prop_oneof![0.0..1e5, any::<f64>(), Just(f64::NAN), Just(f64::INFINITY), Just(-0.0)]
}

fn node_state() -> impl Strategy<Value = NodeState> {
    use NodeState::*;
    select(vec![Standby, Joining, Up, Suspect, Draining, Dead, Left])
}

fn ranges() -> impl Strategy<Value = Vec<SlotRange>> {
    let range = (any::<u16>(), any::<u16>(), 0..9u64, 0..9u64, 0..3u8, any::<u64>(), any::<bool>());
    vec(range, 0..40).prop_map(|all| {
        all.into_iter()
            .map(|(first, last, p, b, phase, pterm, moves)| {
                let mut state = fixture::serving(p, Some(b));
                state.phase = [Phase::Serving, Phase::Handover, Phase::Orphan][usize::from(phase)];
                state.pterm = pterm;
                if moves {
                    state.learners = state.insync.clone();
                    state.handover_to = Some(fixture::life(b));
                    state.last_holder = Some(fixture::life(p));
                }
                if phase == 2 {
                    state.primary = None;
                }
                SlotRange { first: Slot(first), last: Slot(last), state }
            })
            .collect()
    })
}

prop_compose! {
    fn view()(
        base in select(vec![0usize, 1, 2, 3]),
        names in vec(text(), 0..8),
        states in vec(node_state(), 8),
        numbers in vec(number(), 16),
        floats in vec(float(), 8),
        gaps in vec(number(), 0..60),
        copies in 1..12usize,
        slots in proptest::option::of(ranges()),
        health in select(vec![Health::Ok, Health::Degraded, Health::Down, Health::Unreachable]),
        texts in vec(text(), 6),
    ) -> WatchView {
        let mut v = [fixture::healthy, fixture::busy, fixture::lost_one, fixture::hostile][base]();
        let s = &mut v.status;
        s.state = health;
        s.epoch = 42u64.saturating_add(numbers[0]);
        s.cluster.clone_from(&texts[0]);
        s.leader = (numbers[1] % 3 != 0).then(|| texts[1].clone());
        s.slots.serving = numbers[2];
        s.slots.total = numbers[3];
        s.slots.solo = numbers[4];
        let template = s.nodes[0].clone();
        for (i, name) in names.iter().enumerate() {
            let mut n = template.clone();
            n.id.clone_from(name);
            n.addr.clone_from(&texts[2]);
            n.zone.clone_from(&texts[3]);
            n.state = states[i % states.len()];
            n.heartbeat_age_ms = (numbers[5] % 2 == 0).then_some(numbers[6]);
            n.heartbeat_gaps_ms.clone_from(&gaps);
            n.ops_per_s = floats[0];
            n.hit_ratio = Some(floats[1]);
            n.weight = floats[2];
            n.primary_slots = numbers[7];
            n.primary_bytes = numbers[8];
            n.backup_bytes = numbers[9];
            n.memory_limit = numbers[10];
            n.p99_us = Some(numbers[11]);
            n.p50_us = (numbers[11] % 2 == 0).then_some(numbers[12]);
            n.evicted = numbers[13];
            for _ in 0..copies {
                s.nodes.push(n.clone());
            }
        }
        for o in &mut s.operations {
            o.slots_total = numbers[14];
            o.slots_done = numbers[15];
            o.reason = Some(texts[4].clone());
        }
        if slots.is_some() {
            v.slots = slots;
        }
        v.events.push(Event {
            seq: numbers[0],
            at_ms: numbers[1],
            index: 0,
            severity: Severity::Error,
            kind: texts[4].clone(),
            subject: String::new(),
            text: texts[5].clone(),
            by: Some(texts[3].clone()),
        });
        v
    }
}

fn key() -> impl Strategy<Value = Msg> {
    let code = prop_oneof![
        9 => select("?/owv T123456kjhlgGOuy+-spxbFKPCR:qedrf,.[]<>n2".chars().collect::<Vec<_>>())
            .prop_map(KeyCode::Char),
        2 => any::<char>().prop_map(KeyCode::Char),
        4 => select(vec![
            KeyCode::Enter, KeyCode::Esc, KeyCode::Tab, KeyCode::BackTab, KeyCode::Up, KeyCode::Down, KeyCode::Left,
            KeyCode::Right, KeyCode::Home, KeyCode::End, KeyCode::PageUp, KeyCode::PageDown, KeyCode::Backspace,
        ]),
    ];
    (code, prop_oneof![4 => Just(KeyModifiers::NONE), 1 => Just(KeyModifiers::CONTROL)])
        .prop_map(|(code, modifiers)| Msg::Key(KeyEvent::new(code, modifiers)))
}

fn mouse() -> impl Strategy<Value = Msg> {
    let kind = select(vec![
        MouseEventKind::Down(MouseButton::Left),
        MouseEventKind::ScrollDown,
        MouseEventKind::ScrollUp,
        MouseEventKind::Moved,
    ]);
    (kind, any::<u8>(), any::<u8>()).prop_map(|(kind, column, row)| {
        let (column, row) = (u16::from(column), u16::from(row) / 3);
        Msg::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE })
    })
}

/// Answers to whatever may have been asked last: right ones, wrong ones, late ones.
fn answer() -> impl Strategy<Value = Msg> {
    let refusal = || (text(), text(), any::<bool>()).prop_map(|(code, text, unknown)| Refusal { code, text, unknown });
    let plan = || {
        (any::<bool>(), vec(text(), 0..3), number(), number()).prop_map(|(out, warnings, bytes, slots)| {
            let mut plan = if out { fixture::plan_out() } else { fixture::plan_in() };
            plan.warnings = warnings;
            plan.bytes = bytes;
            plan.moves[0].slots = slots;
            plan.moves[0].runs.push((Slot(9), Slot(u16::MAX)));
            plan
        })
    };
    let found = (vec(any::<u8>(), 0..200), number(), any::<i64>(), text(), any::<bool>()).prop_map(
        |(value, size, ttl_ms, addr, there)| {
            KeyAnswer::Found(Found { value: there.then_some(value), size, ttl_ms, addr })
        },
    );
    let ids = 1..40u64;
    prop_oneof![
        3 => (ids.clone(), plan()).prop_map(|(id, p)| Msg::Ordered(id, Ok(Box::new(Message::Planned(Box::new(p)))))),
        2 => (ids.clone(), plan(), number()).prop_map(|(id, plan, operation)| {
            let operation = (operation % 3 > 0).then_some(operation);
            Msg::Ordered(id, Ok(Box::new(Message::Accepted(Box::new(Accepted { operation, plan })))))
        }),
        1 => ids.clone().prop_map(|id| Msg::Ordered(id, Ok(Box::new(Message::Ok(Default::default()))))),
        2 => (ids.clone(), refusal()).prop_map(|(id, r)| Msg::Ordered(id, Err(r))),
        2 => (ids.clone(), found).prop_map(|(id, f)| Msg::Keyed(id, Ok(f))),
        1 => (ids.clone(), refusal()).prop_map(|(id, r)| Msg::Keyed(id, Err(r))),
        1 => (ids.clone(), vec(text(), 0..30)).prop_map(|(id, l)| Msg::Local(id, Ok(LocalAnswer::Lines(l)))),
        1 => (ids.clone(), text()).prop_map(|(id, w)| Msg::Local(id, Ok(LocalAnswer::Done(w)))),
        1 => (ids, text()).prop_map(|(id, w)| Msg::Local(id, Err(w))),
        1 => (text(), text()).prop_map(|(path, w)| Msg::Written(path, Err(w))),
    ]
}

fn msg() -> impl Strategy<Value = Msg> {
    prop_oneof![
        12 => key(),
        3 => mouse(),
        4 => (number(), number()).prop_map(|(mono_ms, wall_ms)| Msg::Tick(Now { mono_ms, wall_ms })),
        4 => view().prop_map(|v| Msg::Link(LinkEvent::View(Box::new(v)))),
        1 => text().prop_map(|addr| Msg::Link(LinkEvent::Connected { addr })),
        2 => (text(), text(), number())
            .prop_map(|(addr, why, next_try_ms)| Msg::Link(LinkEvent::Lost { addr, why, next_try_ms })),
        1 => (any::<bool>(), text()).prop_map(|(leads, addr)| {
            let id = MasterId::new("m2").expect("a plain name");
            let leader = leads.then(|| LeaderId { term: 9, id: id.clone() });
            Msg::Link(LinkEvent::MasterHint(RefreshMaster { leader, addr: None, masters: vec![(id, addr)] }))
        }),
        1 => text().prop_map(Msg::Paste),
        4 => answer(),
        1 => (number(), number(), any::<bool>()).prop_map(|(a, b, back)| Msg::Played(Played {
            begin_ms: a, at_ms: b, end_ms: a.wrapping_add(b), views: (3, 9), paused: back, speed: 4, back,
        })),
        1 => text().prop_map(|s| Msg::Demo(DemoEvent::Progress(s))),
        1 => text().prop_map(|s| Msg::Demo(DemoEvent::Failed(s))),
        1 => vec(text(), 0..3).prop_map(|m| Msg::Demo(DemoEvent::Started(m))),
        2 => (1..300u16, 1..100u16).prop_map(|(w, h)| Msg::Resize(w, h)),
        1 => Just(Msg::Repaint),
        1 => Just(Msg::Terminate),
    ]
}

/// Draws somewhere inside a larger buffer, so that a cell outside the area shows.
fn draw_and_check(model: &Model, (w, h): (u16, u16)) {
    let whole = Rect::new(0, 0, w + 5, h + 4);
    let area = Rect::new(3, 2, w, h);
    let mut buf = Buffer::filled(whole, Cell::new("\u{2592}"));
    for position in area.positions() {
        buf[position].reset();
    }
    let caret = screen::draw(model, &mut buf, area);
    if let Some((x, y)) = caret {
        assert!(area.contains((x, y).into()), "the cursor is outside");
    }
    for position in whole.positions() {
        let symbol = buf[position].symbol();
        if area.contains(position) {
            let fits = usize::from(area.right() - position.x);
            assert!(symbol.width() <= fits, "{symbol:?} hangs over the edge");
            assert!(!symbol.chars().any(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)), "{symbol:?}");
            assert!(!model.setup.ascii || symbol.is_ascii(), "{symbol:?}");
        } else {
            assert_eq!(symbol, "\u{2592}", "drawn outside at {position:?}");
        }
    }
}

fn config() -> ProptestConfig {
    // `PROPTEST_CASES` asks for more.
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nothing_panics_or_leaves_its_area(
        masters in vec("[a-z0-9.:]{1,20}", 0..4),
        ascii in any::<bool>(),
        theme in select(vec![ThemeName::Dark, ThemeName::Light, ThemeName::Cvd, ThemeName::Mono]),
        flags in (any::<bool>(), any::<bool>(), any::<i32>()),
        messages in vec(msg(), 1..40),
        sizes in vec((1..300u16, 1..100u16), 3),
    ) {
        let (read_only, can_start_demo, utc_offset_s) = flags;
        let mut model = Model::new(Setup {
            masters,
            ascii,
            theme,
            read_only,
            can_start_demo,
            utc_offset_s,
            local: can_start_demo,
            program: "cachectl --name x".into(),
            ..Setup::default()
        });
        for (i, msg) in messages.into_iter().enumerate() {
            update(&mut model, msg);
            if i % 8 == 0 {
                draw_and_check(&model, model.size);
            }
        }
        for size in sizes {
            // A resize may reach the screen before its message does.
            draw_and_check(&model, size);
            update(&mut model, Msg::Resize(size.0, size.1));
            draw_and_check(&model, size);
        }
        for (w, h) in [(1, 1), (60, 16), (80, 24), (120, 36)] {
            draw_and_check(&model, (w, h));
        }
    }
}
