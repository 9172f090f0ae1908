//! Colours by meaning, not by name. Five themes; `mono` has none and is what `NO_COLOR` gives.

use ratatui::style::{Color, Modifier, Style};

use super::glyph::Glyphs;
use super::heat::Warmth;
use crate::proto::event::Severity;
use crate::proto::status::{Health, NodeState};

/// Which theme the person asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ThemeName {
    /// Light if the terminal says (by `COLORFGBG`) that its background is light, else dark.
    #[default]
    Auto,
    /// For dark backgrounds.
    Dark,
    /// For light backgrounds.
    Light,
    /// Colours that all common kinds of colour vision tell apart (after Okabe and Ito).
    Cvd,
    /// Bold, dim and reverse only.
    Mono,
}

impl ThemeName {
    /// As the flag spells it.
    pub fn word(self) -> &'static str {
        match self {
            ThemeName::Auto => "auto",
            ThemeName::Dark => "dark",
            ThemeName::Light => "light",
            ThemeName::Cvd => "cvd",
            ThemeName::Mono => "mono",
        }
    }

    /// What `T` switches to.
    pub fn next(self) -> Self {
        match self {
            ThemeName::Auto | ThemeName::Dark => ThemeName::Light,
            ThemeName::Light => ThemeName::Cvd,
            ThemeName::Cvd => ThemeName::Mono,
            ThemeName::Mono => ThemeName::Dark,
        }
    }

    /// Settles `Auto` from what the environment says: `NO_COLOR` (any non-empty value), `COLORFGBG` (`fg;bg`, 0–15).
    /// The terminal itself is not asked: its answer would arrive between keys.
    pub fn resolve(self, no_color: bool, colorfgbg: Option<&str>) -> Self {
        if no_color {
            return ThemeName::Mono;
        }
        if self != ThemeName::Auto {
            return self;
        }
        let background = colorfgbg.and_then(|v| v.rsplit(';').next()).and_then(|v| v.parse::<u8>().ok());
        match background {
            Some(7 | 9..=15) => ThemeName::Light,
            _ => ThemeName::Dark,
        }
    }
}

impl std::str::FromStr for ThemeName {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Ok(match s {
            "auto" => ThemeName::Auto,
            "dark" => ThemeName::Dark,
            "light" => ThemeName::Light,
            "cvd" => ThemeName::Cvd,
            "mono" => ThemeName::Mono,
            _ => return Err("themes are auto, dark, light, cvd and mono".to_owned()),
        })
    }
}

/// How many owners have a colour of their own before colours repeat; their letters still differ.
pub const OWNER_COLOURS: usize = 12;

/// Styles by meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Theme {
    /// Which one this is.
    pub name: ThemeName,
    /// Plain words.
    pub text: Style,
    /// What matters less: labels, units, hints.
    pub dim: Style,
    /// Frames.
    pub border: Style,
    /// The frame of the panel that has the keys.
    pub border_focus: Style,
    /// Titles of panels.
    pub title: Style,
    /// Keys, the selected tab, the name of the product.
    pub accent: Style,
    /// Good.
    pub ok: Style,
    /// Look at it.
    pub warn: Style,
    /// Broken.
    pub bad: Style,
    /// Neither good nor bad, but on the move.
    pub info: Style,
    /// The selected row.
    pub selection: Style,
    /// The filled part of a bar, and charts.
    pub bar_on: Style,
    /// The open part.
    pub bar_off: Style,
    /// First and second series of a chart.
    pub series: [Style; 2],
    /// The lost banner.
    pub banner: Style,
    owners: [Color; OWNER_COLOURS],
}

const fn ix(n: u8) -> Color {
    Color::Indexed(n)
}

fn fg(c: Color) -> Style {
    Style::new().fg(c)
}

impl Theme {
    /// The styles of a theme; `Auto` is drawn as dark, so resolve it first.
    pub fn of(name: ThemeName) -> Theme {
        match name {
            ThemeName::Auto | ThemeName::Dark => Self::dark(),
            ThemeName::Light => Self::light(),
            ThemeName::Cvd => Self::cvd(),
            ThemeName::Mono => Self::mono(),
        }
    }

    fn dark() -> Theme {
        let bold = Modifier::BOLD;
        Theme {
            name: ThemeName::Dark,
            text: fg(Color::Reset),
            dim: fg(ix(247)),
            border: fg(ix(240)),
            border_focus: fg(ix(75)),
            title: fg(Color::Reset).add_modifier(bold),
            accent: fg(ix(81)).add_modifier(bold),
            ok: fg(ix(114)),
            warn: fg(ix(221)).add_modifier(bold),
            bad: fg(ix(203)).add_modifier(bold),
            info: fg(ix(117)),
            selection: Style::new().bg(ix(235)).add_modifier(bold),
            bar_on: fg(ix(75)),
            bar_off: fg(ix(238)),
            series: [fg(ix(75)), fg(ix(215))],
            banner: Style::new().fg(ix(231)).bg(ix(124)).add_modifier(bold),
            owners: [
                ix(75),
                ix(215),
                ix(114),
                ix(211),
                ix(141),
                ix(80),
                ix(221),
                ix(174),
                ix(108),
                ix(183),
                ix(69),
                ix(180),
            ],
        }
    }

    fn light() -> Theme {
        let bold = Modifier::BOLD;
        Theme {
            name: ThemeName::Light,
            text: fg(Color::Reset),
            dim: fg(ix(240)),
            border: fg(ix(249)),
            border_focus: fg(ix(25)),
            title: fg(Color::Reset).add_modifier(bold),
            accent: fg(ix(25)).add_modifier(bold),
            ok: fg(ix(22)),
            warn: fg(ix(94)).add_modifier(bold),
            bad: fg(ix(160)).add_modifier(bold),
            info: fg(ix(24)),
            selection: Style::new().bg(ix(255)).add_modifier(bold),
            bar_on: fg(ix(25)),
            bar_off: fg(ix(251)),
            series: [fg(ix(25)), fg(ix(94))],
            banner: Style::new().fg(ix(231)).bg(ix(160)).add_modifier(bold),
            owners: [ix(25), ix(94), ix(22), ix(125), ix(91), ix(23), ix(58), ix(160), ix(54), ix(126), ix(61), ix(88)],
        }
    }

    fn cvd() -> Theme {
        let bold = Modifier::BOLD;
        // After Okabe and Ito: sky blue is good, yellow wants a look, vermilion is broken; red and green never oppose each
        // other. Owners are chosen so that both common kinds of colour blindness tell them apart (a test computes it).
        Theme {
            name: ThemeName::Cvd,
            ok: fg(ix(74)),
            warn: fg(ix(220)).add_modifier(bold),
            bad: fg(ix(208)).add_modifier(bold | Modifier::UNDERLINED),
            info: fg(ix(158)),
            accent: fg(ix(220)).add_modifier(bold),
            border_focus: fg(ix(220)),
            bar_on: fg(ix(74)),
            series: [fg(ix(74)), fg(ix(214))],
            banner: Style::new().fg(ix(16)).bg(ix(214)).add_modifier(bold),
            owners: [
                ix(74),
                ix(214),
                ix(230),
                ix(137),
                ix(69),
                ix(87),
                ix(181),
                ix(226),
                ix(136),
                ix(36),
                ix(228),
                ix(150),
            ],
            ..Self::dark()
        }
    }

    fn mono() -> Theme {
        // The terminal's own colour, said aloud, since styles are laid over each other.
        let plain = fg(Color::Reset);
        let bold = plain.add_modifier(Modifier::BOLD);
        let dim = plain.add_modifier(Modifier::DIM);
        Theme {
            name: ThemeName::Mono,
            text: plain,
            dim,
            border: dim,
            border_focus: bold,
            title: bold,
            accent: bold,
            ok: plain,
            warn: bold,
            bad: bold.add_modifier(Modifier::UNDERLINED),
            info: plain,
            selection: Style::new().add_modifier(Modifier::REVERSED),
            bar_on: plain,
            bar_off: dim,
            series: [plain, bold],
            banner: bold.add_modifier(Modifier::REVERSED),
            owners: [Color::Reset; OWNER_COLOURS],
        }
    }

    /// The styles that words are drawn in.
    pub fn words(&self) -> Vec<Style> {
        let mut out = vec![self.text, self.dim, self.title, self.accent, self.ok, self.warn, self.bad, self.info];
        out.extend([self.bar_on, self.border_focus, self.series[0], self.series[1]]);
        out.extend((0..OWNER_COLOURS).map(|i| self.owner(i)));
        out
    }

    /// Whether colours are used at all.
    pub fn has_colour(&self) -> bool {
        self.name != ThemeName::Mono
    }

    /// The style of an owner, by its place in the list of owners.
    pub fn owner(&self, place: usize) -> Style {
        fg(self.owners[place % OWNER_COLOURS])
    }

    /// The style of something as busy as this.
    pub fn heat(&self, warmth: Warmth) -> Style {
        match warmth {
            Warmth::Hot => self.bad,
            Warmth::Warm => self.warn,
            Warmth::Even => self.info,
            Warmth::Cold => self.dim,
        }
    }

    /// The style of a node's state.
    pub fn node(&self, state: NodeState) -> Style {
        match state {
            NodeState::Up => self.ok,
            NodeState::Suspect => self.warn,
            NodeState::Dead => self.bad,
            NodeState::Joining | NodeState::Draining => self.info,
            NodeState::Standby | NodeState::Left => self.dim,
        }
    }

    /// The style of a cluster's health.
    pub fn health(&self, health: Health) -> Style {
        match health {
            Health::Ok => self.ok,
            Health::Degraded => self.warn,
            Health::Down | Health::Unreachable => self.bad,
        }
    }

    /// The style of an event.
    pub fn severity(&self, severity: Severity) -> Style {
        match severity {
            Severity::Info => self.text,
            Severity::Warn => self.warn,
            Severity::Error => self.bad,
        }
    }
}

/// What every drawing function gets: colours and signs.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// Styles.
    pub theme: &'a Theme,
    /// Signs.
    pub glyph: &'static Glyphs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_follows_the_environment() {
        let auto = ThemeName::Auto;
        assert_eq!(auto.resolve(false, None), ThemeName::Dark);
        assert_eq!(auto.resolve(false, Some("0;15")), ThemeName::Light);
        assert_eq!(auto.resolve(false, Some("0;default;15")), ThemeName::Light);
        assert_eq!(auto.resolve(false, Some("15;0")), ThemeName::Dark);
        assert_eq!(auto.resolve(false, Some("junk")), ThemeName::Dark);
        assert_eq!(ThemeName::Light.resolve(true, Some("0;15")), ThemeName::Mono);
    }

    #[test]
    fn mono_uses_no_colour() {
        let t = Theme::of(ThemeName::Mono);
        for s in [t.text, t.dim, t.border, t.accent, t.ok, t.warn, t.bad, t.banner, t.bar_on] {
            assert_eq!((s.fg, s.bg), (Some(Color::Reset), None));
        }
        assert_eq!(t.owner(3).fg, Some(Color::Reset));
    }

    #[test]
    fn owners_differ_in_colour() {
        for name in [ThemeName::Dark, ThemeName::Light, ThemeName::Cvd] {
            let t = Theme::of(name);
            let mut seen: Vec<Style> = Vec::new();
            for place in 0..OWNER_COLOURS {
                assert!(!seen.contains(&t.owner(place)), "{name:?} {place}");
                seen.push(t.owner(place));
            }
        }
    }
}
