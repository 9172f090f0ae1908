//! Colours that can be read and told apart, computed: contrast after WCAG 2.1, colour blindness after Machado et al. (2009).

use cachectl::tui::theme::{OWNER_COLOURS, Theme, ThemeName};
use ratatui::style::Color;

type Rgb = [f64; 3];
type Matrix = [[f64; 3]; 3];

/// WCAG's bound for body text.
const CONTRAST_MIN: f64 = 4.5;
/// Backgrounds that people have: black, and the dark and light ones that editors and terminals ship.
const DARK: [Rgb; 2] = [[0.0, 0.0, 0.0], [30.0, 30.0, 30.0]];
const LIGHT: [Rgb; 2] = [[255.0, 255.0, 255.0], [250.0, 250.0, 250.0]];

const PROTANOPIA: Matrix =
    [[0.152_286, 1.052_583, -0.204_868], [0.114_503, 0.786_281, 0.099_216], [-0.003_882, -0.048_116, 1.051_998]];
const DEUTERANOPIA: Matrix =
    [[0.367_322, 0.860_646, -0.227_968], [0.280_085, 0.672_501, 0.047_413], [-0.011_820, 0.042_940, 0.968_881]];
const NONE: Matrix = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

/// xterm's 256 colours from 16 on, which all terminals draw alike; the first 16 are the person's own.
fn rgb(c: Color) -> Option<Rgb> {
    let Color::Indexed(n) = c else {
        assert_eq!(c, Color::Reset, "only fixed colours and the terminal's own are used");
        return None;
    };
    assert!(n >= 16, "colour {n} is whatever the person made of it");
    if n >= 232 {
        return Some([f64::from(8 + (u16::from(n) - 232) * 10); 3]);
    }
    let level = |i: u8| [0.0, 95.0, 135.0, 175.0, 215.0, 255.0][usize::from(i % 6)];
    let n = n - 16;
    Some([level(n / 36), level(n / 6), level(n)])
}

fn linear(c: Rgb) -> Rgb {
    c.map(|v| v / 255.0).map(|v| if v <= 0.040_45 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) })
}

fn luminance(c: Rgb) -> f64 {
    let [r, g, b] = linear(c);
    0.2126 * r + 0.7152 * g + 0.0722 * b
}

fn contrast(a: Rgb, b: Rgb) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

fn seen(c: Rgb, by: &Matrix) -> Rgb {
    let c = linear(c);
    by.map(|row| row.iter().zip(c).map(|(m, v)| m * v).sum::<f64>().clamp(0.0, 1.0))
}

/// CIE L*a*b* of linear light.
fn lab([r, g, b]: Rgb) -> Rgb {
    let f = |t: f64| if t > 0.008_856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 };
    let x = f((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.950_47);
    let y = f(0.2126 * r + 0.7152 * g + 0.0722 * b);
    let z = f((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.088_83);
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

/// The least difference of two colours over all three kinds of eyes.
fn difference(a: Color, b: Color) -> f64 {
    let (Some(a), Some(b)) = (rgb(a), rgb(b)) else { panic!("the terminal's own colour is unknown") };
    let apart = |m: &Matrix| {
        let (a, b) = (lab(seen(a, m)), lab(seen(b, m)));
        a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt()
    };
    [PROTANOPIA, DEUTERANOPIA, NONE].iter().map(apart).fold(f64::MAX, f64::min)
}

#[test]
fn the_formulas_give_what_their_sources_say() {
    assert!((contrast([0.0; 3], [255.0; 3]) - 21.0).abs() < 1e-9);
    assert!((contrast([118.0, 118.0, 118.0], [255.0; 3]) - 4.54).abs() < 0.01, "WCAG's own example, #767676");
    assert!(difference(Color::Indexed(16), Color::Indexed(231)) > 99.0);
    let red_green = difference(Color::Indexed(124), Color::Indexed(58));
    assert!(red_green < 15.0, "what the colour-blind confuse is confused: {red_green}");
}

#[test]
fn words_have_contrast_on_every_background_they_are_for() {
    let themes = [(ThemeName::Dark, DARK), (ThemeName::Light, LIGHT), (ThemeName::Cvd, DARK)];
    for (name, grounds) in themes {
        let t = Theme::of(name);
        let selected = t.selection.bg.and_then(rgb).expect("a selection has a colour of its own");
        for style in t.words() {
            let Some(ink) = style.fg.and_then(rgb) else { continue };
            for ground in grounds.into_iter().chain([selected]) {
                let c = contrast(ink, ground);
                assert!(c >= CONTRAST_MIN, "{name:?}: {:?} on {ground:?} has {c:.2}", style.fg);
            }
        }
        let pair = |s: ratatui::style::Style| Some((s.fg.and_then(rgb)?, s.bg.and_then(rgb)?));
        let (ink, ground) = pair(t.banner).expect("the banner says both");
        assert!(contrast(ink, ground) >= CONTRAST_MIN, "{name:?}: the banner");
        // The terminal's own ink on the selected row: black or white on such a terminal, or near it.
        let own = if name == ThemeName::Light { [36.0, 41.0, 47.0] } else { [204.0, 204.0, 204.0] };
        assert!(contrast(own, selected) >= CONTRAST_MIN, "{name:?}: a selected row");
    }
}

#[test]
fn cvd_is_told_apart_by_the_colour_blind() {
    /// A difference that is seen at a glance, and one that is seen side by side (CIE76).
    const AT_A_GLANCE: f64 = 15.0;
    const SIDE_BY_SIDE: f64 = 9.0;
    let t = Theme::of(ThemeName::Cvd);
    let states = [t.ok, t.warn, t.bad, t.info].map(|s| s.fg.expect("a colour"));
    for (i, a) in states.iter().enumerate() {
        for b in &states[i + 1..] {
            let d = difference(*a, *b);
            assert!(d >= AT_A_GLANCE, "{a:?} and {b:?} differ by {d:.1}");
        }
    }
    let owners: Vec<Color> = (0..OWNER_COLOURS).map(|i| t.owner(i).fg.expect("a colour")).collect();
    for (i, a) in owners.iter().enumerate() {
        for b in &owners[i + 1..] {
            let d = difference(*a, *b);
            assert!(d >= SIDE_BY_SIDE, "owners {a:?} and {b:?} differ by {d:.1}");
        }
    }
}
