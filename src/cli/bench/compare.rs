//! `cachectl bench compare A B`: two results side by side, as ratios.

use std::path::Path;

use serde::Serialize;

use super::report::{Report, SCHEMA, show_us};
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::output::{Out, Table, Tone};
use crate::cli::units::show_count;

/// A change smaller than this is not coloured: two runs of the same thing differ as much.
const NOISE: f64 = 0.05;

/// One figure of both.
#[derive(Debug, Clone, Serialize)]
struct Line {
    figure: &'static str,
    a: Option<f64>,
    b: Option<f64>,
    /// b / a
    ratio: Option<f64>,
    /// Whether more is better.
    #[serde(skip)]
    more: bool,
    #[serde(skip)]
    show: fn(Option<f64>) -> String,
}

/// `-o json`: schema 1, a line per figure, and the settings that differ.
#[derive(Debug, Serialize)]
struct Comparison {
    schema: u32,
    kind: &'static str,
    figures: Vec<Line>,
    /// Names of settings that are not the same in both.
    differ: Vec<String>,
}

/// Runs it.
pub fn run(out: &Out, a: &Path, b: &Path) -> CmdResult {
    let (a, b) = (read(a)?, read(b)?);
    let doc = Comparison { schema: SCHEMA, kind: "bench-compare", figures: figures(&a, &b), differ: differ(&a, &b)? };
    if out.json() {
        out.document(&doc)?;
        return Ok(Exit::Done);
    }
    if !doc.differ.is_empty() {
        out.warn(&format!("the runs differ in {}: like is not compared with like", doc.differ.join(", ")));
    }
    let mut table = Table::new(&["", ">A", ">B", ">B/A"]);
    for l in &doc.figures {
        let tone = l.ratio.and_then(|r| match r {
            r if (r - 1.0).abs() < NOISE => None,
            r if (r > 1.0) == l.more => Some(Tone::Good),
            _ => Some(Tone::Bad),
        });
        let ratio = l.ratio.map_or("-".into(), |r| format!("{r:.2}×"));
        table.row(&[(l.figure, None), (&(l.show)(l.a), None), (&(l.show)(l.b), None), (&ratio, tone)]);
    }
    out.raw(table.render(out, "").as_bytes())?;
    Ok(Exit::Done)
}

fn read(path: &Path) -> Result<Report, CliError> {
    let name = path.display();
    let text = std::fs::read(path)
        .map_err(|e| CliError::failed("NO_FILE", format!("can't read {name}: {e}")).hint("name two result files"))?;
    let report: Report = serde_json::from_slice(&text).map_err(|e| {
        CliError::failed("NO_RESULT", format!("{name} is no result of bench: {e}"))
            .hint("`cachectl bench -o json > FILE` writes one")
    })?;
    if report.schema != SCHEMA || report.kind != "bench" {
        return Err(CliError::failed("NO_RESULT", format!("{name} is no result of bench that this version reads"))
            .hint("compare with the version that wrote it"));
    }
    Ok(report)
}

fn number(x: Option<f64>) -> String {
    x.map_or("-".into(), |x| format!("{x:.3}"))
}

fn count(x: Option<f64>) -> String {
    x.map_or("-".into(), show_count)
}

fn figures(a: &Report, b: &Report) -> Vec<Line> {
    type Row = (&'static str, bool, fn(&Report) -> Option<f64>, fn(Option<f64>) -> String);
    let rows: [Row; 12] = [
        ("ops/s", true, |r| Some(r.ops_per_s), count),
        ("mean", false, |r| r.all.mean_us, show_us),
        ("p50", false, |r| r.all.p50_us, show_us),
        ("p99", false, |r| r.all.p99_us, show_us),
        ("p99.9", false, |r| r.all.p99_9_us, show_us),
        ("max", false, |r| r.all.max_us, show_us),
        ("GET p99", false, |r| r.get.p99_us, show_us),
        ("SET p99", false, |r| r.set.p99_us, show_us),
        ("errors", false, |r| Some(r.errors_total as f64), count),
        ("generator CPU s/M ops", false, |r| r.generator.cpu_s_per_mops, number),
        ("servers CPU s/M ops", false, |r| r.servers.as_ref()?.cpu_s_per_mops, number),
        ("servers RSS MiB", false, |r| Some(r.servers.as_ref()?.rss_after_bytes as f64 / f64::from(1 << 20)), count),
    ];
    let line = |(figure, more, of, show): Row| {
        let (a, b) = (of(a), of(b));
        let ratio = a.zip(b).filter(|(a, _)| *a > 0.0).map(|(a, b)| b / a);
        Line { figure, a, b, ratio, more, show }
    };
    rows.map(line).into_iter().filter(|l| l.a.is_some() || l.b.is_some()).collect()
}

/// The settings, by name, that are not equal.
fn differ(a: &Report, b: &Report) -> Result<Vec<String>, CliError> {
    let object = |r: &Report| match serde_json::to_value(&r.settings) {
        Ok(serde_json::Value::Object(o)) => Ok(o),
        _ => Err(CliError::failed("BUG", "settings are no object")),
    };
    let (a, b) = (object(a)?, object(b)?);
    Ok(a.into_iter().filter(|(k, v)| b.get(k) != Some(v)).map(|(k, _)| k).collect())
}
