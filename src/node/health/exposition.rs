//! Metrics as text: OpenMetrics 1.0 for those who ask for it (Prometheus does), else Prometheus's format 0.0.4. Names follow
//! Prometheus's conventions: base units, `_total` on counters, the unit last in a name.

use std::fmt::Write as _;

use crate::node::cache::stats::Histogram;

/// Which of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    Open,
    /// Prometheus's text format 0.0.4.
    Plain,
}

impl Format {
    /// By the Accept header of a request.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Format::Open } else { Format::Plain }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Only rises; its samples end in `_total`.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// A text under construction, family by family.
#[derive(Debug)]
pub struct Exposition {
    format: Format,
    text: String,
    family: String,
    counter: bool,
}

impl Exposition {
    /// Nothing yet.
    pub fn new(format: Format) -> Self {
        Self { format, text: String::with_capacity(16 << 10), family: String::new(), counter: false }
    }

    /// Begins a family; a counter's name is given without `_total`.
    pub fn family(&mut self, name: &str, kind: Type, help: &str) -> &mut Self {
        self.counter = kind == Type::Counter;
        self.head(name, if self.counter { "counter" } else { "gauge" }, help);
        self
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.family = name.to_owned();
        // The older format knows a counter by the name of its samples.
        let shown = match (self.format, kind) {
            (Format::Plain, "counter") => format!("{name}_total"),
            _ => name.to_owned(),
        };
        let _ = write!(self.text, "# HELP {shown} {help}\n# TYPE {shown} {kind}\n");
        let unit = name.rsplit('_').next().filter(|u| matches!(*u, "seconds" | "bytes" | "ratio"));
        if let (Format::Open, Some(unit)) = (self.format, unit) {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
    }

    /// One sample of the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        let suffix = if self.counter { "_total" } else { "" };
        self.line(suffix, labels, value);
        self
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.text, "{}{suffix}", self.family);
        for (i, (name, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"", if i == 0 { "{" } else { "," });
            value.chars().for_each(|c| match c {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                c => self.text.push(c),
            });
            self.text.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }

    /// A family of histograms in seconds, one for each value of a label.
    pub fn histograms(&mut self, name: &str, help: &str, label: &str, all: &[(&str, &Histogram)]) {
        self.head(name, "histogram", help);
        for (value, histogram) in all {
            let (buckets, count, sum_ns) = histogram.cumulative();
            for (bound_ns, n) in buckets {
                let le = format!("{}", bound_ns as f64 / 1e9);
                self.line("_bucket", &[(label, value), ("le", &le)], n as f64);
            }
            self.line("_bucket", &[(label, value), ("le", "+Inf")], count as f64);
            self.line("_sum", &[(label, value)], sum_ns as f64 / 1e9);
            self.line("_count", &[(label, value)], count as f64);
        }
    }

    /// The text.
    pub fn finish(mut self) -> String {
        if self.format == Format::Open {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(format: Format) -> String {
        let mut e = Exposition::new(format);
        e.family("cachectl_commands", Type::Counter, "Commands.").sample(&[("command", "a\"\\\nb")], 7.0);
        e.family("cachectl_memory_limit_bytes", Type::Gauge, "Memory.").sample(&[], 0.5);
        let h = Histogram::default();
        h.record(10_000, 2);
        h.record(u64::MAX >> 20, 1);
        e.histograms("cachectl_wait_seconds", "Waits.", "class", &[("read", &h)]);
        e.finish()
    }

    #[test]
    fn both_formats_are_spelt_as_their_readers_want() {
        let open = text(Format::Open);
        assert!(open.starts_with("# HELP cachectl_commands Commands.\n# TYPE cachectl_commands counter\n"), "{open}");
        assert!(open.contains("cachectl_commands_total{command=\"a\\\"\\\\\\nb\"} 7\n"), "{open}");
        assert!(open.contains("# UNIT cachectl_memory_limit_bytes bytes\ncachectl_memory_limit_bytes 0.5\n"), "{open}");
        assert!(open.contains("cachectl_wait_seconds_bucket{class=\"read\",le=\"+Inf\"} 3\n"), "{open}");
        assert!(open.contains("cachectl_wait_seconds_count{class=\"read\"} 3\n"));
        assert!(open.contains("le=\"0.000016384\"} 2\n"), "{open}");
        assert!(open.ends_with("# EOF\n"));
        let plain = text(Format::Plain);
        assert!(
            plain.starts_with("# HELP cachectl_commands_total Commands.\n# TYPE cachectl_commands_total counter\n")
        );
        assert!(!plain.contains("EOF") && !plain.contains("UNIT"), "{plain}");
    }

    #[test]
    fn the_format_is_the_one_asked_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::Open);
        assert_eq!(Format::accepted("*/*"), Format::Plain);
    }
}
